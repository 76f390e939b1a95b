import numpy as np
from batchgenerators.augmentations.utils import resize_segmentation
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import blobs
from skimage.transform import resize

from sparseunet.data.annotation import Annotation, Source
from sparseunet.preprocessing.interpolation import axis_map, separate_axis
from sparseunet.preprocessing.resample_annotation import resample_annotation

SHAPES = st.tuples(*[st.integers(1, 14)] * 3)
NEW_SHAPES = st.tuples(*[st.integers(1, 24)] * 3)
SPACINGS = st.tuples(*[st.sampled_from([0.5, 1.0, 2.0, 7.0])] * 3)
SEEDS = st.integers(0, 9999)


def some_labels(shape, seed, *, num_classes=4):
    return np.random.default_rng(seed).integers(0, num_classes + 1, shape).astype(np.uint8)


def annotated_where(labels_ZYX, where_ZYX, source=Source.MANUAL):
    return Annotation(
        labels_ZYX=np.where(where_ZYX, labels_ZYX, 0).astype(labels_ZYX.dtype),
        source_ZYX=np.where(where_ZYX, source, Source.NONE).astype(np.uint8),
    )


def some_slices(shape, axis, seed):
    """Return the mask of a few whole slices across `axis`."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(shape[axis], rng.integers(1, shape[axis] + 1), replace=False)
    where_ZYX = np.zeros(shape, bool)
    np.moveaxis(where_ZYX, axis, 0)[chosen] = True
    return where_ZYX, np.sort(chosen)


def resampled(annotation, new_shape, spacing_mm=(1, 1, 1), new_spacing_mm=(1, 1, 1)):
    return resample_annotation(
        annotation, new_shape, spacing_mm=spacing_mm, new_spacing_mm=new_spacing_mm
    )


def lead_of_the_winner(labels, new_shape):
    """Return by how much the largest linearly resized indicator exceeds the second, per voxel."""
    scores = [
        resize((labels == value).astype(float), new_shape, 1, mode="edge", anti_aliasing=False)
        for value in range(5)
    ]
    second, first = np.sort(np.stack(scores), axis=0)[-2:]
    return first - second


def nearest_output(source, size, new_size):
    return min(new_size - 1, int((source + 0.5) * new_size / size))


@settings(max_examples=150)
@given(SHAPES, NEW_SHAPES, SPACINGS, SPACINGS, st.integers(0, 2), SEEDS)
def test_every_annotated_slice_keeps_an_output_slice_wherever_spacings_lead(
    shape, new_shape, spacing_mm, new_spacing_mm, axis, seed
):
    where_ZYX, chosen = some_slices(shape, axis, seed)
    annotation = annotated_where(some_labels(shape, seed), where_ZYX)
    after = resampled(annotation, new_shape, spacing_mm, new_spacing_mm)
    assert after.labels_ZYX.shape == new_shape
    kept = set(after.annotated_slices(axis).tolist())
    for source in chosen.tolist():
        assert nearest_output(source, shape[axis], new_shape[axis]) in kept


@settings(max_examples=150)
@given(SHAPES, NEW_SHAPES, SPACINGS, st.integers(0, 2), SEEDS)
def test_whole_slices_stay_whole(shape, new_shape, spacing_mm, axis, seed):
    where_ZYX, _ = some_slices(shape, axis, seed)
    after = resampled(annotated_where(some_labels(shape, seed), where_ZYX), new_shape, spacing_mm)
    others = tuple(other for other in range(3) if other != axis)
    annotated_ZYX = after.annotated_ZYX
    assert np.array_equal(annotated_ZYX.any(axis=others), annotated_ZYX.all(axis=others))


@settings(max_examples=150)
@given(SHAPES, NEW_SHAPES, SPACINGS, SEEDS, st.floats(0.01, 0.5))
def test_every_scribbled_voxel_keeps_an_output_voxel_on_every_axis(
    shape, new_shape, spacing_mm, seed, share
):
    where_ZYX = np.random.default_rng(seed).random(shape) < share
    after = resampled(annotated_where(some_labels(shape, seed), where_ZYX), new_shape, spacing_mm)
    for voxel in np.argwhere(where_ZYX):
        output = tuple(
            nearest_output(position, size, new_size)
            for position, size, new_size in zip(voxel.tolist(), shape, new_shape, strict=True)
        )
        assert after.annotated_ZYX[output]


@settings(max_examples=150)
@given(SHAPES, NEW_SHAPES, SPACINGS, SPACINGS, st.integers(0, 2), SEEDS, st.booleans())
def test_no_voxel_gets_a_class_absent_from_its_source_slice(
    shape, new_shape, spacing_mm, new_spacing_mm, axis, seed, one_class_per_slice
):
    where_ZYX, chosen = some_slices(shape, axis, seed)
    labels_ZYX = some_labels(shape, seed, num_classes=20)
    if one_class_per_slice:
        np.moveaxis(labels_ZYX, axis, 0)[:] = np.arange(1, shape[axis] + 1)[:, None, None]
    after = resampled(annotated_where(labels_ZYX, where_ZYX), new_shape, spacing_mm, new_spacing_mm)
    if where_ZYX.all():
        return  # densely annotated volumes are interpolated across slices as nnU-Net does
    step = axis_map(shape[axis], new_shape[axis], order=1)
    sources = np.moveaxis(labels_ZYX, axis, 0)
    outputs = np.moveaxis(after.labels_ZYX, axis, 0)
    for output in after.annotated_slices(axis).tolist():
        near = [int(step.nearest[output])]
        if near[0] not in chosen:
            near = [
                source
                for source in chosen.tolist()
                if nearest_output(source, shape[axis], new_shape[axis]) == output
            ]
        assert set(np.unique(outputs[output])) <= set(np.unique(sources[near]))


@settings(max_examples=100)
@given(SHAPES, SPACINGS, st.integers(0, 2), SEEDS, st.tuples(*[st.floats(1, 3)] * 3))
def test_when_upsampling_validity_stops_half_a_source_slice_away(
    shape, spacing_mm, axis, seed, factors
):
    new_shape = tuple(round(size * factor) for size, factor in zip(shape, factors, strict=True))
    where_ZYX, chosen = some_slices(shape, axis, seed)
    after = resampled(annotated_where(some_labels(shape, seed), where_ZYX), new_shape, spacing_mm)
    position = (np.arange(new_shape[axis]) + 0.5) * shape[axis] / new_shape[axis] - 0.5
    distance = np.abs(position[:, None] - chosen[None]).min(axis=1)
    annotated = np.zeros(new_shape[axis], bool)
    annotated[after.annotated_slices(axis)] = True
    assert np.all(annotated[distance < 0.5 - 1e-9])
    assert not np.any(annotated[distance > 0.5 + 1e-9])


@settings(max_examples=100)
@given(SHAPES, NEW_SHAPES, SPACINGS, SEEDS)
def test_what_is_not_annotated_does_not_matter(shape, new_shape, spacing_mm, seed):
    rng = np.random.default_rng(seed)
    where_ZYX = rng.random(shape) < 0.3
    labels_ZYX = some_labels(shape, seed)
    other_ZYX = np.where(where_ZYX, labels_ZYX, some_labels(shape, seed + 1)).astype(np.uint8)
    source_ZYX = where_ZYX.astype(np.uint8)
    first = resampled(Annotation(labels_ZYX=labels_ZYX, source_ZYX=source_ZYX), new_shape)
    second = resampled(Annotation(labels_ZYX=other_ZYX, source_ZYX=source_ZYX), new_shape)
    if new_shape != shape:
        assert np.array_equal(first.labels_ZYX, second.labels_ZYX)
        assert np.all(first.labels_ZYX[~first.annotated_ZYX] == 0)
    assert np.array_equal(first.source_ZYX, second.source_ZYX)


@settings(max_examples=60)
@given(SHAPES, NEW_SHAPES, SEEDS)
def test_dense_labels_are_resampled_as_nnunet_does(shape, new_shape, seed):
    labels_ZYX = blobs(shape, seed=seed, num_classes=3, share=0.6, width=1.0)
    after = resampled(Annotation.from_label_map(labels_ZYX, ignore=None), new_shape)
    assert after.is_dense
    decided_ZYX = lead_of_the_winner(labels_ZYX, new_shape) > 1e-4
    expected_ZYX = resize_segmentation(labels_ZYX, new_shape, order=1)
    assert np.array_equal(after.labels_ZYX[decided_ZYX], expected_ZYX[decided_ZYX])


@settings(max_examples=60)
@given(SHAPES, NEW_SHAPES, st.integers(0, 2), SEEDS)
def test_dense_labels_in_far_slices_are_resampled_in_plane_as_nnunet_does(
    shape, new_shape, axis, seed
):
    labels_ZYX = blobs(shape, seed=seed, num_classes=2, share=0.6, width=1.0)
    spacing_mm = tuple(8.0 if other == axis else 1.0 for other in range(3))
    after = resampled(Annotation.from_label_map(labels_ZYX, ignore=None), new_shape, spacing_mm)
    assert separate_axis(spacing_mm, (1, 1, 1)) == axis
    in_plane = tuple(size for other, size in enumerate(new_shape) if other != axis)
    which = axis_map(shape[axis], new_shape[axis], order=0).nearest
    planes = np.moveaxis(labels_ZYX, axis, 0)[which]
    expected = np.stack([resize_segmentation(plane, in_plane, order=1) for plane in planes])
    decided = np.stack([lead_of_the_winner(plane, in_plane) for plane in planes]) > 1e-4
    assert np.array_equal(np.moveaxis(after.labels_ZYX, axis, 0)[decided], expected[decided])


def test_a_sparse_slice_is_labelled_as_if_all_slices_were_like_it():
    plane_YX = blobs((20, 22), seed=3, num_classes=3, share=0.6)
    dense_ZYX = np.repeat(plane_YX[None], 9, axis=0)
    where_ZYX = np.zeros(dense_ZYX.shape, bool)
    where_ZYX[[2, 7]] = True
    for new_shape in [(14, 31, 17), (6, 31, 17), (9, 11, 40)]:
        dense = resampled(Annotation.from_label_map(dense_ZYX, ignore=None), new_shape)
        sparse = resampled(annotated_where(dense_ZYX, where_ZYX), new_shape)
        near_ZYX = np.zeros(new_shape, bool)
        near_ZYX[where_ZYX.any(axis=(1, 2))[axis_map(9, new_shape[0], order=0).nearest]] = True
        assert sparse.annotated_ZYX[near_ZYX].all()
        agree_ZYX = sparse.labels_ZYX == dense.labels_ZYX
        assert agree_ZYX[near_ZYX].mean() > 0.995


@settings(max_examples=60)
@given(SHAPES, NEW_SHAPES, SPACINGS, SEEDS)
def test_manual_voxels_are_untouched_by_what_fills_the_rest(shape, new_shape, spacing_mm, seed):
    rng = np.random.default_rng(seed)
    manual = annotated_where(some_labels(shape, seed), rng.random(shape) < 0.2)
    filled = manual.fill(
        some_labels(shape, seed + 1),
        rng.random(shape) < 0.7,
        source=Source.PSEUDO,
        confidence_ZYX=np.full(shape, 0.25, np.float32),
    )
    alone = resampled(manual, new_shape, spacing_mm)
    both = resampled(filled, new_shape, spacing_mm)
    manual_ZYX = both.source_ZYX == Source.MANUAL
    assert np.array_equal(manual_ZYX, alone.annotated_ZYX)
    assert np.array_equal(both.labels_ZYX[manual_ZYX], alone.labels_ZYX[manual_ZYX])
    assert np.all(both.confidence_ZYX[manual_ZYX] == 1)
    assert np.all(both.confidence_ZYX[both.source_ZYX == Source.PSEUDO] == 0.25)


def test_an_unchanged_shape_is_no_work():
    annotation = annotated_where(some_labels((3, 4, 5), 0), np.ones((3, 4, 5), bool))
    assert resampled(annotation, (3, 4, 5), (1, 1, 1), (1.01, 1, 1)) is annotation


def test_nothing_annotated_stays_nothing():
    nothing = annotated_where(some_labels((3, 4, 5), 0), np.zeros((3, 4, 5), bool))
    after = resampled(nothing, (6, 2, 5))
    assert not after.annotated_ZYX.any()
    assert not after.labels_ZYX.any()


def test_slices_along_every_axis_at_once_all_survive_strong_downsampling():
    where_ZYX = np.zeros((40, 41, 42), bool)
    where_ZYX[5], where_ZYX[:, 17], where_ZYX[:, :, 38] = True, True, True
    after = resampled(annotated_where(some_labels(where_ZYX.shape, 0), where_ZYX), (7, 5, 6))
    assert after.annotated_ZYX[5 * 7 // 40].all()
    assert after.annotated_ZYX[:, 17 * 5 // 41].all()
    assert after.annotated_ZYX[:, :, 38 * 6 // 42].all()


def test_a_tie_goes_to_the_class_of_the_nearest_voxel():
    for row, winner in [((0, 1), 1), ((1, 0), 0), ((2, 1), 1)]:
        labels_ZYX = np.array(row, np.uint8).reshape(1, 1, 2)
        after = resampled(Annotation.from_label_map(labels_ZYX, ignore=None), (1, 1, 1))
        assert after.labels_ZYX.item() == winner
