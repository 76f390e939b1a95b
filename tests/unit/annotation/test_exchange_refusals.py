"""What would be wrong is refused, all of it at once, and nothing is written."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import slicerio
from drawing_tools import make_plan
from drawn_scans import PLAN, SHAPE, draw, tick

from sparseunet.annotation.annotation_plan import write_annotation_plan
from sparseunet.annotation.exchange.export import export_annotation
from sparseunet.annotation.exchange.import_annotation import import_annotation
from sparseunet.cli.main import main
from sparseunet.errors import DatasetError, RequestError


def _import(scans, export, target, **changes):
    return import_annotation(scans, plan=PLAN, returned=export, folder=target, **changes)


def _shift(path: Path) -> None:
    image = SimpleITK.ReadImage(str(path))
    image.SetOrigin([value + 0.7 for value in image.GetOrigin()])
    SimpleITK.WriteImage(image, str(path))


def _resample(path: Path) -> None:
    image = SimpleITK.ReadImage(str(path))
    image.SetSpacing([1.0, 1.0, 1.0])
    SimpleITK.WriteImage(image, str(path))


def _flip_voxels_alone(path: Path) -> None:
    image = SimpleITK.ReadImage(str(path))
    flipped = SimpleITK.GetImageFromArray(SimpleITK.GetArrayFromImage(image)[::-1])
    flipped.CopyInformation(image)
    SimpleITK.WriteImage(flipped, str(path))


def _flip_direction_alone(path: Path) -> None:
    image = SimpleITK.ReadImage(str(path))
    image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(path))


def _unknown_value(path: Path) -> None:
    image = SimpleITK.ReadImage(str(path))
    image[0, 0, 0] = 9
    SimpleITK.WriteImage(image, str(path))


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_shift, "a grid shifted by (0.2333, 0.875, 1) voxels"),
        (_resample, "spacing (1, 1, 1) mm"),
        (_flip_voxels_alone, "slices z 3, 9, which are the planned ones counted from the other"),
        (_flip_direction_alone, "a grid shifted by (0, 0, -6) voxels"),
        (_unknown_value, "1 voxels of value 9"),
        (_cut_off, "cut off"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_nothing_is_written(
    scans, export, target, spoil, found
):
    draw(export, "a", [2, 8])
    spoil(export / "labels" / "a.nii.gz")

    with pytest.raises(DatasetError) as error:
        _import(scans, export, target)

    (problem,) = error.value.problems
    assert problem.case == "a"
    assert found in problem.found
    assert problem.fix
    assert not target.exists()


def test_mirrored_slices_are_believed_once_they_are_ticked_off(scans, export, target):
    draw(export, "a", [3, 9])
    tick(export, "a,z,3,x\na,z,9,x")

    assert _import(scans, export, target).views[0].extra == (3, 9)


def test_all_problems_of_all_cases_are_listed_at_once_with_exit_code_2(
    scans, export, target, tmp_path, capsys
):
    _shift(export / "labels" / "a.nii.gz")
    _unknown_value(export / "labels" / "b.nii.gz")
    (export / "labels" / "c.nii.gz").write_bytes(b"")
    tick(export, "a,z,99,x\nd,z,1,x")
    write_annotation_plan(tmp_path / "plan.json", PLAN)
    words = ["-d", "1", "--plan", str(tmp_path / "plan.json"), "-o", target.name]

    code = main(["--workspace", str(tmp_path), "import_annotation", str(export), *words])

    assert code == 2
    shown = capsys.readouterr().err
    for words in ("shifted by", "value 9", "belongs to no case", "slice z 99", "unknown case"):
        assert words in shown


def test_unknown_segments_and_voxels_in_two_segments_are_named(scans, target, tmp_path):
    export = tmp_path / "export"
    export_annotation(scans, plan=PLAN, tool="slicer", folder=export)
    path = export / "labels" / "a.seg.nrrd"
    drawn = slicerio.read_segmentation(path)
    drawn["segments"], mask = [], np.zeros(SHAPE[::-1], bool)
    mask[2, 2, 2] = True
    for name in ("organ", "Lesion ", "tumour", "nothing"):
        segment = {"id": name, "name": name}
        slicerio.add_segment(drawn, mask if name != "nothing" else ~mask & mask, segment)
    slicerio.write_segmentation(str(path), drawn)

    with pytest.raises(DatasetError) as error:
        _import(scans, export, target)

    assert [problem.found for problem in error.value.problems] == [
        "1 voxels in a segment called 'tumour'",
        "1 voxels in two classes at once",
    ]
    assert "organ, lesion" in error.value.problems[0].expected


def test_contradictions_of_work_list_and_drawing_are_refused(scans, export, target):
    draw(export, "a", [2])
    (export / "labels" / "b.nii.gz").unlink()
    tick(export, "a,z,2,empty\nb,z,3,x")

    with pytest.raises(DatasetError) as error:
        _import(scans, export, target)

    assert [problem.found for problem in error.value.problems] == [
        "objects in slice z 2, which is ticked off as empty",
        "slices ticked off as done, but no label file of them: z 3",
    ]


def test_requests_that_make_no_sense_are_refused(scans, export, target, tmp_path):
    other = make_plan({"a": [1]}, {"a": SHAPE})
    with pytest.raises(RequestError, match="another annotation plan"):
        import_annotation(scans, plan=other, returned=export, folder=target)
    with pytest.raises(RequestError, match="holds no label file"):
        _import(scans, tmp_path / "nowhere", target)
    draw(export, "a", [2])
    _import(scans, export, target)
    description = json.loads((target / "dataset.json").read_text())
    description["labels"] = {"background": 0, "liver": 1, "ignore": 2}
    (target / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(RequestError, match="expected the same classes"):
        _import(scans, export, target)
    del description["labels"]["ignore"]
    (target / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(RequestError, match="has no ignore label"):
        _import(scans, export, target)
