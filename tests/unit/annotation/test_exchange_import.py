"""What comes back is understood: slices, ticks, corrections, labels from elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import slicerio
from drawing_tools import make_plan, only_slices
from drawn_scans import DENSE, GEOMETRY, PLAN, SHAPE, draw, drawn_only, labels_in, tick

from sparseunet.annotation.exchange.export import export_annotation
from sparseunet.annotation.exchange.import_annotation import import_annotation
from sparseunet.data.io import read_label_map, write_label_map
from sparseunet.data.load import load_dataset
from sparseunet.errors import DatasetError


def _import(scans, export, target, **changes):
    return import_annotation(scans, plan=PLAN, returned=export, folder=target, **changes)


def test_only_drawn_and_ticked_slices_become_labels(scans, export, target):
    draw(export, "a", [2, 5])
    tick(export, "a,z,8,empty\nb,z,3,")

    summary = _import(scans, export, target)

    expected = drawn_only("a", [2, 5])
    expected[8] = 0
    assert np.array_equal(labels_in(target, "a"), expected)
    assert (labels_in(target, "b") == 3).all()
    a, b = summary.views
    assert (a.done, a.empty, a.extra, a.missing) == ((2, 8), (8,), (5,), ())
    assert (b.done, b.missing) == ((), (3,))
    assert set(summary.records.cases) == {"a"}
    assert summary.records.cases["a"].annotated_slices == (2, 5, 8)
    assert summary.records.selector == "fixed"


def test_the_new_dataset_can_be_loaded_and_shares_its_images(scans, export, target):
    draw(export, "a", [2])

    _import(scans, export, target)

    made = load_dataset(target)
    assert made.labels.ignore == 3
    for case, source in zip(made.cases, scans.cases, strict=True):
        assert case.images[0].samefile(source.images[0])
    assert not (export / "images" / "a_0000.nii.gz").samefile(scans.cases[0].images[0])


def test_handed_out_labels_count_only_where_somebody_changed_or_ticked_them(
    scans, target, tmp_path
):
    for case, dense in DENSE.items():
        write_label_map(tmp_path / "predicted" / f"{case}.nii.gz", dense, GEOMETRY)
    plan = make_plan({"a": [1, 2, 8], "b": [3]}, {"a": SHAPE, "b": SHAPE})
    export = tmp_path / "export"
    export_annotation(
        scans, plan=plan, tool="slicer", folder=export, prefill=tmp_path / "predicted"
    )
    opened = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(export / "labels" / "a.seg.nrrd")))
    assert np.array_equal(opened, only_slices(DENSE["a"], [1, 2, 8]))
    corrected = DENSE["a"].copy()
    corrected[2] = (corrected[2] + 1) % 3
    draw(export, "a", [1, 2, 8], tool="slicer", ending=".seg.nrrd", dense=corrected)
    tick(export, "a,z,8,x")

    summary = import_annotation(scans, plan=plan, returned=export, folder=target)

    expected = drawn_only("a", [8])
    expected[2] = corrected[2]
    assert np.array_equal(labels_in(target, "a"), expected)
    assert (labels_in(target, "b") == 3).all()
    assert [view.missing for view in summary.views] == [(1,), (3,)]

    (export / "handed_out" / "a.nii.gz").write_bytes(b"changed")
    with pytest.raises(DatasetError, match="a file that was changed"):
        import_annotation(scans, plan=plan, returned=export, folder=tmp_path / "Dataset009_X")


def test_planned_slices_count_as_done_if_one_says_so_but_only_of_returned_cases(
    scans, export, target
):
    (export / "labels" / "b.nii.gz").unlink()

    summary = _import(scans, export, target, planned_are_done=True)

    a, b = summary.views
    assert (a.done, a.empty, b.missing) == ((2, 8), (2, 8), (3,))
    assert (labels_in(target, "a")[[2, 8]] == 0).all()


def test_an_nnunet_dataset_with_an_ignore_label_keeps_its_voxels(scans, target, tmp_path):
    scribbles = np.full(SHAPE, 4, np.uint8)  # its values are its own: names decide
    scribbles[4, 2, 1:5] = 0
    scribbles[4, 5, 1:5] = 1
    returned = tmp_path / "Dataset050_Scribbles"
    write_label_map(returned / "labelsTr" / "a.nii.gz", scribbles, GEOMETRY)
    labels = {"background": 0, "lesion": 1, "organ": 2, "other": 3, "ignore": 4}
    (returned / "dataset.json").write_text(json.dumps({"labels": labels}))

    summary = _import(scans, returned, target)

    expected = np.full(SHAPE, 3, np.uint8)
    expected[4, 2, 1:5] = 0
    expected[4, 5, 1:5] = 2
    assert np.array_equal(labels_in(target, "a"), expected)
    assert (labels_in(target, "b") == 3).all()
    a, b = summary.views
    assert (a.extra, a.missing, b.missing) == ((4,), (2, 8), (3,))


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


def test_a_single_slice_that_hides_some_of_itself_says_nothing_about_other_slices(
    scans, target, tmp_path
):
    export = tmp_path / "export"
    export_annotation(scans, plan=PLAN, tool="nifti", folder=export, single_slices=True)
    path = export / "labels" / "a_z0002.nii.gz"
    plane, geometry = read_label_map(path)
    plane[:] = 3
    plane[0, 2, 1:5] = 1
    write_label_map(path, plane, geometry)
    (export / "labels" / "b_z0003.nii.gz").unlink()

    summary = _import(scans, export, target)

    wanted = np.full(SHAPE, 3, np.uint8)
    wanted[2] = plane[0]
    assert np.array_equal(labels_in(target, "a"), wanted)
    a, b = summary.views
    assert (a.done, a.extra, a.missing, b.missing) == ((2,), (), (8,), (3,))
    a, b = _import(scans, export, target, planned_are_done=True).views
    assert (a.done, a.empty, b.missing) == ((2, 8), (8,), (3,))


def test_single_slices_that_cross_keep_what_was_drawn_and_refuse_what_differs(
    scans, target, tmp_path
):
    plan = make_plan({"a": {0: [5], 1: [4]}}, {"a": SHAPE})
    export = tmp_path / "export"
    export_annotation(scans, plan=plan, tool="nifti", folder=export, single_slices=True)
    path = export / "labels" / "a_z0005.nii.gz"
    _, geometry = read_label_map(path)
    write_label_map(path, np.ones(geometry.shape, np.uint8), geometry)

    summary = import_annotation(scans, plan=plan, returned=export, folder=target)

    assert (labels_in(target, "a")[5] == 1).all()
    assert [view.annotated for view in summary.views] == [(5,), ()]
    path = export / "labels" / "a_y0004.nii.gz"
    _, geometry = read_label_map(path)
    write_label_map(path, np.full(geometry.shape, 2, np.uint8), geometry)
    with pytest.raises(DatasetError, match="7 voxels drawn otherwise in a slice that crosses"):
        import_annotation(scans, plan=plan, returned=export, folder=target)
