"""What every interpolator promises, whatever its rule."""

from importlib.util import find_spec

import numpy as np
import pytest
from phantoms import blobs, intensities, sphere

from sparseunet.annotation.interpolation import INTERPOLATORS, load_interpolator
from sparseunet.annotation.interpolation.confidence import confidence
from sparseunet.annotation.interpolation.gaps import Gap, find_gaps
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.simulate import hide_slices
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.errors import RequestError

METHODS = ("nearest", "shape", "spline", "fused")
"""Those that need nothing that may be missing."""
FROM_LABELS = ("nearest", "shape", "spline")
"""Those that look at labels alone."""
SHAPE = (21, 40, 34)
SPACING_MM = (3.0, 1.0, 1.2)
BY_AXIS = pytest.mark.parametrize("axis", [0, 1, 2])
BY_METHOD = pytest.mark.parametrize("method", METHODS)
BY_LABEL_METHOD = pytest.mark.parametrize("method", FROM_LABELS)


def scan(labels_ZYX: np.ndarray, spacing_mm: tuple[float, float, float] = SPACING_MM) -> Image:
    z, y, x = labels_ZYX.shape
    geometry = Geometry(shape=(z, y, x), spacing_mm=spacing_mm)
    return Image(voxels_CZYX=intensities(labels_ZYX, seed=0)[None], geometry=geometry)


def sparse(labels_ZYX: np.ndarray, keep: list[int], axis: int = 0) -> Annotation:
    dense = Annotation.from_label_map(labels_ZYX, ignore=None)
    return hide_slices(dense, keep=keep, axis=axis)


def fill(
    method: str,
    annotation: Annotation,
    axis: int = 0,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    until_gap_mm: float | None = None,
) -> Annotation:
    request = InterpolationRequest(axis=axis, until_gap_mm=until_gap_mm)
    image = scan(annotation.labels_ZYX, spacing_mm)
    return load_interpolator(method)(image, annotation, request=request)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


@BY_METHOD
@BY_AXIS
def test_what_is_annotated_stays_bit_for_bit_and_the_rest_is_filled(method: str, axis: int) -> None:
    labels_ZYX = blobs(SHAPE, seed=1, num_classes=3)
    given = sparse(labels_ZYX, [2, 7, 11, 19], axis)
    scribble = (5, 20, 13)
    given.labels_ZYX[scribble], given.source_ZYX[scribble] = 3, Source.MANUAL
    guess = (9, 21, 14)
    given.labels_ZYX[guess], given.source_ZYX[guess] = 2, Source.PSEUDO
    before = given.labels_ZYX.copy(), given.source_ZYX.copy()
    filled = fill(method, given, axis)
    assert np.array_equal(given.labels_ZYX, before[0])
    assert np.array_equal(given.source_ZYX, before[1])
    was_there = given.annotated_ZYX
    assert np.array_equal(filled.labels_ZYX[was_there], given.labels_ZYX[was_there])
    assert np.array_equal(filled.source_ZYX[was_there], given.source_ZYX[was_there])
    assert (filled.source_ZYX[~was_there] == Source.INTERPOLATED).all()
    assert filled.labels_ZYX.dtype == given.labels_ZYX.dtype
    assert filled.confidence_ZYX is not None
    assert filled.confidence_ZYX.dtype == np.float32
    assert (filled.confidence_ZYX[was_there] == 1).all()
    assert filled.confidence_ZYX.min() >= 0
    assert filled.confidence_ZYX.max() <= 1
    assert len(np.unique(filled.confidence_ZYX)) > 10


@BY_METHOD
@BY_AXIS
def test_the_classes_of_a_gap_come_from_its_two_ends(method: str, axis: int) -> None:
    labels_ZYX = blobs(SHAPE, seed=2, num_classes=5, share=0.6)
    keep = [1, 6, 9, 20]
    filled_KYX = np.moveaxis(fill(method, sparse(labels_ZYX, keep, axis), axis).labels_ZYX, axis, 0)
    ends_KYX = np.moveaxis(labels_ZYX, axis, 0)
    for before, after in ((1, 1), (1, 6), (6, 9), (9, 20), (20, 20)):
        first, last = (0, 1) if after == 1 else (before + 1, after)
        if before == 20:
            first, last = 21, len(ends_KYX)
        allowed = {0, *np.unique(ends_KYX[before]), *np.unique(ends_KYX[after])}
        assert set(np.unique(filled_KYX[first:last])) <= allowed


@BY_LABEL_METHOD
@BY_AXIS
def test_a_mirrored_volume_gives_the_mirrored_result(method: str, axis: int) -> None:
    labels_ZYX = blobs(SHAPE, seed=3, num_classes=3)
    keep = [3, 9, 12, 18]
    filled = fill(method, sparse(labels_ZYX, keep, axis), axis)
    for mirrored in (0, 1, 2):
        there = [SHAPE[axis] - 1 - index for index in keep] if mirrored == axis else keep
        flipped = fill(method, sparse(np.flip(labels_ZYX, mirrored).copy(), there, axis), axis)
        back_ZYX = np.flip(flipped.labels_ZYX, mirrored)
        # Distances that are equal on paper differ in the last digit, and a voxel here and there.
        assert np.mean(back_ZYX != filled.labels_ZYX) < 1e-4


@BY_METHOD
def test_spacing_scaled_by_ten_changes_nothing_but_distances(method: str) -> None:
    given = sparse(blobs(SHAPE, seed=4, num_classes=2), [2, 8, 15])
    one = fill(method, given)
    ten = fill(method, given, spacing_mm=(30.0, 10.0, 12.0))
    assert np.mean(one.labels_ZYX != ten.labels_ZYX) < 1e-4
    assert np.allclose(one.confidence_ZYX, ten.confidence_ZYX, atol=1e-2)
    near = fill(method, given, until_gap_mm=18.0)
    far = fill(method, given, spacing_mm=(30.0, 10.0, 12.0), until_gap_mm=180.0)
    assert np.array_equal(near.source_ZYX, far.source_ZYX)


@BY_METHOD
def test_pixels_that_are_not_square_change_the_way_shapes_blend(method: str) -> None:
    labels_ZYX = np.zeros((5, 30, 30), np.uint8)
    labels_ZYX[0, 5:25, 12:18] = 1
    labels_ZYX[4, 12:18, 5:25] = 1
    square = fill(method, sparse(labels_ZYX, [0, 4]), spacing_mm=(1.0, 1.0, 1.0))
    flat = fill(method, sparse(labels_ZYX, [0, 4]), spacing_mm=(1.0, 8.0, 1.0))
    assert np.array_equal(square.labels_ZYX, flat.labels_ZYX) == (method == "nearest")


@BY_METHOD
def test_without_a_complete_slice_nothing_is_filled(method: str) -> None:
    labels_ZYX = blobs(SHAPE, seed=5)
    nothing = sparse(labels_ZYX, [])
    scribbles = sparse(labels_ZYX, [4, 9])
    scribbles.labels_ZYX[:, 0, 0], scribbles.source_ZYX[:, 0, 0] = 0, Source.NONE
    for given in (nothing, scribbles):
        filled = fill(method, given)
        assert np.array_equal(filled.source_ZYX, given.source_ZYX)
        assert np.array_equal(filled.labels_ZYX, given.labels_ZYX)


@BY_METHOD
def test_dense_labels_stay_as_they_are(method: str) -> None:
    given = Annotation.from_label_map(blobs(SHAPE, seed=6), ignore=None)
    filled = fill(method, given)
    assert np.array_equal(filled.labels_ZYX, given.labels_ZYX)
    assert (filled.source_ZYX == Source.MANUAL).all()


@BY_METHOD
def test_empty_slices_give_background_and_full_slices_a_full_volume(method: str) -> None:
    empty = np.zeros((7, 12, 12), np.uint8)
    assert (fill(method, sparse(empty, [1, 5])).labels_ZYX == 0).all()
    full = np.full((7, 12, 12), 2, np.uint8)
    between = fill(method, sparse(full, [1, 5])).labels_ZYX
    assert (between[1:6] == 2).all()


@BY_METHOD
def test_one_annotated_slice_is_continued_on_both_sides(method: str) -> None:
    labels_ZYX = np.zeros(SHAPE, np.uint8)
    labels_ZYX[10, 10:30, 8:28] = 1
    filled = fill(method, sparse(labels_ZYX, [10]))
    assert (filled.source_ZYX[filled.source_ZYX != Source.MANUAL] == Source.INTERPOLATED).all()
    assert filled.labels_ZYX[9].any()
    assert np.array_equal(filled.labels_ZYX[9], filled.labels_ZYX[11])
    assert not (filled.labels_ZYX.astype(bool) & ~labels_ZYX[10].astype(bool)).any()


@BY_METHOD
def test_labels_at_the_border_of_the_image_reach_it_in_between(method: str) -> None:
    labels_ZYX = np.zeros((9, 20, 20), np.uint8)
    labels_ZYX[:, :8, 6:] = 1
    filled = fill(method, sparse(labels_ZYX, [0, 8]))
    assert np.array_equal(filled.labels_ZYX, labels_ZYX)


@BY_METHOD
def test_an_object_ends_before_a_slice_that_was_reviewed_as_empty(method: str) -> None:
    labels_ZYX = np.zeros((17, 40, 40), np.uint8)
    labels_ZYX[8] = sphere((40, 40), radius_mm=10)
    filled = fill(method, sparse(labels_ZYX, [0, 8, 16]), spacing_mm=(1.0, 1.0, 1.0))
    sizes = (filled.labels_ZYX > 0).sum(axis=(1, 2))
    assert sizes[0] == sizes[16] == 0
    assert sizes[1] == sizes[15] < sizes[8] / 10
    assert sizes[5] > 0
    assert (np.diff(sizes[:9]) >= 0).all()
    assert np.array_equal(sizes, sizes[::-1])


@BY_METHOD
def test_an_island_beside_another_object_of_its_class_does_not_vanish_at_once(method: str) -> None:
    labels_ZYX = np.zeros((9, 60, 60), np.uint8)
    labels_ZYX[:, 5:20, 5:20] = 1
    labels_ZYX[0, 40:54, 40:54] = 1
    island = np.s_[:, 30:, 30:]
    filled_ZYX = fill(method, sparse(labels_ZYX, [0, 8]), spacing_mm=(1.0, 1.0, 1.0)).labels_ZYX
    sizes = (filled_ZYX[island] > 0).sum(axis=(1, 2))
    assert sizes[2] > 0
    assert sizes[7] == 0
    assert (filled_ZYX[:, 7:18, 7:18] == 1).all(), "the object that stays is not drawn to it"


@BY_METHOD
@pytest.mark.parametrize("keep", [[0, 4, 9, 13, 20], [1, 2, 9, 10, 19, 20]])
def test_neighbouring_classes_leave_no_hole_between_them(method: str, keep: list[int]) -> None:
    labels_ZYX = np.ones((21, 40, 40), np.uint8)
    for index in range(21):
        labels_ZYX[index, 10 + index :] = 2
        labels_ZYX[index, :, 5 + index :] += 2
    filled = fill(method, sparse(labels_ZYX, keep), spacing_mm=(2.0, 1.0, 1.0))
    first, last = keep[0], keep[-1] + 1
    assert (filled.labels_ZYX[first:last] > 0).all()


def test_gaps_wider_than_asked_for_are_left_alone() -> None:
    given = sparse(blobs(SHAPE, seed=7), [4, 8, 15])
    request = InterpolationRequest(axis=0, until_gap_mm=12.0)
    gaps = find_gaps(given, SPACING_MM, request)
    assert [gap.slices for gap in gaps] == [(2, 3), (5, 6, 7), (16, 17)]
    filled = fill("shape", given, until_gap_mm=12.0)
    assert filled.annotated_slices(0).tolist() == [*range(2, 9), *range(15, 18)]
    everything = find_gaps(given, SPACING_MM, InterpolationRequest(axis=0))
    starts_and_stops = [(gap.slices[0], gap.slices[-1]) for gap in everything]
    assert starts_and_stops == [(0, 3), (5, 7), (9, 14), (16, 20)]


def test_slices_that_are_labelled_already_are_not_filled_again() -> None:
    given = sparse(blobs(SHAPE, seed=7), [4, 8, 15])
    given.source_ZYX[5:8], given.source_ZYX[10] = Source.PSEUDO, Source.INTERPOLATED
    gaps = find_gaps(given, SPACING_MM, InterpolationRequest(axis=0))
    assert [gap.slices for gap in gaps][1] == (9, 11, 12, 13, 14)
    assert [(gap.before, gap.after) for gap in gaps] == [(None, 4), (8, 15), (15, None)]


def test_adjacent_annotated_slices_have_no_gap_between_them() -> None:
    given = sparse(blobs(SHAPE, seed=8), [0, 1, 2, 19, 20])
    (gap,) = find_gaps(given, SPACING_MM, InterpolationRequest(axis=0))
    assert (gap.before, gap.after, gap.distance(4), gap.distance(17)) == (2, 19, 2, 2)


@pytest.mark.parametrize(
    ("method", "least"), [("nearest", 0.85), ("shape", 0.93), ("spline", 0.95)]
)
def test_a_ball_comes_back(method: str, least: float) -> None:
    ball_ZYX = sphere((41, 41, 41), radius_mm=16).astype(np.uint8)
    keep = list(range(0, 41, 5))
    filled_ZYX = fill(method, sparse(ball_ZYX, keep), spacing_mm=(1.0, 1.0, 1.0)).labels_ZYX
    assert dice(filled_ZYX > 0, ball_ZYX > 0) > least


@pytest.mark.parametrize(("method", "least"), [("shape", 0.97), ("spline", 0.97)])
def test_an_oblique_rod_moves_with_its_centre(method: str, least: float) -> None:
    rod_ZYX = np.stack(
        [sphere((60, 60), center=(10 + index, 30), radius_mm=6) for index in range(41)]
    ).astype(np.uint8)
    filled_ZYX = fill(
        method, sparse(rod_ZYX, [0, 10, 20, 30, 40]), spacing_mm=(1.0,) * 3
    ).labels_ZYX
    assert dice(filled_ZYX > 0, rod_ZYX > 0) > least


def test_the_image_corrects_what_outlines_cannot_know() -> None:
    radii = 12 + 4 * np.sin(np.arange(49) * 0.9)
    rod_ZYX = np.stack([sphere((50, 50), radius_mm=radius) for radius in radii]).astype(np.uint8)
    given = sparse(rod_ZYX, list(range(0, 49, 4)))
    image, request = scan(rod_ZYX, (1.0, 1.0, 1.0)), InterpolationRequest(axis=0)
    spline = load_interpolator("spline")(image, given, request=request)
    fused = load_interpolator("fused")(image, given, request=request)
    of_spline, of_fused = (dice(item.labels_ZYX > 0, rod_ZYX > 0) for item in (spline, fused))
    assert of_fused > of_spline + 0.05


def test_the_image_is_left_out_of_it_where_there_is_too_little_to_learn_from() -> None:
    given = sparse(blobs(SHAPE, seed=10, width=1.0), [2, 9, 16])
    assert np.array_equal(fill("fused", given).labels_ZYX, fill("spline", given).labels_ZYX)


@BY_LABEL_METHOD
def test_confidence_falls_with_the_distance_and_at_borders(method: str) -> None:
    labels_ZYX = np.zeros((21, 60, 60), np.uint8)
    labels_ZYX[:, 20:40, 20:40] = 1
    filled = fill(method, sparse(labels_ZYX, [0, 20]), spacing_mm=(1.0, 1.0, 1.0))
    assert filled.confidence_ZYX is not None
    assert filled.confidence_ZYX[2, 30, 24] > filled.confidence_ZYX[9, 30, 24]
    assert filled.confidence_ZYX[9, 30, 30] > filled.confidence_ZYX[9, 30, 21]
    assert filled.confidence_ZYX[9, 2, 2] > filled.confidence_ZYX[9, 18, 18]


def test_beside_an_annotated_slice_outlines_are_trusted_less_than_their_distance_says() -> None:
    label = np.ones(1, np.uint8)
    near, far = (
        confidence(
            label,
            np.full(1, 0.5 * distance, np.float32),
            gap=Gap(before=0, after=40, slices=tuple(range(1, 40))),
            index=distance,
            spacing_mm=(1.0, 1.0, 1.0),
            axis=0,
            method="spline",
        )
        for distance in (1, 20)
    )
    assert near < far - 0.05


@BY_LABEL_METHOD
@BY_AXIS
def test_the_number_of_threads_changes_nothing(method: str, axis: int) -> None:
    given = sparse(blobs(SHAPE, seed=8, num_classes=3), [2, 4, 9, 11, 18], axis)
    image = scan(given.labels_ZYX)
    one, three = (
        load_interpolator(method)(
            image, given, request=InterpolationRequest(axis=axis, num_threads=number)
        )
        for number in (1, 3)
    )
    assert one.labels_ZYX.tobytes() == three.labels_ZYX.tobytes()
    assert one.confidence_ZYX is not None
    assert three.confidence_ZYX is not None
    assert one.confidence_ZYX.tobytes() == three.confidence_ZYX.tobytes()


@BY_LABEL_METHOD
def test_what_lies_far_from_all_objects_is_surely_background(method: str) -> None:
    labels_ZYX = np.zeros((9, 90, 80), np.uint8)
    labels_ZYX[:, 4:9, 5:9] = 1
    filled = fill(method, sparse(labels_ZYX, [0, 4, 8]))
    assert np.array_equal(filled.labels_ZYX, labels_ZYX)
    assert (filled.source_ZYX != Source.NONE).all()
    assert filled.confidence_ZYX is not None
    assert filled.confidence_ZYX[:, 60:].min() > 0.99


def test_morphological_interpolation_says_what_to_install() -> None:
    if find_spec("itk") is not None:
        pytest.skip("ITK's module is installed")
    with pytest.raises(RequestError, match=r"pip install sparseunet\[morphological\]"):
        fill("morphological", sparse(blobs(SHAPE, seed=9), [2, 9]))


@BY_AXIS
def test_morphological_interpolation_keeps_the_promises(axis: int) -> None:
    pytest.importorskip("itk", reason="needs itk-morphologicalcontourinterpolation")
    labels_ZYX = blobs(SHAPE, seed=9, num_classes=3)
    given = sparse(labels_ZYX, [2, 9, 17], axis)
    filled = fill("morphological", given, axis)
    was_there = given.annotated_ZYX
    assert np.array_equal(filled.labels_ZYX[was_there], given.labels_ZYX[was_there])
    assert filled.is_dense
    rod_ZYX = np.zeros((9, 20, 20), np.uint8)
    rod_ZYX[:, 5:15, 5:15] = 2
    assert np.array_equal(fill("morphological", sparse(rod_ZYX, [0, 8])).labels_ZYX, rod_ZYX)


def test_an_unknown_interpolator_is_answered_with_those_there_are() -> None:
    with pytest.raises(RequestError, match="no interpolator 'spine'; choose from nearest, shape"):
        load_interpolator("spine")
    path = INTERPOLATORS["shape"]
    assert load_interpolator(path) is load_interpolator("shape")
