import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import blobs
from skimage.transform import resize

from sparseunet.data.geometry import Geometry
from sparseunet.data.labels import LabelSchema
from sparseunet.preprocessing.case import Restoration
from sparseunet.preprocessing.resample import logits_to_labels
from sparseunet.preprocessing.restore import restore_labels

PLAIN = LabelSchema(classes={"background": 0, "a": 1, "b": 2}, regions={})
REGIONS = LabelSchema(
    classes={"background": 0},
    regions={"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)},
    regions_class_order=(1, 2, 3),
)


def logits_of(shape, seed, *, channels=3, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(channels, *shape)).astype(dtype)


def restoration(*, shape=(9, 10, 11), axes=(0, 1, 2), start=(0, 0, 0), crop=None, network=None):
    transposed = tuple(shape[axis] for axis in axes)
    return Restoration(
        geometry=Geometry(shape=shape, spacing_mm=(1.0, 1.0, 1.0)),
        transpose_forward=axes,
        crop_start=start,
        crop_shape=crop or transposed,
        network_shape=network or crop or transposed,
    )


@settings(max_examples=40)
@given(
    st.tuples(*[st.integers(1, 12)] * 3), st.tuples(*[st.integers(1, 16)] * 3), st.integers(0, 99)
)
def test_logits_are_resampled_linearly_and_the_largest_wins(shape, new_shape, seed):
    logits_KZYX = logits_of(shape, seed)
    scores_KZYX = np.stack(
        [resize(each, new_shape, 1, mode="edge", anti_aliasing=False) for each in logits_KZYX]
    )
    labels_ZYX = logits_to_labels(
        logits_KZYX, new_shape, spacing_mm=(1, 1, 1), new_spacing_mm=(1, 1, 1), labels=PLAIN
    )
    second_ZYX, first_ZYX = np.sort(scores_KZYX, axis=0)[-2:]
    decided_ZYX = first_ZYX - second_ZYX > 1e-4
    assert np.array_equal(labels_ZYX[decided_ZYX], scores_KZYX.argmax(axis=0)[decided_ZYX])


def test_the_result_is_the_same_over_several_slabs():
    logits_KZYX = logits_of((10, 20, 30), 0)
    new_shape = (41, 260, 270)
    labels_ZYX = logits_to_labels(
        logits_KZYX, new_shape, spacing_mm=(1, 1, 1), new_spacing_mm=(1, 1, 1), labels=PLAIN
    )
    scores_KZYX = np.stack(
        [resize(each, new_shape, 1, mode="edge", anti_aliasing=False) for each in logits_KZYX]
    )
    assert (labels_ZYX == scores_KZYX.argmax(axis=0)).mean() > 0.9999


def test_regions_above_one_half_are_painted_in_order():
    values = np.array([[-1, 2, 2, 2, -1], [-1, -1, 3, 3, 4], [5, -1, -1, 1, -1]], np.float32)
    logits_KZYX = values.reshape(3, 1, 1, 5)
    arguments = {"spacing_mm": (1, 1, 1), "new_spacing_mm": (1, 1, 1), "labels": REGIONS}
    labels_ZYX = logits_to_labels(logits_KZYX, (1, 1, 5), **arguments)
    assert labels_ZYX.ravel().tolist() == [3, 1, 2, 3, 2]
    probabilities_KZYX = 1 / (1 + np.exp(-logits_KZYX))
    again_ZYX = logits_to_labels(probabilities_KZYX, (1, 1, 5), threshold=0.5, **arguments)
    assert np.array_equal(again_ZYX, labels_ZYX)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_without_resampling_the_labels_are_the_arg_max_and_the_logits_stay_as_they_are(dtype):
    logits_KZYX = logits_of((9, 10, 11), 1, dtype=dtype)
    before_KZYX = logits_KZYX.copy()
    labels_ZYX = restore_labels(logits_KZYX, restoration(), labels=PLAIN)
    assert labels_ZYX.dtype == np.uint8
    assert np.array_equal(labels_ZYX, logits_KZYX.argmax(axis=0))
    assert np.array_equal(logits_KZYX, before_KZYX)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_crop_and_transpose_are_undone(axes):
    shape, crop = (9, 10, 11), (5, 4, 6)
    where = restoration(shape=shape, axes=axes, start=(1, 2, 3), crop=crop)
    logits_KZYX = logits_of(crop, 2)
    labels_ZYX = restore_labels(logits_KZYX, where, labels=PLAIN)
    assert labels_ZYX.shape == shape
    transposed = labels_ZYX.transpose(axes)
    assert np.array_equal(transposed[1:6, 2:6, 3:9], logits_KZYX.argmax(axis=0))
    assert np.count_nonzero(labels_ZYX) == np.count_nonzero(logits_KZYX.argmax(axis=0))


def test_many_classes_need_uint16():
    labels = LabelSchema(classes={str(value): value for value in range(300)}, regions={})
    logits_KZYX = np.zeros((300, 1, 1, 2), np.float16)
    logits_KZYX[299, 0, 0, 1] = 1
    where = restoration(shape=(1, 1, 2))
    labels_ZYX = restore_labels(logits_KZYX, where, labels=labels)
    assert labels_ZYX.dtype == np.uint16
    assert labels_ZYX.ravel().tolist() == [0, 299]


def test_a_label_map_survives_a_finer_network_grid():
    labels_ZYX = blobs((12, 14, 16), seed=0)
    one_hot_KZYX = np.stack([labels_ZYX == value for value in range(3)]).astype(np.float32)
    fine_KZYX = np.repeat(np.repeat(one_hot_KZYX, 3, axis=2), 3, axis=3)
    where = restoration(shape=(12, 14, 16), network=(12, 42, 48))
    assert np.array_equal(restore_labels(fine_KZYX, where, labels=PLAIN), labels_ZYX)


def test_another_grid_or_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"\(9, 10, 12\); expected the network's grid \(9, 10, 11"):
        restore_labels(logits_of((9, 10, 12), 0), restoration(), labels=PLAIN)
    with pytest.raises(ValueError, match="Got 2 channels; the labels need 3"):
        restore_labels(logits_of((9, 10, 11), 0, channels=2), restoration(), labels=PLAIN)
