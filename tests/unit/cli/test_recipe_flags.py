"""The flags of the recipe choose augmentation and mirrored axes, and refuse what does not exist."""

import argparse
from types import SimpleNamespace

import pytest

from sparseunet.cli.recipe import add_recipe_arguments, recipe_from_arguments
from sparseunet.data.geometry import Geometry
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.preprocessing.case import Restoration

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
    return recipe_from_arguments(
        parser.parse_args(flags),
        SimpleNamespace(dimensions=dimensions),
        planned_iterations=None,
        labels=SIDES,
        scans=[SCAN],
    )


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
