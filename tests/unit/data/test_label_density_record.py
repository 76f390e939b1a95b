"""Counting what is annotated in a case, and the file the counts go to."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseunet.data.annotation import Annotation
from sparseunet.data.density import (
    LabelDensity,
    measure_label_density,
    read_label_densities,
    write_label_densities,
)
from sparseunet.data.geometry import Geometry
from sparseunet.errors import RequestError

IGNORE = 9


def _measure(labels_ZYX, **geometry) -> LabelDensity:
    annotation = Annotation.from_label_map(labels_ZYX, ignore=IGNORE)
    grid = Geometry(shape=labels_ZYX.shape, spacing_mm=(3.0, 1.0, 1.0), **geometry)
    return measure_label_density("case", annotation, grid)


def test_annotated_slices_voxels_and_classes_are_counted():
    labels_ZYX = np.full((10, 8, 6), IGNORE, np.uint8)
    labels_ZYX[3] = 0
    labels_ZYX[7] = 0
    labels_ZYX[7, 2:4, 1] = 2
    found = _measure(labels_ZYX)
    assert found.annotated_slices == (2, 8, 6)
    assert found.annotated_voxels == 96
    assert found.class_voxels == {0: 94, 2: 2}
    assert not found.is_dense


def test_hidden_labels_count_as_nothing():
    labels_ZYX = np.array([[[1, 2]], [[1, 1]]], np.uint8)
    source_ZYX = np.array([[[1, 0]], [[0, 0]]], np.uint8)
    annotation = Annotation(labels_ZYX=labels_ZYX, source_ZYX=source_ZYX)
    grid = Geometry(shape=(2, 1, 2), spacing_mm=(1.0, 1.0, 1.0))
    found = measure_label_density("case", annotation, grid)
    assert (found.annotated_slices, found.class_voxels) == ((1, 1, 1), {1: 1})


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_counts_equal_those_of_the_whole_arrays(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(edge) for edge in rng.integers(1, 7, 3))
    labels_ZYX = rng.choice([0, 1, 300, IGNORE], shape, p=[0.2, 0.1, 0.1, 0.6]).astype(np.uint16)
    annotated_ZYX = labels_ZYX != IGNORE
    found = _measure(labels_ZYX)
    assert found.annotated_voxels == annotated_ZYX.sum()
    values, counts = np.unique(labels_ZYX[annotated_ZYX], return_counts=True)
    assert found.class_voxels == dict(zip(values.tolist(), counts.tolist(), strict=True))
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        assert found.annotated_slices[axis] == annotated_ZYX.any(axis=others).sum()


def test_a_case_without_labels_has_nothing_annotated():
    grid = Geometry(shape=(4, 5, 6), spacing_mm=(1.0, 1.0, 1.0))
    found = measure_label_density("case", None, grid)
    assert (found.annotated_voxels, found.class_voxels, found.num_voxels) == (0, {}, 120)


def test_an_annotation_of_another_shape_is_refused():
    grid = Geometry(shape=(4, 5, 6), spacing_mm=(1.0, 1.0, 1.0))
    annotation = Annotation.from_label_map(np.zeros((4, 5, 5), np.uint8), ignore=None)
    with pytest.raises(ValueError, match=r"case: .*\(4, 5, 5\)"):
        measure_label_density("case", annotation, grid)


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ((1, 0, 0, 0, 1, 0, 0, 0, 1), "LPS"),
        ((-1, 0, 0, 0, -1, 0, 0, 0, 1), "RAS"),
        ((0, 0, 1, 1, 0, 0, 0, -1, 0), "PIL"),
        ((0.98, 0.2, 0, -0.2, 0.98, 0, 0, 0, 1), "LPS"),
        ((1, 0, 0, 1), None),
    ],
)
def test_the_orientation_names_where_the_axes_x_y_z_point(direction, expected):
    found = _measure(np.zeros((2, 2, 2), np.uint8), direction=tuple(map(float, direction)))
    assert found.orientation == expected


def test_the_file_gives_back_what_was_written(tmp_path):
    path = tmp_path / "label_density.json"
    labels_ZYX = np.full((4, 3, 3), IGNORE, np.uint8)
    labels_ZYX[1] = 1
    cases = (_measure(labels_ZYX), _measure(np.zeros((2, 3, 3), np.uint8), dimensions=2))
    write_label_densities(path, cases, data_hash="abc")
    assert read_label_densities(path) == cases
    assert json.loads(path.read_text())["data_hash"] == "abc"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], "does not hold label densities"),
        ({"kind": "label_density", "version": 2, "cases": []}, "version 1"),
        ({"kind": "label_density", "version": 1, "cases": [{"name": "a"}]}, "annotated_voxels"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, content, expected):
    path = tmp_path / "label_density.json"
    path.write_text(json.dumps(content))
    with pytest.raises(RequestError, match=expected) as caught:
        read_label_densities(path)
    assert str(path) in str(caught.value)
