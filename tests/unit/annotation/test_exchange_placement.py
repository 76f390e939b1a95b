"""Voxels come back to their own place in the scan, or not at all."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sparseunet.annotation.exchange.placement import (
    MisplacedError,
    place_voxels,
    slice_geometry,
)
from sparseunet.annotation.exchange.views import as_shown, slice_offset, swaps_axes, view_name
from sparseunet.data.geometry import Geometry

SHAPE = (5, 4, 3)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(3.0, 0.8, 0.7), origin_mm=(-5.0, 4.0, 30.5))
VOXELS = np.arange(60, dtype=np.uint8).reshape(SHAPE)


def _turned(geometry: Geometry, axes, flips):
    """The same box of space with axes permuted, then flipped, as a tool would write it."""
    cosines = np.reshape(geometry.direction, (3, 3))[:, ::-1]
    columns = cosines * np.asarray(geometry.spacing_mm)
    origin = np.asarray(geometry.origin_mm)
    for axis in range(3):
        if flips[axis]:
            origin = origin + columns[:, axes[axis]] * (geometry.shape[axes[axis]] - 1)
    signs = np.where(flips, -1.0, 1.0)
    direction = (cosines[:, list(axes)] * signs)[:, ::-1]
    return Geometry(
        shape=tuple(geometry.shape[axis] for axis in axes),
        spacing_mm=tuple(geometry.spacing_mm[axis] for axis in axes),
        origin_mm=tuple(origin.tolist()),
        direction=tuple(direction.ravel().tolist()),
    )


@given(
    axes=st.permutations(range(3)),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    noise=st.floats(-1e-4, 1e-4),
)
@settings(max_examples=60)
def test_every_order_and_sense_of_axes_is_undone_exactly(axes, flips, angles, noise):
    cosines = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    onto = replace(GEOMETRY, direction=tuple(cosines.ravel().tolist()))
    turned = _turned(onto, axes, flips)
    rounded = replace(turned, origin_mm=tuple(value + noise for value in turned.origin_mm))
    voxels = np.transpose(VOXELS, axes)
    voxels = np.flip(voxels, tuple(axis for axis in range(3) if flips[axis]))

    assert np.array_equal(place_voxels(voxels, rounded, onto=onto), VOXELS)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"origin_mm": (-4.3, 4.0, 30.5)}, "shifted by (0, 0, 1) voxels"),
        ({"origin_mm": (-4.65, 4.0, 30.5)}, "shifted by (0, 0, 0.5) voxels"),
        ({"spacing_mm": (3.1, 0.8, 0.7)}, "spacing (3.1, 0.8, 0.7) mm"),
        ({"direction": (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}, "shifted by (0, 0, -2) voxels"),
        ({"direction": (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1.0)}, "axes in the directions"),
    ],
    ids=["one voxel", "half a voxel", "resampled", "flipped in direction only", "turned"],
)
@pytest.mark.parametrize("may_be_part", [False, True])
def test_grids_that_do_not_fall_on_the_scan_are_refused(changes, found, may_be_part):
    with pytest.raises(MisplacedError) as error:
        place_voxels(VOXELS, replace(GEOMETRY, **changes), onto=GEOMETRY, may_be_part=may_be_part)
    assert found in error.value.found


def test_a_part_of_a_scan_is_placed_only_where_parts_are_expected():
    part = replace(GEOMETRY, shape=(2, 4, 3), origin_mm=(-5.0, 4.0, 33.5))

    placed = place_voxels(VOXELS[1:3], part, onto=GEOMETRY, may_be_part=True)

    assert np.array_equal(placed[1:3], VOXELS[1:3])
    assert not placed[[0, 3, 4]].any()
    with pytest.raises(MisplacedError):
        place_voxels(VOXELS[1:3], part, onto=GEOMETRY)


def test_a_larger_box_is_cut_if_nothing_lies_outside_the_scan():
    large = replace(GEOMETRY, shape=(7, 4, 3), origin_mm=(-5.0, 4.0, 27.5))
    voxels = np.pad(VOXELS, ((1, 1), (0, 0), (0, 0)))

    assert np.array_equal(place_voxels(voxels, large, onto=GEOMETRY, may_be_part=True), VOXELS)

    voxels[0, 0, 0] = 1
    with pytest.raises(MisplacedError, match="1 voxels with labels outside"):
        place_voxels(voxels, large, onto=GEOMETRY, may_be_part=True)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_alone_lies_where_it_lies_in_the_scan(axis):
    onto = _turned(GEOMETRY, (1, 2, 0), (True, False, True))
    voxels = np.arange(60).reshape(onto.shape)
    grid = slice_geometry(onto, axis=axis, index=2)

    placed = place_voxels(np.take(voxels, [2], axis), grid, onto=onto, may_be_part=True)

    assert np.array_equal(np.take(placed, 2, axis), np.take(voxels, 2, axis))
    assert np.count_nonzero(placed) == np.count_nonzero(np.take(voxels, 2, axis))


@pytest.mark.parametrize("code", ["LPS", "RAS", "LAI", "PIR", "SRA", "IPL"])
def test_a_slice_looks_the_same_however_the_file_is_stored(code):
    image = SimpleITK.GetImageFromArray(VOXELS)
    image.SetSpacing((0.7, 0.8, 3.0))
    turned = SimpleITK.DICOMOrient(image, code)
    voxels = SimpleITK.GetArrayFromImage(turned)
    geometry = Geometry(
        shape=voxels.shape,
        spacing_mm=turned.GetSpacing()[::-1],
        origin_mm=turned.GetOrigin(),
        direction=turned.GetDirection(),
    )
    expected = {"axial": VOXELS[0], "coronal": VOXELS[::-1, 0], "sagittal": VOXELS[::-1, :, 0]}
    for axis in range(3):
        view = view_name(geometry, axis)
        plane = np.take(voxels, 0, axis)
        last = {"axial": VOXELS[-1], "coronal": VOXELS[::-1, -1], "sagittal": VOXELS[::-1, :, -1]}
        runs_backwards = sum(geometry.direction[2 - axis :: 3]) < 0
        wanted = last[view] if runs_backwards else expected[view]
        assert np.array_equal(as_shown(plane, geometry, axis), wanted)
        assert swaps_axes(geometry, axis) == (plane.shape != wanted.shape)


def test_offsets_are_positions_in_patient_space_along_right_anterior_superior():
    geometry = replace(GEOMETRY, direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0))
    assert slice_offset(geometry, axis=0, index=2) == "S 24.50 mm"
    assert slice_offset(geometry, axis=1, index=0) == "A -4.00 mm"
    assert slice_offset(geometry, axis=2, index=10) == "R -2.00 mm"
