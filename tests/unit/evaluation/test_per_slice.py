import csv
import json
import math
from io import StringIO

import numpy as np
import pytest
from phantoms import blobs

from sparseunet.cli.main import main
from sparseunet.data.annotation import Source
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_label_map
from sparseunet.evaluation.metrics import score_label_maps
from sparseunet.evaluation.per_slice import (
    find_slice_axis,
    parts_to_json,
    score_parts,
    slices_to_csv,
)

SHAPE = (8, 10, 12)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0))
CLASSES = {"first": (1,), "second": (2,)}


def _sources(axis: int, slices: dict[int, Source]) -> np.ndarray:
    source_ZYX = np.zeros(SHAPE, np.uint8)
    for index, source in slices.items():
        np.moveaxis(source_ZYX, axis, 0)[index] = source
    return source_ZYX


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_annotated_slice_has_the_dice_of_its_voxels(axis):
    reference, prediction = blobs(SHAPE, seed=1), blobs(SHAPE, seed=2)
    source_ZYX = _sources(axis, {1: Source.MANUAL, 4: Source.MANUAL})

    parts = score_parts(reference, prediction, source_ZYX=source_ZYX, classes=CLASSES, case="a")

    assert [(each.axis, each.index) for each in parts.slices] == [(axis, 1), (axis, 4)]
    for each in parts.slices:
        planes = [labels.take([each.index], axis) for labels in (reference, prediction)]
        expected = score_label_maps(*planes, classes=CLASSES, spacing_mm=(1, 1, 1))
        for name in CLASSES:
            assert each.classes[name].dice == pytest.approx(expected[name].dice, nan_ok=True)


def test_sources_are_scored_apart():
    reference = np.ones(SHAPE, np.uint8)
    prediction = reference.copy()
    prediction[5] = 0
    source_ZYX = _sources(0, {2: Source.MANUAL, 5: Source.INTERPOLATED, 6: Source.INTERPOLATED})

    parts = score_parts(reference, prediction, source_ZYX=source_ZYX, classes=CLASSES, case="a")
    pooled = parts_to_json([parts], class_names=["first"])["by_source"]

    assert set(parts.by_source) == {"manual", "interpolated"}
    assert pooled["manual"]["first"]["pooled_Dice"] == 1
    assert pooled["interpolated"]["first"]["pooled_Dice"] == pytest.approx(2 / 3)
    assert [each.sources for each in parts.slices] == [
        ("manual",),
        ("interpolated",),
        ("interpolated",),
    ]


def test_the_axis_is_the_one_annotated_slices_fill():
    for axis in range(3):
        assert find_slice_axis(_sources(axis, {0: Source.MANUAL, 3: Source.PSEUDO})) == axis
    assert find_slice_axis(np.ones(SHAPE, np.uint8)) == 0


def test_a_class_in_neither_map_of_a_slice_is_not_counted():
    reference = np.zeros(SHAPE, np.uint8)
    reference[3] = 1

    parts = score_parts(
        reference,
        reference,
        source_ZYX=np.ones(SHAPE, np.uint8),
        classes={"first": (1,)},
        case="a",
    )
    content = parts_to_json([parts], class_names=["first"])

    assert content["num_slices"] == 8
    assert content["num_slices_with_class"]["first"] == 1
    assert content["mean_slice_dice"]["first"] == 1
    assert math.isnan(content["slices"][0]["Dice"]["first"])
    rows = list(csv.DictReader(StringIO(slices_to_csv([parts]))))
    assert [row["Dice"] for row in rows] == ["", "", "", "1.0", "", "", "", ""]


def test_the_command_scores_slices_by_who_drew_them(tmp_path, capsys):
    dense, source_ZYX = blobs(SHAPE, seed=1), np.zeros(SHAPE, np.uint8)
    source_ZYX[[2, 6]], source_ZYX[4] = Source.MANUAL, Source.INTERPOLATED
    reference = np.where(source_ZYX > 0, dense, 3)
    prediction = dense.copy()
    prediction[4] = 0
    for folder, values in (
        ("labelsTr", reference),
        ("provenanceTr", source_ZYX),
        ("predictions", prediction),
    ):
        write_label_map(tmp_path / folder / "a.nii.gz", values.astype(np.uint8), GEOMETRY)
    folders = [str(tmp_path / "labelsTr"), str(tmp_path / "predictions")]
    words = ["evaluate", *folders, "-l", "1", "2", "-il", "3"]

    assert main([*words, "--per-slice"]) == 0

    content = json.loads((tmp_path / "predictions" / "summary_slices.json").read_text())
    assert [each["slice"] for each in content["slices"]] == [2, 4, 6]
    assert content["by_source"]["manual"]["1"]["pooled_Dice"] == 1
    assert content["by_source"]["interpolated"]["1"]["pooled_Dice"] == 0
    assert (tmp_path / "predictions" / "summary_slices.csv").is_file()
    assert "interpolated voxels" in capsys.readouterr().out


def test_a_provenance_file_that_is_none_is_refused(tmp_path, capsys):
    for folder, highest in (("labels", 1), ("provenance", 9), ("predictions", 1)):
        values = np.full(SHAPE, highest, np.uint8)
        write_label_map(tmp_path / folder / "a.nii.gz", values, GEOMETRY)
    words = ["evaluate", str(tmp_path / "labels"), str(tmp_path / "predictions"), "-l", "1"]

    assert main([*words, "--provenance", str(tmp_path / "provenance")]) == 2
    assert "sources of annotation, 0 to 3" in capsys.readouterr().err
    assert main([*words, "--provenance", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main([*words, "--per-slice", "--provenance", str(tmp_path / "provenance")]) == 2
    assert "0 to 3" in capsys.readouterr().err
