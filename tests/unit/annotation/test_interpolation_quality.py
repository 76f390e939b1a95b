"""Interpolation judged without dense labels."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from phantoms import blobs, intensities, sphere

from sparseunet.annotation.interpolation.fill_dataset import choose_axis
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.interpolation.quality import (
    HiddenSlices,
    add_up,
    compare_hidden_slices,
)
from sparseunet.annotation.interpolation.verdict import (
    Verdict,
    judge,
    read_verdict,
    verdict_lines,
    write_verdict,
)
from sparseunet.annotation.simulate import hide_slices
from sparseunet.data.annotation import Annotation
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError

LABELS = LabelSchema(classes={"background": 0, "ball": 1}, regions={}, ignore=2)
REQUEST = InterpolationRequest(axis=0)


def scan(labels_ZYX: np.ndarray) -> Image:
    z, y, x = labels_ZYX.shape
    geometry = Geometry(shape=(z, y, x), spacing_mm=(3.0, 1.0, 1.2))
    return Image(voxels_CZYX=intensities(labels_ZYX, seed=0)[None], geometry=geometry)


def sparse(labels_ZYX: np.ndarray, keep: list[int], axis: int = 0) -> Annotation:
    dense = Annotation.from_label_map(labels_ZYX, ignore=None)
    return hide_slices(dense, keep=keep, axis=axis)


def hidden_of(annotation: Annotation, method: str = "shape") -> tuple[HiddenSlices, ...]:
    image = scan(annotation.labels_ZYX)
    return compare_hidden_slices(
        image, annotation, labels=LABELS, methods=[method], request=REQUEST
    )


def row(distance_mm: float, both: int, either: int, method: str = "spline") -> HiddenSlices:
    return HiddenSlices(
        method=method,
        class_name="ball",
        gap_mm=2 * distance_mm,
        distance_mm=distance_mm,
        num_slices=1,
        both=both,
        either=either,
    )


def verdict_of(hidden: list[HiddenSlices], *, density: float = 0.05) -> Verdict:
    verdict = judge(hidden, distances_mm=Counter({1.0: 10, 2.0: 10, 4.0: 10}), density=density)
    assert verdict is not None
    return verdict


def test_a_cylinder_is_restored_perfectly_whatever_is_hidden() -> None:
    disk = sphere((40, 34), radius_mm=9).astype(np.uint8)
    found = hidden_of(sparse(np.stack([disk] * 21), list(range(0, 21, 4))))
    between = [item for item in found if item.gap_mm is not None]
    assert {item.gap_mm for item in between} == {24.0, 36.0, 48.0}
    assert all(item.dice == item.iou == 1 for item in between)


def test_what_lies_in_the_real_gaps_influences_nothing() -> None:
    labels_ZYX = blobs((21, 40, 34), seed=1, num_classes=1)
    given = sparse(labels_ZYX, list(range(0, 21, 4)))
    other = sparse(labels_ZYX, list(range(0, 21, 4)))
    other.labels_ZYX[~other.annotated_ZYX] = 1
    assert hidden_of(given) == hidden_of(other)
    assert hidden_of(given, "nearest") != hidden_of(given, "shape")


def test_with_one_slice_nothing_can_be_hidden() -> None:
    assert hidden_of(sparse(blobs((9, 20, 20), seed=2), [4])) == ()
    assert judge([], distances_mm={1.0: 3}, density=0.1) is None
    assert judge([row(4.0, 1, 2)], distances_mm={}, density=1.0) is None


def test_sums_of_cases_add_up() -> None:
    (total,) = add_up([[row(4.0, 10, 20)], [row(4.0, 20, 20)], []])
    assert (total.num_slices, total.iou, total.dice) == (2, 0.75, 60 / 70)


def test_expected_quality_follows_the_measured_curve() -> None:
    curve = {4.0: 0.8, 8.0: 0.64, 12.0: 0.512}
    verdict = verdict_of([row(mm, round(1e5 * iou), 100_000) for mm, iou in curve.items()])
    expected = np.mean([0.8**0.25, 0.8**0.5, 0.8])
    assert verdict.estimates[0].iou == pytest.approx(expected, abs=0.005)
    assert verdict.estimates[0].exponent == pytest.approx(1, abs=0.01)
    assert verdict.until_gap_mm == 8.0


def test_only_very_sparse_labels_that_can_be_restored_are_filled_and_only_in_3d() -> None:
    good, bad = [row(8.0, 90, 100)], [row(8.0, 1, 100)]
    assert verdict_of(good).use_3d
    assert not verdict_of(good, density=0.2).use_3d
    assert not verdict_of(good).use_2d
    assert 0 < verdict_of(bad).until_gap_mm < 4, "narrow gaps could be filled,"
    assert not verdict_of(bad).use_3d, "but what is expected of all of them is too bad"
    hopeless = verdict_of([row(0.5, 2, 100)])
    assert (hopeless.use_3d, hopeless.until_gap_mm) == (False, 0)


def test_the_usual_method_is_taken_unless_another_is_clearly_better() -> None:
    close = [row(4.0, 80, 100), row(4.0, 82, 100, "nearest")]
    clear = [row(4.0, 60, 100), row(4.0, 90, 100, "nearest")]
    assert verdict_of(close).method == "spline"
    assert verdict_of(clear).method == "nearest"
    assert verdict_of([*close, row(4.0, 79, 100, "fused")]).method == "fused"


def test_a_verdict_is_written_and_read_and_said(tmp_path: Path) -> None:
    verdict = verdict_of([row(4.0, 80, 100), row(8.0, 60, 100), row(8.0, 50, 100, "nearest")])
    write_verdict(tmp_path / "verdict.json", verdict)
    assert read_verdict(tmp_path / "verdict.json") == verdict
    text = "\n".join(verdict_lines(verdict))
    assert "3D: use interpolated labels. 5% of the slices are annotated" in text
    assert "| ball | 8 mm | 1 | 0.89 | 0.80 |" in text
    (tmp_path / "verdict.json").write_text("{}")
    with pytest.raises(RequestError, match="holds kind None"):
        read_verdict(tmp_path / "verdict.json")


def test_the_axis_is_the_one_with_the_most_complete_slices() -> None:
    labels_ZYX = blobs((10, 20, 30), seed=3)
    both = sparse(labels_ZYX, [2, 7])
    across_x = sparse(labels_ZYX, [3, 9, 15, 21, 27, 29, 1], axis=2)
    assert choose_axis(both) == 0
    both.labels_ZYX[across_x.annotated_ZYX] = across_x.labels_ZYX[across_x.annotated_ZYX]
    both.source_ZYX[across_x.annotated_ZYX] = 1
    assert choose_axis(both) == 2
    assert choose_axis(sparse(labels_ZYX, [])) is None
