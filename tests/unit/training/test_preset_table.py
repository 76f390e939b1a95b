"""The papers' recipes, as they stand in the papers."""

import re
from pathlib import Path

import pytest

from sparseunet.errors import RequestError
from sparseunet.planning.architectures import KNOWN
from sparseunet.training.presets import PRESETS, find_preset, named_class_weights
from sparseunet.training.recipe import Recipe

PAGE = (
    Path(__file__).resolve().parents[3] / "documentation/reference/networks_and_presets.md"
).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_recipe_for_a_network_that_exists(name):
    preset = PRESETS[name]
    Recipe(**preset.recipe)
    assert preset.architecture is None or preset.dimensions in KNOWN[preset.architecture].dimensions
    if preset.patch_size is not None:
        assert len(preset.patch_size) == preset.dimensions


def test_the_default_preset_changes_nothing():
    preset = find_preset("nnunet", dimensions=3)
    assert (preset.architecture, preset.patch_size, preset.batch_size) == (None, None, None)
    assert Recipe(**preset.recipe) == Recipe()


@pytest.mark.parametrize(
    ("name", "optimizer", "rate", "decay", "iterations"),
    [
        ("z25-lits-2d", "adamw", 1e-4, 1e-5, 14_000),
        ("z25-dbc-2d", "adamw", 1e-4, 1e-2, 12_000),
        ("z25-atlas-2d", "adamw", 5e-5, 1e-5, 15_000),
        ("z25-lits-3d", "sgd", 1e-2, 1e-4, 18_000),
        ("z25-dbc-3d", "adamw", 3e-4, 1e-5, 12_000),
        ("z25-atlas-3d", "adamw", 1.5e-4, 1e-6, 15_000),
    ],
)
def test_optimisation_is_that_of_table_2(name, optimizer, rate, decay, iterations):
    recipe = PRESETS[name].recipe
    found = tuple(
        recipe[key] for key in ("optimizer", "learning_rate", "weight_decay", "iterations")
    )
    assert found == (optimizer, rate, decay, iterations)


def test_weights_by_position_become_weights_by_name_in_order_of_label_value():
    found = named_class_weights(
        "z25-lits-2d", (0.04, 0.25, 1.4), {"tumour": 2, "background": 0, "liver": 1}
    )
    assert found == {"background": 0.04, "liver": 0.25, "tumour": 1.4}


def test_weights_for_another_number_of_classes_are_refused_with_the_flag_that_helps():
    with pytest.raises(RequestError, match=r"weighs 3 classes.*has 2.*class weights: background="):
        named_class_weights("z25-lits-2d", (0.04, 0.25, 1.4), {"background": 0, "liver": 1})


def test_a_preset_for_other_dimensions_is_refused_with_those_that_fit():
    with pytest.raises(RequestError, match=r"z25-lits-2d is for 2D.*z25-lits-3d"):
        find_preset("z25-lits-2d", dimensions=3)
    with pytest.raises(RequestError, match=r"no preset 'lits'; choose from nnunet"):
        find_preset("lits", dimensions=3)


def test_the_page_has_a_row_for_every_preset_and_network():
    rows = set(re.findall(r"^\| `(\w[\w-]*)`", PAGE, re.MULTILINE))
    assert rows == {*PRESETS, *KNOWN}


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "nnunet"])
def test_the_page_gives_the_numbers_of_the_table(name):
    (row,) = re.findall(rf"^\| `{name}` .*$", PAGE, re.MULTILINE)
    preset = PRESETS[name]
    assert f"`{preset.architecture}`" in row
    assert f"{preset.recipe['optimizer']} {preset.recipe['learning_rate']:g}" in row
    assert f"{preset.recipe['iterations']}" in row
