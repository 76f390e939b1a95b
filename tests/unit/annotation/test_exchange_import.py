"""What comes back is understood, kept, and refused where it would be wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import slicerio
from drawing_tools import DRAW, make_plan, only_slices
from phantoms import blobs, intensities

from sparseunet.annotation.annotation_plan import write_annotation_plan
from sparseunet.annotation.annotation_record import read_annotation_records
from sparseunet.annotation.exchange.export import export_annotation
from sparseunet.annotation.exchange.import_annotation import import_annotation
from sparseunet.cli.main import main
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_label_map, write_image, write_label_map
from sparseunet.data.load import load_dataset
from sparseunet.errors import DatasetError, RequestError

SHAPE = (12, 9, 7)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(3.0, 0.8, 0.7), origin_mm=(-5.0, 4.0, 30.5))
VALUES = {"organ": 1, "lesion": 2}
DENSE = {name: blobs(SHAPE, seed=seed, share=0.7, width=1.0) for seed, name in enumerate("ab")}
PLAN = make_plan({"a": [2, 8], "b": [3]}, {"a": SHAPE, "b": SHAPE})


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "raw" / "Dataset001_Scans"
    for index, name in enumerate(DENSE):
        image = intensities(DENSE[name], seed=index)
        write_image(folder / "imagesTr" / f"{name}_0000.nii.gz", image, GEOMETRY)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, **VALUES},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return load_dataset(folder, needs_labels=False)


@pytest.fixture
def export(dataset, tmp_path):
    folder = tmp_path / "export"
    export_annotation(dataset, plan=PLAN, tool="nifti", folder=folder)
    return folder


@pytest.fixture
def target(tmp_path):
    return tmp_path / "raw" / "Dataset002_Drawn"


def _draw(export: Path, case: str, slices, *, tool="nifti", ending=".nii.gz", dense=None) -> None:
    labels = only_slices(DENSE[case] if dense is None else dense, slices)
    DRAW[tool](export / "labels" / f"{case}{ending}", labels, VALUES)


def _tick(export: Path, rows: str) -> None:
    (export / "work_list.csv").write_text(f"case,axis,slice,done\n{rows}\n")


def _labels(folder: Path, case: str) -> np.ndarray:
    return read_label_map(folder / "labelsTr" / f"{case}.nii.gz")[0]


def _expected(case: str, slices, *, ignore=3) -> np.ndarray:
    labels = np.full(SHAPE, ignore, np.uint8)
    labels[slices] = DENSE[case][slices]
    return labels


def _import(dataset, export, target, **changes):
    return import_annotation(dataset, plan=PLAN, returned=export, folder=target, **changes)


def test_only_drawn_and_ticked_slices_become_labels(dataset, export, target):
    _draw(export, "a", [2, 5])
    _tick(export, "a,z,8,empty\nb,z,3,")

    summary = _import(dataset, export, target)

    expected = _expected("a", [2, 5])
    expected[8] = 0
    assert np.array_equal(_labels(target, "a"), expected)
    assert (_labels(target, "b") == 3).all()
    a, b = summary.views
    assert (a.done, a.empty, a.extra, a.missing) == ((2, 8), (8,), (5,), ())
    assert (b.done, b.missing) == ((), (3,))
    assert set(summary.records.cases) == {"a"}
    assert summary.records.cases["a"].annotated_slices == (2, 5, 8)
    assert summary.records.selector == "fixed"


def test_the_new_dataset_can_be_loaded_and_shares_its_images(dataset, export, target):
    _draw(export, "a", [2])

    _import(dataset, export, target)

    made = load_dataset(target)
    assert made.labels.ignore == 3
    for case, source in zip(made.cases, dataset.cases, strict=True):
        assert case.images[0].samefile(source.images[0])
    assert not (export / "images" / "a_0000.nii.gz").samefile(dataset.cases[0].images[0])


def test_a_second_round_adds_and_both_are_kept(dataset, export, target):
    _draw(export, "a", [2])
    _import(dataset, export, target)
    first = (target / "annotation_rounds" / "round_001" / "labelsTr" / "a.nii.gz").read_bytes()
    _draw(export, "a", [2, 8])
    _draw(export, "b", [3])

    summary = _import(dataset, export, target)

    assert summary.round == 2
    assert np.array_equal(_labels(target, "a"), _expected("a", [2, 8]))
    assert np.array_equal(_labels(target, "b"), _expected("b", [3]))
    assert read_annotation_records(target / "annotation.json") == summary.records
    assert summary.records.cases["a"].annotated_slices == (2, 8)
    kept = target / "annotation_rounds"
    assert (kept / "round_001" / "labelsTr" / "a.nii.gz").read_bytes() == first
    assert (kept / "round_002" / "work_list.csv").is_file()


def test_the_same_folder_again_brings_nothing_and_changes_nothing(dataset, export, target):
    _draw(export, "a", [2])
    _import(dataset, export, target)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}

    summary = _import(dataset, export, target)

    assert summary.round is None
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("winner", ["refuse", "newest", "oldest"])
def test_a_voxel_drawn_differently_is_a_conflict_that_somebody_must_settle(
    dataset, export, target, winner
):
    _draw(export, "a", [2])
    _import(dataset, export, target)
    redrawn = DENSE["a"].copy()
    redrawn[2, 0, :3] = (redrawn[2, 0, :3] + 1) % 3
    _draw(export, "a", [2, 8], dense=redrawn)

    if winner == "refuse":
        with pytest.raises(
            DatasetError, match="3 voxels labelled differently before, in slices z 2"
        ):
            _import(dataset, export, target)
        assert np.array_equal(_labels(target, "a"), _expected("a", [2]))
        assert not (target / "annotation_rounds" / "round_002").exists()
        return
    summary = _import(dataset, export, target, on_conflict=winner)

    assert summary.num_conflicts == 3
    expected = _expected("a", [2, 8])
    if winner == "newest":
        expected[2] = redrawn[2]
    assert np.array_equal(_labels(target, "a"), expected)
    kept, _ = read_label_map(target / "annotation_rounds" / "round_002" / "labelsTr" / "a.nii.gz")
    assert np.array_equal(kept[2], redrawn[2])


def test_minutes_of_one_list_count_once_and_those_of_two_add_up(dataset, export, target, tmp_path):
    _draw(export, "a", [2])
    (export / "work_list.csv").write_text("case,axis,slice,done,minutes\na,z,2,x,4\n")
    _import(dataset, export, target)
    _draw(export, "a", [2, 8])
    (export / "work_list.csv").write_text("case,axis,slice,done,minutes\na,z,2,x,4\na,z,8,x,1\n")
    assert _import(dataset, export, target).records.cases["a"].minutes == 5

    plan = make_plan({"a": [10]}, {"a": SHAPE})
    other = tmp_path / "other"
    export_annotation(dataset, plan=plan, tool="nifti", folder=other)
    _draw(other, "a", [10])
    (other / "work_list.csv").write_text("case,axis,slice,done,minutes\na,z,10,x,7\n")
    summary = import_annotation(dataset, plan=plan, returned=other, folder=target)

    assert summary.records.cases["a"].minutes == 12
    assert summary.records.cases["a"].annotated_slices == (2, 8, 10)


def test_labels_that_were_there_before_the_first_import_are_kept_as_round_0(
    dataset, export, target, tmp_path
):
    _draw(export, "a", [2])
    _import(dataset, export, target)
    foreign = tmp_path / "raw" / "Dataset003_Foreign"
    target.rename(foreign)
    for path in [foreign / "annotation.json", *(foreign / "annotation_rounds").rglob("*")]:
        if path.is_file():
            path.unlink()
    for path in sorted((foreign / "annotation_rounds").rglob("*"), reverse=True):
        path.rmdir()
    (foreign / "annotation_rounds").rmdir()
    before = (foreign / "labelsTr" / "a.nii.gz").read_bytes()
    _draw(export, "a", [8])

    assert _import(dataset, export, foreign).round == 1

    assert np.array_equal(_labels(foreign, "a"), _expected("a", [2, 8]))
    kept = foreign / "annotation_rounds" / "round_000" / "labelsTr" / "a.nii.gz"
    assert kept.read_bytes() == before


def test_handed_out_labels_count_only_where_somebody_changed_or_ticked_them(
    dataset, target, tmp_path
):
    for case, dense in DENSE.items():
        write_label_map(tmp_path / "predicted" / f"{case}.nii.gz", dense, GEOMETRY)
    plan = make_plan({"a": [1, 2, 8], "b": [3]}, {"a": SHAPE, "b": SHAPE})
    export = tmp_path / "export"
    export_annotation(
        dataset, plan=plan, tool="slicer", folder=export, prefill=tmp_path / "predicted"
    )
    opened = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(export / "labels" / "a.seg.nrrd")))
    assert np.array_equal(opened, only_slices(DENSE["a"], [1, 2, 8]))
    corrected = DENSE["a"].copy()
    corrected[2] = (corrected[2] + 1) % 3
    _draw(export, "a", [1, 2, 8], tool="slicer", ending=".seg.nrrd", dense=corrected)
    _tick(export, "a,z,8,x")

    summary = import_annotation(dataset, plan=plan, returned=export, folder=target)

    expected = _expected("a", [8])
    expected[2] = corrected[2]
    assert np.array_equal(_labels(target, "a"), expected)
    assert (_labels(target, "b") == 3).all()
    assert [view.missing for view in summary.views] == [(1,), (3,)]

    (export / "handed_out" / "a.nii.gz").write_bytes(b"changed")
    with pytest.raises(DatasetError, match="a file that was changed"):
        import_annotation(dataset, plan=plan, returned=export, folder=tmp_path / "Dataset009_X")


def test_planned_slices_count_as_done_if_one_says_so_but_only_of_returned_cases(
    dataset, export, target
):
    (export / "labels" / "b.nii.gz").unlink()

    summary = _import(dataset, export, target, planned_are_done=True)

    a, b = summary.views
    assert (a.done, a.empty, b.missing) == ((2, 8), (2, 8), (3,))
    assert (_labels(target, "a")[[2, 8]] == 0).all()


def test_an_nnunet_dataset_with_an_ignore_label_keeps_its_voxels(dataset, target, tmp_path):
    scribbles = np.full(SHAPE, 4, np.uint8)  # its values are its own: names decide
    scribbles[4, 2, 1:5] = 0
    scribbles[4, 5, 1:5] = 1
    returned = tmp_path / "Dataset050_Scribbles"
    write_label_map(returned / "labelsTr" / "a.nii.gz", scribbles, GEOMETRY)
    labels = {"background": 0, "lesion": 1, "organ": 2, "other": 3, "ignore": 4}
    (returned / "dataset.json").write_text(json.dumps({"labels": labels}))

    summary = _import(dataset, returned, target)

    expected = np.full(SHAPE, 3, np.uint8)
    expected[4, 2, 1:5] = 0
    expected[4, 5, 1:5] = 2
    assert np.array_equal(_labels(target, "a"), expected)
    assert summary.views[0].extra == (4,)


def test_what_slicer_itself_wrote_is_read(tmp_path):
    data = Path(slicerio.__file__).parent / "data"
    image = SimpleITK.ReadImage(str(data / "CTChest4.nrrd"))
    segmentation = SimpleITK.ReadImage(str(data / "Segmentation.seg.nrrd"))
    names = [segmentation.GetMetaData(f"Segment{number}_Name") for number in range(7)]
    folder = tmp_path / "Dataset001_Chest"
    (folder / "imagesTr").mkdir(parents=True)
    SimpleITK.WriteImage(image, str(folder / "imagesTr" / "chest_0000.nrrd"))
    labels = {"background": 0} | {name: 7 - number for number, name in enumerate(names)}
    description = {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": 1,
        "file_ending": ".nrrd",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    dataset = load_dataset(folder, needs_labels=False)
    plan = make_plan({"chest": [3, 20]}, {"chest": (34, 128, 128)})
    returned = tmp_path / "returned"
    returned.mkdir()
    for source in ("Segmentation", "SegmentationOverlapping"):
        (returned / "chest.seg.nrrd").write_bytes((data / f"{source}.seg.nrrd").read_bytes())
        if source == "SegmentationOverlapping":
            with pytest.raises(DatasetError, match=r"voxels in two classes at once|called"):
                import_annotation(
                    dataset, plan=plan, returned=returned, folder=tmp_path / "Dataset003_Two"
                )
            continue
        import_annotation(dataset, plan=plan, returned=returned, folder=tmp_path / "Dataset002_One")
        found, _ = read_label_map(tmp_path / "Dataset002_One" / "labelsTr" / "chest.nrrd")
        written = SimpleITK.GetArrayFromImage(segmentation)
        drawn = np.flatnonzero(written.any(axis=(1, 2)))
        expected = np.where(written[drawn] > 0, 8 - written[drawn], 0)
        assert np.array_equal(found[drawn], expected)


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
    dataset, export, target, spoil, found
):
    _draw(export, "a", [2, 8])
    spoil(export / "labels" / "a.nii.gz")

    with pytest.raises(DatasetError) as error:
        _import(dataset, export, target)

    (problem,) = error.value.problems
    assert problem.case == "a"
    assert found in problem.found
    assert problem.fix
    assert not target.exists()


def test_mirrored_slices_are_believed_once_they_are_ticked_off(dataset, export, target):
    _draw(export, "a", [3, 9])
    _tick(export, "a,z,3,x\na,z,9,x")

    assert _import(dataset, export, target).views[0].extra == (3, 9)


def test_all_problems_of_all_cases_are_listed_at_once_with_exit_code_2(
    dataset, export, target, tmp_path, capsys
):
    _shift(export / "labels" / "a.nii.gz")
    _unknown_value(export / "labels" / "b.nii.gz")
    (export / "labels" / "c.nii.gz").write_bytes(b"")
    _tick(export, "a,z,99,x\nd,z,1,x")
    write_annotation_plan(tmp_path / "plan.json", PLAN)
    words = ["-d", "1", "--plan", str(tmp_path / "plan.json"), "-o", target.name]

    code = main(["--workspace", str(tmp_path), "import_annotation", str(export), *words])

    assert code == 2
    shown = capsys.readouterr().err
    for words in ("shifted by", "value 9", "belongs to no case", "slice z 99", "unknown case"):
        assert words in shown


def test_unknown_segments_and_voxels_in_two_segments_are_named(dataset, target, tmp_path):
    export = tmp_path / "export"
    export_annotation(dataset, plan=PLAN, tool="slicer", folder=export)
    path = export / "labels" / "a.seg.nrrd"
    drawn = slicerio.read_segmentation(path)
    drawn["segments"], mask = [], np.zeros(SHAPE[::-1], bool)
    mask[2, 2, 2] = True
    for name in ("organ", "Lesion ", "tumour", "nothing"):
        segment = {"id": name, "name": name}
        slicerio.add_segment(drawn, mask if name != "nothing" else ~mask & mask, segment)
    slicerio.write_segmentation(str(path), drawn)

    with pytest.raises(DatasetError) as error:
        _import(dataset, export, target)

    assert [problem.found for problem in error.value.problems] == [
        "1 voxels in a segment called 'tumour'",
        "1 voxels in two classes at once",
    ]
    assert "organ, lesion" in error.value.problems[0].expected


def test_contradictions_of_work_list_and_drawing_are_refused(dataset, export, target):
    _draw(export, "a", [2])
    (export / "labels" / "b.nii.gz").unlink()
    _tick(export, "a,z,2,empty\nb,z,3,x")

    with pytest.raises(DatasetError) as error:
        _import(dataset, export, target)

    assert [problem.found for problem in error.value.problems] == [
        "objects in slice z 2, which is ticked off as empty",
        "slices ticked off as done, but no label file",
    ]


def test_requests_that_make_no_sense_are_refused(dataset, export, target, tmp_path):
    other = make_plan({"a": [1]}, {"a": SHAPE})
    with pytest.raises(RequestError, match="another annotation plan"):
        import_annotation(dataset, plan=other, returned=export, folder=target)
    with pytest.raises(RequestError, match="holds no label file"):
        _import(dataset, tmp_path / "nowhere", target)
    _draw(export, "a", [2])
    _import(dataset, export, target)
    description = json.loads((target / "dataset.json").read_text())
    description["labels"] = {"background": 0, "liver": 1, "ignore": 2}
    (target / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(RequestError, match="expected the same classes"):
        _import(dataset, export, target)
    del description["labels"]["ignore"]
    (target / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(RequestError, match="has no ignore label"):
        _import(dataset, export, target)
