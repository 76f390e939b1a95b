import math

import numpy as np
import pytest
import SimpleITK
from phantoms import blobs, box, sphere
from scipy import ndimage

from sparseunet.evaluation.metrics import score_label_maps
from sparseunet.evaluation.surfaces import find_surface

ONE = {"object": (1,)}
SPACING_MM = (2.5, 1.0, 0.7)


def _score(reference, prediction, *, spacing_mm=(1.0, 1.0, 1.0), **options):
    return score_label_maps(
        reference.astype(np.uint8),
        prediction.astype(np.uint8),
        classes=ONE,
        spacing_mm=spacing_mm,
        **options,
    )["object"]


@pytest.mark.parametrize("shape", [(7, 9, 8), (12, 14), (1, 6, 7)])
def test_the_surface_is_what_erosion_takes_away(shape):
    mask = blobs(shape, seed=1, share=0.5) > 0

    assert (find_surface(mask) == mask & ~ndimage.binary_erosion(mask)).all()


def test_one_far_voxel_moves_the_largest_distance_and_hardly_the_others():
    reference = sphere((40, 40, 40), radius_mm=10)
    prediction = reference.copy()
    prediction[19, 19, 38] = True

    surfaces = _score(reference, prediction).surfaces

    assert surfaces.hd_mm > 8
    assert surfaces.hd95_mm == 0
    assert surfaces.assd_mm < 0.02


def test_both_directions_weigh_the_same_in_the_average_hausdorff_distance():
    reference = box((5, 5, 40), start=(2, 2, 0), stop=(3, 3, 2))
    prediction = box((5, 5, 40), start=(2, 2, 0), stop=(3, 3, 10))

    surfaces = _score(reference, prediction).surfaces

    back = [max(0, x - 1) for x in range(10)]
    assert surfaces.average_hausdorff_mm == pytest.approx((0 + np.mean(back)) / 2)
    assert surfaces.assd_mm == pytest.approx(sum(back) / 12)


def test_a_shell_is_within_the_tolerance_from_its_own_distance_on():
    reference = box((20, 20, 20), start=(5, 5, 5), stop=(6, 15, 15))
    prediction = np.roll(reference, 3, axis=0)
    step = {"spacing_mm": (0.7, 1.0, 1.0)}

    shares = [
        _score(reference, prediction, tolerance_mm=tolerance, **step).surfaces.surface_dice
        for tolerance in (0.0, 2.0999, 2.1, 5.0)
    ]

    assert shares == [0, 0, 1, 1]  # 8 · 0.7 less 5 · 0.7 is not 2.1 in floating point


def test_the_tolerance_counts_surface_voxels_of_both_maps():
    reference = box((3, 3, 30), start=(1, 1, 0), stop=(2, 2, 10))
    prediction = box((3, 3, 30), start=(1, 1, 0), stop=(2, 2, 20))

    surfaces = _score(reference, prediction, tolerance_mm=2.0).surfaces

    assert surfaces.surface_dice == pytest.approx((10 + 12) / 30)


def test_volume_errors_are_signed_millilitres_and_per_cent():
    reference = box((20, 20, 20), start=(0, 0, 0), stop=(10, 10, 10))
    prediction = box((20, 20, 20), start=(0, 0, 0), stop=(5, 10, 10))

    less = _score(reference, prediction, spacing_mm=(2.0, 1.0, 0.5))
    more = _score(prediction, reference, spacing_mm=(2.0, 1.0, 0.5))

    assert less.volume_difference_ml == pytest.approx(-0.5)
    assert less.volume_difference_percent == pytest.approx(-50)
    assert more.volume_difference_ml == pytest.approx(0.5)
    assert more.volume_difference_percent == pytest.approx(100)


@pytest.mark.parametrize(
    ("reference", "prediction", "dice", "nsd", "ml", "percent"),
    [
        (0, 0, math.nan, math.nan, math.nan, math.nan),
        (1, 0, 0.0, 0.0, -0.008, -100.0),
        (0, 1, 0.0, 0.0, 0.008, math.nan),
    ],
)
def test_what_an_empty_map_scores(reference, prediction, dice, nsd, ml, percent):
    full = box((4, 4, 4), start=(1, 1, 1), stop=(3, 3, 3))

    scores = _score(reference * full, prediction * full)

    found = (
        scores.dice,
        scores.surfaces.surface_dice,
        scores.volume_difference_ml,
        scores.volume_difference_percent,
    )
    assert found == pytest.approx((dice, nsd, ml, percent), nan_ok=True)
    distances = {scores.surfaces.hd_mm, scores.surfaces.average_hausdorff_mm}
    assert math.isnan(dice) or distances == {math.sqrt(48)}


def test_volume_and_distances_of_a_sparse_reference_are_not_estimable():
    reference = blobs((8, 9, 10), seed=1)
    prediction = np.roll(reference, 1, axis=1)
    reference[2:] = 9

    scores = _score(reference, prediction, ignore=9)

    assert 0 < scores.dice < 1
    assert math.isnan(scores.volume_difference_ml)
    assert math.isnan(scores.volume_difference_percent)
    assert all(math.isnan(getattr(scores.surfaces, name)) for name in ("hd_mm", "surface_dice"))


def test_a_2d_image_has_an_area_and_no_millilitres():
    reference = sphere((1, 30, 30), radius_mm=8)

    scores = _score(reference, reference * 0, spacing_mm=(999.0, 1.0, 1.0))

    assert math.isnan(scores.volume_difference_ml)
    assert scores.volume_difference_percent == -100


@pytest.mark.parametrize("seed", range(6))
def test_largest_and_mean_distances_agree_with_simpleitk(seed):
    random = np.random.default_rng(seed)
    shape = (14, 22, 20)
    reference = blobs(shape, seed=seed) == 1  # blobs touch the border of the image
    prediction = np.roll(reference, random.integers(-2, 3, 3), axis=(0, 1, 2))
    padded = [np.pad(mask, 1) for mask in (reference, prediction)]  # ITK ends at the image's edge
    images = [SimpleITK.GetImageFromArray(find_surface(mask).astype(np.uint8)) for mask in padded]
    for image in images:
        image.SetSpacing(SPACING_MM[::-1])
    hausdorff = SimpleITK.HausdorffDistanceImageFilter()
    hausdorff.Execute(*images)

    surfaces = _score(reference, prediction, spacing_mm=SPACING_MM).surfaces

    assert surfaces.hd_mm == pytest.approx(hausdorff.GetHausdorffDistance(), abs=1e-4)
    average = hausdorff.GetAverageHausdorffDistance()
    assert surfaces.average_hausdorff_mm == pytest.approx(average, abs=1e-4)
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in padded))
    percent = _score(reference, prediction).volume_difference_percent
    volumes = reference.sum(), prediction.sum()
    assert percent == pytest.approx(100 * (int(volumes[1]) - int(volumes[0])) / volumes[0])
    assert overlap.GetDiceCoefficient() == pytest.approx(_score(reference, prediction).dice)


# monai 1.6.1: compute_hausdorff_distance (percentile None and 95), _average_surface_distance with
# symmetric=True, _surface_dice with class_thresholds=[1.0], as tests/performance/metrics_speed.py
# calls them; the third prediction leaves the image.
FROM_MONAI = {
    (0, 0, 0): (2.5, 2.5, 0.900069, 0.684783),
    (1, 3, -4): (5.87367, 5.27554, 2.30806, 0.274457),
    (-9, -12, 13): (28.575514, 27.524546, 21.099726, 0.0),
}


@pytest.mark.parametrize("shift", FROM_MONAI)
def test_distances_and_surface_dice_are_those_of_monai(shift):
    center, shape = np.array([9.5, 14.5, 13.5]), (20, 30, 28)
    reference = sphere(shape, center=center, radius_mm=7, spacing_mm=SPACING_MM)
    prediction = sphere(shape, center=center + shift, radius_mm=6, spacing_mm=SPACING_MM)

    surfaces = _score(reference, prediction, spacing_mm=SPACING_MM, tolerance_mm=1.0).surfaces

    found = (surfaces.hd_mm, surfaces.hd95_mm, surfaces.assd_mm, surfaces.surface_dice)
    assert found == pytest.approx(FROM_MONAI[shift], abs=1e-5)
