import math

import numpy as np
import pytest
import SimpleITK
from phantoms import blobs, box, sphere
from scipy.spatial.distance import cdist

from sparseunet.evaluation.metrics import count_label_pairs, score_label_maps
from sparseunet.evaluation.surfaces import diagonal_mm, surface_distances

ONE = {"object": (1,)}
TWO = {"first": (1,), "second": (2,)}
SPACING_MM = (2.5, 1.0, 0.7)


def _brute_force_surface(mask: np.ndarray) -> np.ndarray:
    """Positions of voxels with a face neighbour outside the mask or outside the image."""
    found = []
    for index in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                neighbour = index.copy()
                neighbour[axis] += step
                inside = 0 <= neighbour[axis] < mask.shape[axis]
                if not inside or not mask[tuple(neighbour)]:
                    found.append(tuple(index))
    return np.array(sorted(set(found)))


def _brute_force_distances(reference, prediction, spacing_mm) -> tuple[float, float]:
    points = [_brute_force_surface(mask) * np.array(spacing_mm) for mask in (reference, prediction)]
    between = cdist(*points)
    there, back = between.min(axis=1), between.min(axis=0)
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return hd95, (there.sum() + back.sum()) / (there.size + back.size)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), SPACING_MM])
def test_every_number_follows_its_definition_voxel_by_voxel(seed, spacing_mm):
    reference = blobs((9, 14, 11), seed=seed)  # blobs touch the border of the image
    prediction = blobs((9, 14, 11), seed=seed + 100)

    scores = score_label_maps(reference, prediction, classes=TWO, spacing_mm=spacing_mm)

    for name, value in (("first", 1), ("second", 2)):
        is_reference, is_prediction = reference == value, prediction == value
        both, any_ = np.sum(is_reference & is_prediction), np.sum(is_reference | is_prediction)
        assert scores[name].dice == 2 * both / (is_reference.sum() + is_prediction.sum())
        assert scores[name].iou == both / any_
        assert scores[name].num_true_positives == both
        assert scores[name].num_false_positives == np.sum(is_prediction & ~is_reference)
        assert scores[name].num_false_negatives == np.sum(is_reference & ~is_prediction)
        assert scores[name].num_true_negatives == np.sum(~is_reference & ~is_prediction)
        assert scores[name].num_predicted == is_prediction.sum()
        assert scores[name].num_reference == is_reference.sum()
        expected = _brute_force_distances(is_reference, is_prediction, spacing_mm)
        assert (scores[name].surfaces.hd95_mm, scores[name].surfaces.assd_mm) == pytest.approx(
            expected, abs=1e-9
        )


@pytest.mark.parametrize("seed", range(5))
def test_overlap_and_farthest_surface_agree_with_simpleitk(seed):
    center = np.array([12, 14, 13]) + np.random.default_rng(seed).uniform(-3, 3, 3)
    reference = sphere((24, 30, 28), radius_mm=8, spacing_mm=SPACING_MM)
    prediction = sphere((24, 30, 28), radius_mm=7, center=center, spacing_mm=SPACING_MM)
    images = [
        SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in (reference, prediction)
    ]
    for image in images:
        image.SetSpacing(SPACING_MM[::-1])
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    hausdorff = SimpleITK.HausdorffDistanceImageFilter()
    hausdorff.Execute(*(SimpleITK.BinaryContour(image, True) for image in images))

    scores = score_label_maps(
        reference.astype(np.uint8),
        prediction.astype(np.uint8),
        classes=ONE,
        spacing_mm=SPACING_MM,
    )["object"]
    there, back = surface_distances(reference, prediction, spacing_mm=SPACING_MM)

    assert scores.dice == pytest.approx(overlap.GetDiceCoefficient())
    assert scores.iou == pytest.approx(overlap.GetJaccardCoefficient())
    assert max(there.max(), back.max()) == pytest.approx(hausdorff.GetHausdorffDistance(), abs=1e-4)
    assert scores.surfaces.hd95_mm <= max(there.max(), back.max())


def test_a_box_moved_along_one_axis_is_away_by_the_spacing_times_the_move():
    shape = (12, 12, 12)
    reference = box(shape, start=(2, 5, 5), stop=(3, 8, 8)).astype(np.uint8)
    prediction = np.roll(reference, 3, axis=0)

    scores = score_label_maps(reference, prediction, classes=ONE, spacing_mm=SPACING_MM)["object"]

    assert scores.surfaces.hd95_mm == pytest.approx(7.5)
    assert scores.surfaces.assd_mm == pytest.approx(7.5)
    assert scores.dice == 0


def test_equal_maps_score_one_and_are_zero_mm_apart():
    labels = blobs((10, 12, 14), seed=0)

    for scores in score_label_maps(labels, labels, classes=TWO, spacing_mm=SPACING_MM).values():
        assert (scores.dice, scores.iou, scores.surfaces.hd95_mm, scores.surfaces.assd_mm) == (
            1,
            1,
            0,
            0,
        )


def test_swapping_the_maps_swaps_false_positives_and_negatives_and_nothing_else():
    first, second = blobs((10, 12, 14), seed=1), blobs((10, 12, 14), seed=2)

    forward = score_label_maps(first, second, classes=ONE, spacing_mm=SPACING_MM)["object"]
    backward = score_label_maps(second, first, classes=ONE, spacing_mm=SPACING_MM)["object"]

    assert forward.num_false_positives == backward.num_false_negatives
    assert (forward.dice, forward.iou, forward.surfaces.hd95_mm) == (
        backward.dice,
        backward.iou,
        backward.surfaces.hd95_mm,
    )
    assert forward.surfaces.assd_mm == pytest.approx(backward.surfaces.assd_mm)


def test_a_class_in_neither_map_has_no_score():
    empty = np.zeros((4, 5, 6), np.uint8)

    scores = score_label_maps(empty, empty, classes=ONE, spacing_mm=(1, 1, 1))["object"]

    undefined = (scores.dice, scores.iou, scores.surfaces.hd95_mm, scores.surfaces.assd_mm)
    assert all(math.isnan(value) for value in undefined)
    assert not scores.is_one_sided
    assert scores.num_true_negatives == empty.size


@pytest.mark.parametrize("missed", [True, False])
def test_a_class_in_one_map_only_scores_zero_and_is_an_image_diagonal_away(missed):
    empty = np.zeros((3, 4, 12), np.uint8)
    full = box(empty.shape, start=(1, 1, 1), stop=(2, 3, 4)).astype(np.uint8)
    reference, prediction = (full, empty) if missed else (empty, full)

    scores = score_label_maps(reference, prediction, classes=ONE, spacing_mm=(1, 1, 1))["object"]

    assert (scores.dice, scores.iou) == (0, 0)
    assert scores.surfaces.hd95_mm == scores.surfaces.assd_mm == 13.0
    assert scores.is_one_sided


def test_no_two_voxels_are_farther_apart_than_the_diagonal():
    reference = box((5, 6, 7), start=(0, 0, 0), stop=(1, 1, 1)).astype(np.uint8)
    prediction = box((5, 6, 7), start=(4, 5, 6), stop=(5, 6, 7)).astype(np.uint8)

    scores = score_label_maps(reference, prediction, classes=ONE, spacing_mm=SPACING_MM)["object"]

    assert 0 < scores.surfaces.hd95_mm < diagonal_mm((5, 6, 7), spacing_mm=SPACING_MM)


def test_what_is_predicted_at_unannotated_voxels_changes_nothing():
    reference = blobs((8, 12, 12), seed=3)
    reference[2:6] = 9
    prediction = blobs((8, 12, 12), seed=4)
    other = prediction.copy()
    other[2:6] = 1 - np.minimum(other[2:6], 1)
    cut_reference, cut_prediction = (
        np.delete(a, range(2, 6), axis=0) for a in (reference, prediction)
    )

    scores, same, cut = (
        score_label_maps(*maps, classes=TWO, spacing_mm=(1, 1, 1), ignore=9)
        for maps in ((reference, prediction), (reference, other), (cut_reference, cut_prediction))
    )

    for name in TWO:
        assert scores[name].dice == same[name].dice == cut[name].dice
        assert scores[name].num_true_negatives == cut[name].num_true_negatives
        assert math.isnan(scores[name].surfaces.hd95_mm)
        assert math.isnan(scores[name].surfaces.assd_mm)
        assert (
            cut[name].surfaces.hd95_mm > 0
        )  # declared but absent ignore value: dense, so estimable


def test_a_fully_unannotated_reference_gives_no_score():
    reference = np.full((3, 4, 5), 2, np.uint8)

    scores = score_label_maps(
        reference, np.ones_like(reference), classes=ONE, spacing_mm=(1, 1, 1), ignore=2
    )["object"]

    assert math.isnan(scores.dice)
    assert scores.num_predicted == scores.num_true_negatives == 0


def test_a_region_is_scored_as_the_union_of_its_labels():
    reference, prediction = blobs((9, 9, 9), seed=5), blobs((9, 9, 9), seed=6)
    swapped = np.array([0, 2, 1], np.uint8)[prediction]
    regions = {"whole": (1, 2), "core": (2,)}

    whole, same = (
        score_label_maps(reference, other, classes=regions, spacing_mm=SPACING_MM)["whole"]
        for other in (prediction, swapped)
    )
    merged = score_label_maps(
        (reference > 0).astype(np.uint8),
        (prediction > 0).astype(np.uint8),
        classes=ONE,
        spacing_mm=SPACING_MM,
    )["object"]

    assert whole == same == merged


def test_a_plane_is_measured_in_the_plane_whatever_the_slice_spacing_says():
    reference = sphere((1, 40, 40), radius_mm=10).astype(np.uint8)
    prediction = sphere((1, 40, 40), radius_mm=14).astype(np.uint8)

    scores = score_label_maps(reference, prediction, classes=ONE, spacing_mm=(999, 1, 1))["object"]
    missed = score_label_maps(reference, 0 * reference, classes=ONE, spacing_mm=(999, 3, 4))[
        "object"
    ]

    assert scores.surfaces.assd_mm == pytest.approx(4, abs=0.3)
    assert missed.surfaces.hd95_mm == 200.0


def test_label_pairs_are_counted_whatever_their_type_and_size():
    reference = np.array([[[0, 65535], [300, 300]]], np.uint16)
    prediction = np.array([[[0, 1], [1, 7]]], np.uint8)

    pairs = count_label_pairs(reference, prediction)

    assert pairs == {(0, 0): 1, (65535, 1): 1, (300, 1): 1, (300, 7): 1}


def test_maps_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="same grid"):
        score_label_maps(
            np.zeros((2, 3, 4), np.uint8),
            np.zeros((2, 3, 5), np.uint8),
            classes=ONE,
            spacing_mm=(1, 1, 1),
        )


def test_background_is_not_scored():
    labels = np.zeros((2, 3, 4), np.uint8)

    with pytest.raises(ValueError, match="foreground"):
        score_label_maps(labels, labels, classes={"background": (0,)}, spacing_mm=(1, 1, 1))
