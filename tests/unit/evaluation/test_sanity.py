import csv
import json

import numpy as np
import pytest
from phantoms import box, sphere

from sparseunet.cli.main import main
from sparseunet.data.annotation_record import (
    AnnotationRecord,
    AnnotationRecords,
    write_annotation_records,
)
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.evaluation.inspect_predictions import inspect_predictions
from sparseunet.evaluation.sanity import (
    find_body,
    find_islands,
    find_jumps,
    find_missing,
    find_outside,
    find_wrong_sides,
    pair_sides,
)

SHAPE = (24, 40, 48)
SPACING_MM = (2.0, 1.0, 1.0)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=SPACING_MM)
SIDES = {"kidney_left": (1,), "kidney_right": (2,)}
ORGAN = sphere(SHAPE, radius_mm=10, spacing_mm=SPACING_MM)


def _scan() -> np.ndarray:
    """A cylinder of tissue with a hollow in it, in air."""
    body = np.broadcast_to(sphere(SHAPE[1:], radius_mm=17), SHAPE)
    hollow = sphere(SHAPE, radius_mm=6, spacing_mm=SPACING_MM)
    noise = np.random.default_rng(0).normal(0, 20, SHAPE)
    return (np.where(body & ~hollow, 40, -1000) + noise).astype(np.float32)


def test_a_far_piece_is_an_island_and_a_near_one_is_not():
    near, far = ORGAN.copy(), ORGAN.copy()
    near[12, 20, 36:38] = True
    far[12, 2:4, 2:4] = True

    assert find_islands(near, class_name="x", spacing_mm=SPACING_MM, far_mm=15) == []
    (finding,) = find_islands(far, class_name="x", spacing_mm=SPACING_MM, far_mm=15)
    assert finding.check == "island"
    assert finding.severity == pytest.approx(4 / far.sum())
    assert find_islands(ORGAN & False, class_name="x", spacing_mm=SPACING_MM) == []


def test_distances_of_islands_are_millimetres():
    mask = np.zeros((30, 9, 9), bool)
    mask[:6, 3:6, 3:6], mask[14:16, 4, 4] = True, True  # eight empty slices

    assert find_islands(mask, class_name="x", spacing_mm=(3, 1, 1), far_mm=20)
    assert not find_islands(mask, class_name="x", spacing_mm=(2, 1, 1), far_mm=20)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_that_vanishes_or_floods_is_a_jump(axis):
    vanished, flooded = ORGAN.copy(), ORGAN.copy()
    middle = SHAPE[axis] // 2
    np.moveaxis(vanished, axis, 0)[middle] = False
    np.moveaxis(flooded, axis, 0)[middle - 3] = True

    for mask, index in ((vanished, middle), (flooded, middle - 3)):
        (finding,) = find_jumps(mask, class_name="x", axis=axis)
        assert finding.check == "jump"
        assert f"slice {index} across {'zyx'[axis]}" in finding.reason
        assert finding.severity > 0.3
    assert find_jumps(ORGAN, class_name="x", axis=axis) == []


def test_a_jump_names_the_annotated_slice_beside_it():
    halved = box(SHAPE, start=(2, 5, 5), stop=(20, 30, 30))
    halved[11:, 8:] = False

    (finding,) = find_jumps(halved, class_name="x", axis=0, annotated_slices=(3, 10, 19))

    assert finding.severity == pytest.approx(22 / 25)
    assert "slice 11 " in finding.reason
    assert "slice 10 is annotated" in finding.reason


def test_the_body_holds_what_it_encloses_and_air_does_not_count():
    body_ZYX = find_body(_scan())

    assert body_ZYX is not None
    assert body_ZYX[12, 20, 24]  # inside the hollow
    assert not body_ZYX[:, 1, 1].any()
    inside, outside = ORGAN, box(SHAPE, start=(5, 0, 0), stop=(9, 5, 5))
    assert find_outside(inside, class_name="x", body_ZYX=body_ZYX) == []
    (finding,) = find_outside(outside, class_name="x", body_ZYX=body_ZYX)
    assert finding.severity == 1


def test_a_scan_without_clear_background_says_nothing_about_the_body():
    noise = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)

    assert find_body(noise) is None
    assert find_body(np.zeros(SHAPE, np.float32)) is None


@pytest.mark.parametrize("flipped", [False, True])
def test_left_and_right_are_those_of_the_patient(flipped):
    direction = (-1.0 if flipped else 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    geometry = Geometry(shape=SHAPE, spacing_mm=SPACING_MM, direction=direction)
    labels = np.zeros(SHAPE, np.uint8)
    labels[8:14, 10:20, 4:12], labels[8:14, 10:20, 34:42] = 2, 1  # x points to the left

    found = find_wrong_sides(labels, classes=SIDES, geometry=geometry)

    if flipped:
        assert [(each.check, each.severity) for each in found] == [("side", 1.0)]
    else:
        assert found == []


def test_half_an_organ_with_the_other_name_is_found():
    labels = np.zeros(SHAPE, np.uint8)
    labels[8:14, 10:20, 4:12], labels[8:14, 10:20, 34:42] = 2, 1
    labels[11:14, 10:20, 4:12] = 1

    (finding,) = find_wrong_sides(labels, classes=SIDES, geometry=GEOMETRY)

    assert finding.severity == pytest.approx(0.25)
    labels[labels == 2] = 0
    assert find_wrong_sides(labels, classes=SIDES, geometry=GEOMETRY) == []


def test_pairs_are_found_by_whole_words():
    names = ["Left Lung", "right_lung", "Right Lung", "l_eye", "r_eye", "leftover", "liver"]

    assert pair_sides(names) == [("Left Lung", "Right Lung"), ("l_eye", "r_eye")]


def test_a_class_that_nearly_all_others_have_is_missed():
    shares = {"liver": 0.9, "lesion": 0.5}

    (finding,) = find_missing(
        {"liver": 0, "lesion": 0, "spleen": 3}, shares={**shares, "spleen": 1}
    )
    (nothing,) = find_missing({"liver": 0, "lesion": 0}, shares=shares)

    assert finding.class_name == "liver"
    assert nothing.severity == 1
    assert find_missing({"liver": 7, "lesion": 0}, shares=shares) == []


def _folders(tmp_path, cases):
    for name, labels_ZYX in cases.items():
        write_image(tmp_path / "images" / f"{name}_0000.nii.gz", _scan(), GEOMETRY)
        write_label_map(tmp_path / "out" / f"{name}.nii.gz", labels_ZYX.astype(np.uint8), GEOMETRY)
    return tmp_path / "images", tmp_path / "out"


def _with(*parts: np.ndarray) -> np.ndarray:
    return np.logical_or.reduce([ORGAN, *parts])


IN_AIR = box(SHAPE, start=(2, 0, 0), stop=(22, 6, 6))
ISLAND = box(SHAPE, start=(0, 18, 36), stop=(1, 20, 38))


def test_the_oddest_case_comes_first_and_a_good_one_last(tmp_path):
    hole = ORGAN.copy()
    hole[12] = False
    cases = {"good": ORGAN, "holed": hole, "in_air": _with(IN_AIR), "none": ORGAN & False}
    images, predictions = _folders(tmp_path, cases | {"also_good": ORGAN})
    labels = LabelSchema(classes={"background": 0, "organ": 1}, regions={})

    inspection = inspect_predictions(
        images, predictions, labels=labels, file_ending=".nii.gz", num_workers=2
    )

    assert [case.name for case in inspection.cases[-2:]] == ["also_good", "good"]
    assert all(case.findings == () and case.score == 0 for case in inspection.cases[-2:])
    checks = {case.name: {f.check for f in case.findings} for case in inspection.cases}
    assert checks["none"] == {"missing"}
    assert checks["holed"] == {"jump"}
    assert "outside_body" in checks["in_air"]
    scores = [case.score for case in inspection.cases]
    assert scores == sorted(scores, reverse=True)


def test_a_class_that_mostly_has_islands_consists_of_several_parts(tmp_path):
    cases = {name: _with(ISLAND) for name in "abc"} | {"d": ORGAN}
    images, predictions = _folders(tmp_path, cases)
    labels = LabelSchema(classes={"background": 0, "organ": 1}, regions={})
    options = {"labels": labels, "file_ending": ".nii.gz", "num_workers": 1, "far_mm": 5.0}

    inspection = inspect_predictions(images, predictions, **options)

    assert all(f.check != "island" for case in inspection.cases for f in case.findings)
    assert "pieces far apart" in inspection.notes[0]


def test_every_missing_scan_is_named(tmp_path):
    images, predictions = _folders(tmp_path, dict.fromkeys("abc", ORGAN))
    for name in "ac":
        (images / f"{name}_0000.nii.gz").unlink()
    labels = LabelSchema(classes={"background": 0, "organ": 1}, regions={})

    with pytest.raises(RequestError, match=r"2 of 3 .*a_0000\.nii\.gz, c_0000\.nii\.gz"):
        inspect_predictions(
            images, predictions, labels=labels, file_ending=".nii.gz", num_workers=1
        )


def test_the_command_writes_the_ranked_list(tmp_path, capsys):
    jump = box(SHAPE, start=(2, 12, 12), stop=(20, 28, 36))
    jump[11:, 16:] = False
    images, predictions = _folders(tmp_path, {"a": ORGAN, "b": jump})
    record = AnnotationRecord(
        axis=0, num_slices=24, annotated_slices=(10,), annotated_classes=("organ",)
    )
    write_annotation_records(tmp_path / "annotation.json", AnnotationRecords(cases={"b": record}))
    words = ["inspect_predictions", "-i", str(images), "-p", str(predictions)]

    assert main(words) == 2
    assert "the label values" in capsys.readouterr().err
    assert main([*words, "-l", "1", "--annotation", str(tmp_path / "annotation.json")]) == 0

    content = json.loads((predictions / "inspection.json").read_text())
    assert [case["case"] for case in content["cases"]] == ["b", "a"]
    assert content["cases"][1]["findings"] == []
    with (predictions / "inspection.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["rank"], row["case"], row["check"]) for row in rows] == [("1", "b", "jump")]
    out = capsys.readouterr().out
    assert "1 of 2 cases" in out
    assert "slice 10 is annotated" in out
