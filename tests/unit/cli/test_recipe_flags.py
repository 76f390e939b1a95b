"""The flags of the recipe choose augmentation and mirrored axes, and refuse what does not exist."""

import argparse
from types import SimpleNamespace

import pytest

from sparseunet.cli.recipe import add_recipe_arguments, given_recipe
from sparseunet.data.geometry import Geometry
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.preprocessing.case import Restoration
from sparseunet.runs.settings import settle_recipe

SHAPE = (8, 9, 10)
SCAN = Restoration(
    geometry=Geometry(shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0)),
    transpose_forward=(0, 1, 2),
    crop_start=(0, 0, 0),
    crop_shape=SHAPE,
    network_shape=SHAPE,
)
SIDES = LabelSchema(classes={"background": 0, "left eye": 1, "right eye": 2}, regions={})


def _recipe(*flags, dimensions=3):
    parser = argparse.ArgumentParser()
    add_recipe_arguments(parser)
    recipe, notice = settle_recipe(
        given_recipe(parser.parse_args(flags)),
        SimpleNamespace(dimensions=dimensions),
        preset="nnunet",
        planned_iterations=None,
        time_chooses_length=False,
        labels=SIDES,
        scans=[SCAN],
    )
    if notice is not None:
        print(notice)
    return recipe


def test_labels_in_pairs_switch_off_one_axis_and_one_line_says_so(capsys):
    recipe = _recipe()
    assert recipe.augmentation == "nnunet"
    assert recipe.mirror_axes == (0, 1)
    (line,) = capsys.readouterr().out.splitlines()
    assert "No mirroring across left-right (axis 2)" in line


@pytest.mark.parametrize(
    ("flags", "axes"), [(["none"], ()), (["2", "0"], (0, 2)), (["0", "1", "2"], (0, 1, 2))]
)
def test_the_axes_asked_for_are_taken_without_a_word(capsys, flags, axes):
    assert _recipe("--mirror-axes", *flags, "--augmentation", "light").mirror_axes == axes
    assert capsys.readouterr().out == ""


def test_axes_and_chains_that_do_not_exist_are_refused():
    with pytest.raises(RequestError, match="axes of the 2D patch, from 0, 1, or none"):
        _recipe("--mirror-axes", "2", dimensions=2)
    with pytest.raises(RequestError, match="no augmentation 'strong'"):
        _recipe("--augmentation", "strong")


def test_trust_is_given_per_source_and_the_others_keep_theirs(capsys):
    recipe = _recipe("--trust", "interpolated=0.5", "pseudo=0")
    assert recipe.trust == {"manual": 1.0, "interpolated": 0.5, "pseudo": 0.0}
    assert _recipe().trust == {"manual": 1.0, "interpolated": 1.0, "pseudo": 1.0}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--trust", "model=0.5"), "of manual, interpolated, pseudo must"),
        (("--trust", "pseudo=1.5"), "from 0 to 1"),
        (("--trust", "pseudo=nan"), "from 0 to 1"),
        (("--trust", "manual=0", "interpolated=0", "pseudo=0"), "one of them above 0"),
        (("--trust", "pseudo"), "--trust takes NAME=WEIGHT once"),
        (("--foreground-share", "1.5"), "from 0 to 1, found 1.5"),
    ],
)
def test_shares_and_trust_that_cannot_be_are_refused(flags, message):
    with pytest.raises(RequestError, match=message):
        _recipe(*flags)


def test_batch_dice_is_left_to_the_data_unless_somebody_chooses():
    assert _recipe().batch_dice is None
    assert _recipe("--batch-dice").batch_dice is True
    assert _recipe("--no-batch-dice").batch_dice is False
    assert _recipe("--foreground-share", "0.5").foreground_share == 0.5
