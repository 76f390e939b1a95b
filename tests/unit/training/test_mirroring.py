"""Left and right stay apart where labels tell them apart, and mirroring is on everywhere else."""

import pytest

from sparseunet.data.geometry import Geometry
from sparseunet.preprocessing.case import Restoration
from sparseunet.training.mirroring import choose_mirror_axes, left_right_axis, paired_names

LPS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SAGITTAL = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
"""Slices follow one another from left to right: file axis z is the patient's left-right."""
OBLIQUE = (0.71, -0.71, 0.0, 0.71, 0.71, 0.0, 0.0, 0.0, 1.0)
KIDNEYS = ["background", "left kidney", "right kidney", "liver"]


def _scan(direction=LPS, transpose=(0, 1, 2), dimensions=3):
    shape = (8, 9, 10)
    return Restoration(
        geometry=Geometry(
            shape=shape, spacing_mm=(1.0, 1.0, 1.0), direction=direction, dimensions=dimensions
        ),
        transpose_forward=transpose,
        crop_start=(0, 0, 0),
        crop_shape=shape,
        network_shape=shape,
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (KIDNEYS, [("left kidney", "right kidney")]),
        (["kidney_right", "kidney_left"], [("kidney_left", "kidney_right")]),
        (["LeftLung", "RightLung"], [("LeftLung", "RightLung")]),
        (["Amygdala-L", "Amygdala-R"], [("Amygdala-L", "Amygdala-R")]),
        (["lh-cortex", "rh-cortex"], [("lh-cortex", "rh-cortex")]),
        (["left kidney", "right lung"], []),
        (["Anterior", "Posterior"], []),
        (["RV", "MYO", "LV"], []),
        (["cleft", "bright"], []),
    ],
)
def test_pairs_are_found_by_whole_words(names, expected):
    assert paired_names(names) == expected


@pytest.mark.parametrize(
    ("scan", "axis"),
    [
        (_scan(), 2),
        (_scan(tuple(-value for value in LPS)), 2),
        (_scan(SAGITTAL), 0),
        (_scan(transpose=(2, 0, 1)), 0),
        (_scan(SAGITTAL, transpose=(1, 0, 2)), 1),
        (_scan(OBLIQUE), None),
        (_scan((1.0, 0.0, 0.0, 1.0), dimensions=2), None),
    ],
)
def test_the_direction_says_which_axis_is_left_right(scan, axis):
    assert left_right_axis(scan) == axis


def test_without_pairs_every_axis_is_mirrored_without_a_word():
    choice = choose_mirror_axes(["background", "Anterior"], [_scan()], dimensions=3)
    assert choice.axes == (0, 1, 2)
    assert choice.notice is None


def test_pairs_switch_mirroring_off_across_left_right():
    choice = choose_mirror_axes(KIDNEYS, [_scan(), _scan()], dimensions=3)
    assert choice.axes == (0, 1)
    assert "left-right (axis 2)" in choice.notice
    assert "'left kidney' and 'right kidney'" in choice.notice
    assert choose_mirror_axes(KIDNEYS, [_scan()], dimensions=2).axes == (0,)
    assert choose_mirror_axes(KIDNEYS, [_scan(SAGITTAL)], dimensions=3).axes == (1, 2)
    assert choose_mirror_axes(KIDNEYS, [_scan(SAGITTAL)], dimensions=2).axes == (0, 1)


@pytest.mark.parametrize("scans", [[_scan(OBLIQUE)], [_scan(), _scan(SAGITTAL)], []])
def test_where_the_axis_is_not_clear_the_user_is_told(scans):
    choice = choose_mirror_axes(KIDNEYS, scans, dimensions=3)
    assert choice.axes == (0, 1, 2)
    assert "choose the axes to mirror otherwise" in choice.notice
