from dataclasses import replace

import numpy as np
import pytest
from phantoms import blobs, box, intensities, sphere

from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.fingerprint.fingerprint import IntensityProperties
from sparseunet.planning.plan import Configuration, NetworkPlan, Plan
from sparseunet.preprocessing.case import preprocess_case
from sparseunet.preprocessing.restore import restore_labels

LABELS = LabelSchema(classes={"background": 0, "a": 1, "b": 2}, regions={})
STATISTICS = IntensityProperties(
    mean=100.0,
    median=100.0,
    std=50.0,
    min=0.0,
    max=250.0,
    percentile_00_5=10.0,
    percentile_99_5=240.0,
)
NETWORK = NetworkPlan(
    architecture="plain_unet",
    features_per_stage=(8,),
    kernel_sizes=((3, 3, 3),),
    strides=((1, 1, 1),),
    encoder_depths=(2,),
    decoder_depths=(),
)


def configuration(spacing_mm=(1.0, 1.0, 1.0), *, scheme="zscore", masked=False, channels=1):
    return Configuration(
        name="2d" if len(spacing_mm) == 2 else "3d_fullres",
        data_identifier="data",
        batch_size=2,
        patch_size=(8,) * len(spacing_mm),
        median_shape=(8.0,) * len(spacing_mm),
        spacing_mm=spacing_mm,
        normalization=(scheme,) * channels,
        use_mask_for_norm=(masked,) * channels,
        network=NETWORK,
        batch_dice=False,
    )


def plan_for(chosen, *, axes=(0, 1, 2)):
    return Plan(
        dataset_name="Dataset001_Phantom",
        plans_name="nnUNetPlans",
        planner="default",
        original_median_spacing_mm=(1.0, 1.0, 1.0),
        original_median_shape=(8, 8, 8),
        image_reader_writer="SimpleITKIO",
        transpose_forward=axes,
        transpose_backward=tuple(np.argsort(axes).tolist()),
        intensities=(STATISTICS,) * len(chosen.normalization),
        configurations={chosen.name: chosen},
    )


def image_of(voxels, spacing_mm=(1.0, 1.0, 1.0)):
    voxels_CZYX = np.asarray(voxels, np.float32)
    geometry = Geometry(shape=voxels_CZYX.shape[1:], spacing_mm=spacing_mm)
    return Image(voxels_CZYX=voxels_CZYX, geometry=geometry)


def preprocess(image, annotation=None, chosen=None, *, axes=(0, 1, 2)):
    chosen = chosen or configuration(channels=len(image.voxels_CZYX))
    return preprocess_case(
        "case", image, annotation, plan=plan_for(chosen, axes=axes), configuration=chosen
    )


def one_slice_of(labels_ZYX, index):
    source_ZYX = np.zeros(labels_ZYX.shape, np.uint8)
    source_ZYX[index] = Source.MANUAL
    return Annotation(labels_ZYX=labels_ZYX * source_ZYX, source_ZYX=source_ZYX)


def one_hot(labels_ZYX):
    return np.stack([labels_ZYX == value for value in range(3)]).astype(np.float32)


@pytest.mark.parametrize("scheme", ["zscore", "ct", "none", "rescale_to_0_1", "rgb_to_0_1"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_image_is_bit_identical_with_dense_sparse_or_no_labels(scheme, masked):
    labels_ZYX = blobs((14, 20, 22), seed=0)
    voxels = np.clip(intensities(labels_ZYX, seed=0) + 20, 1, 255)[None]
    voxels[:, ~sphere((14, 20, 22), radius_mm=6)] = 0
    image = image_of(voxels, (2.0, 1.0, 1.0))
    chosen = configuration((1.4, 1.1, 0.8), scheme=scheme, masked=masked)
    results = [
        preprocess(image, annotation, chosen)
        for annotation in (
            None,
            Annotation.from_label_map(labels_ZYX, ignore=None),
            one_slice_of(labels_ZYX, 6),
        )
    ]
    for result in results:
        assert result.image_CZYX.tobytes() == results[0].image_CZYX.tobytes()
        assert np.array_equal(result.inside_ZYX, results[0].inside_ZYX)
        assert result.restoration == results[0].restoration


def test_unannotated_background_stays_outside_the_mask_of_normalisation():
    """A brain without skull, one slice annotated: nnU-Net's statistics move, ours must not."""
    inside_ZYX = sphere((24, 24, 24), radius_mm=9)
    voxels_ZYX = np.random.default_rng(0).normal(500, 60, inside_ZYX.shape) * inside_ZYX
    labels_ZYX = np.where(sphere((24, 24, 24), radius_mm=4), 1, 0).astype(np.uint8)
    labels_ZYX[[*range(12), *range(13, 24)]] = 3
    annotation = Annotation.from_label_map(labels_ZYX, ignore=3)
    result = preprocess(image_of(voxels_ZYX[None]), annotation, configuration(masked=True))
    (image_ZYX,) = result.image_CZYX
    assert np.array_equal(result.inside_ZYX, inside_ZYX[3:21, 3:21, 3:21])
    assert image_ZYX[result.inside_ZYX].mean() == pytest.approx(0, abs=1e-4)
    assert image_ZYX[result.inside_ZYX].std() == pytest.approx(1, abs=1e-4)
    assert np.all(image_ZYX[~result.inside_ZYX] == 0)
    assert result.annotation.annotated_slices(0).tolist() == [12 - 3]


def test_the_crop_follows_the_image_and_never_the_labels():
    voxels_CZYX = box((10, 12, 14), start=(2, 3, 4), stop=(8, 9, 10))[None] * 50.0
    everywhere = Annotation.from_label_map(np.ones((10, 12, 14), np.uint8), ignore=None)
    result = preprocess(image_of(voxels_CZYX), everywhere, configuration(scheme="none"))
    assert result.restoration.crop_start == (2, 3, 4)
    assert result.image_CZYX.shape == (1, 6, 6, 6)
    assert result.annotation.labels_ZYX.shape == (6, 6, 6)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (4.0, 1.0, 1.0), (1.0, 2.0, 0.5)])
def test_restoring_gives_the_source_grid_and_the_same_labels_if_nothing_was_resampled(
    axes, spacing_mm
):
    labels_ZYX = blobs((13, 11, 15), seed=1)
    labels_ZYX[:2] = 0
    voxels = intensities(labels_ZYX, seed=1) + 500
    voxels[:2] = 0
    image = image_of(voxels[None], spacing_mm)
    annotation = Annotation.from_label_map(labels_ZYX, ignore=None)
    transposed_mm = tuple(spacing_mm[axis] for axis in axes)
    same = preprocess(image, annotation, configuration(transposed_mm), axes=axes)
    restored_ZYX = restore_labels(
        one_hot(same.annotation.labels_ZYX), same.restoration, labels=LABELS
    )
    assert np.array_equal(restored_ZYX, labels_ZYX)
    finer = preprocess(image, annotation, configuration((0.7, 0.9, 0.8)), axes=axes)
    restored_ZYX = restore_labels(
        one_hot(finer.annotation.labels_ZYX), finer.restoration, labels=LABELS
    )
    assert restored_ZYX.shape == labels_ZYX.shape
    assert (restored_ZYX == labels_ZYX).mean() > 0.9


def test_two_dimensional_configurations_keep_every_slice():
    labels_ZYX = blobs((7, 20, 24), seed=2)
    image = image_of(intensities(labels_ZYX, seed=2)[None] + 300, (6.0, 1.0, 1.0))
    result = preprocess(image, one_slice_of(labels_ZYX, 3), configuration((2.0, 0.5)))
    assert result.image_CZYX.shape == (1, 7, 10, 48)
    assert result.annotation.annotated_slices(0).tolist() == [3]
    assert result.annotation.annotated_ZYX[3].all()
    assert result.restoration.target_spacing_mm == (6.0, 2.0, 0.5)


def test_a_one_slice_volume_goes_through_both_kinds_of_configuration():
    labels_ZYX = blobs((1, 20, 24), seed=3)
    image = image_of(intensities(labels_ZYX, seed=3)[None] + 300, (999.0, 1.0, 1.0))
    annotation = Annotation.from_label_map(labels_ZYX, ignore=None)
    for spacing_mm in [(1.3, 0.8), (999.0, 1.3, 0.8)]:
        result = preprocess(image, annotation, configuration(spacing_mm))
        assert result.image_CZYX.shape == (1, 1, 15, 30)
        assert result.annotation.is_dense
        assert np.isfinite(result.image_CZYX).all()


@pytest.mark.parametrize("value", [0.0, 123.4])
def test_a_constant_image_gives_no_nan(value):
    image = image_of(np.full((1, 6, 7, 8), value), (2.0, 1.0, 1.0))
    for scheme in ["zscore", "ct", "none", "rescale_to_0_1", "rgb_to_0_1"]:
        for masked in [False, True]:
            chosen = configuration((1.0, 1.5, 0.9), scheme=scheme, masked=masked)
            result = preprocess(image, None, chosen)
            assert np.isfinite(result.image_CZYX).all()
            assert result.image_CZYX.shape == (1, 12, 5, 9)


def test_unannotated_voxels_stay_unannotated():
    labels_ZYX = blobs((12, 16, 16), seed=4)
    nothing = Annotation(labels_ZYX=labels_ZYX * 0, source_ZYX=np.zeros((12, 16, 16), np.uint8))
    image = image_of(intensities(labels_ZYX, seed=4)[None] + 300)
    result = preprocess(image, nothing, configuration((0.6, 1.7, 1.0)))
    assert not result.annotation.annotated_ZYX.any()


def test_the_spacing_of_the_network_follows_from_the_shapes_if_it_is_not_recorded():
    labels_ZYX = blobs((12, 16, 16), seed=5)
    image = image_of(intensities(labels_ZYX, seed=5)[None] + 300, (3.0, 1.0, 1.0))
    restoration = preprocess(image, None, configuration((1.5, 2.0, 0.5))).restoration
    derived = replace(restoration, network_spacing_mm=None)
    assert derived.target_spacing_mm == restoration.target_spacing_mm == (1.5, 2.0, 0.5)


def test_labels_on_another_grid_are_refused():
    annotation = Annotation.from_label_map(np.zeros((3, 4, 5), np.uint8), ignore=None)
    with pytest.raises(ValueError, match=r"labels have shape \(3, 4, 5\)"):
        preprocess(image_of(np.ones((1, 3, 4, 6))), annotation)


def test_a_scan_whose_header_makes_it_immense_is_refused_before_memory_is_taken():
    image = image_of(np.ones((1, 8, 8, 8)), spacing_mm=(1000.0, 1000.0, 1000.0))
    with pytest.raises(RequestError, match=r"case has 8×8×8 voxels of 1000×1000×1000 mm"):
        preprocess(image)
