"""Scans without labels, in a raw dataset or in any folder."""

import json
from pathlib import Path

import numpy as np
import pytest

from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image, write_label_map
from sparseunet.data.load import load_dataset, load_scan_folder
from sparseunet.errors import DatasetError

GEOMETRY = Geometry(shape=(3, 4, 5), spacing_mm=(2.0, 1.0, 1.0))


def write_scans(folder: Path, *names: str) -> Path:
    for name in names:
        write_image(folder / name, np.zeros(GEOMETRY.shape, np.float32), GEOMETRY)
    return folder


def raw_dataset(root: Path, *, labelled: tuple[str, ...] = ()) -> Path:
    folder = root / "Dataset001_Part"
    write_scans(folder / "imagesTr", "a_0000.nii.gz", "b_0000.nii.gz", "c_0000.nii.gz")
    for name in labelled:
        labels_ZYX = np.zeros(GEOMETRY.shape, np.uint8)
        write_label_map(folder / "labelsTr" / f"{name}.nii.gz", labels_ZYX, GEOMETRY)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.mark.parametrize("labelled", [(), ("b",), ("a", "b", "c")])
def test_labels_may_be_missing_when_they_are_not_required(tmp_path, labelled):
    dataset = load_dataset(raw_dataset(tmp_path, labelled=labelled), needs_labels=False)
    assert [case.name for case in dataset.cases] == ["a", "b", "c"]
    assert tuple(case.name for case in dataset.cases if case.label is not None) == labelled
    assert all(len(case.images) == 1 for case in dataset.cases)


def test_for_training_they_are_required(tmp_path):
    with pytest.raises(DatasetError, match=r"labelsTr/a\.nii\.gz"):
        load_dataset(raw_dataset(tmp_path, labelled=("b", "c")))


def test_a_label_without_image_is_wrong_in_any_case(tmp_path):
    folder = raw_dataset(tmp_path, labelled=("d",))
    with pytest.raises(DatasetError, match="label without image"):
        load_dataset(folder, needs_labels=False)


@pytest.mark.parametrize(
    ("names", "cases", "num_channels"),
    [
        (("b_0000.nii.gz", "a_0000.nii.gz"), ["a", "b"], 1),
        (("a_0000.nrrd", "a_0001.nrrd", "b_0000.nrrd", "b_0001.nrrd"), ["a", "b"], 2),
        (("John Doe.nii", "Jane.nii"), ["Jane", "John Doe"], 1),
        (("p_0001.mha", "p_0002.mha"), ["p_0001", "p_0002"], 1),
        (("p_0000.mha", "p.mha"), ["p", "p_0000"], 1),
        (("only.nii.gz",), ["only"], 1),
        (("only_0000.nii.gz",), ["only"], 1),
    ],
)
def test_a_folder_of_scans_needs_no_description(tmp_path, names, cases, num_channels):
    folder = write_scans(tmp_path / "my scans", *names)
    (folder / "notes.txt").write_text("whatever")
    (folder / ".hidden.nii.gz").touch()
    dataset = load_scan_folder(folder)
    assert dataset.name == "my scans"
    assert [case.name for case in dataset.cases] == cases
    assert {len(case.images) for case in dataset.cases} == {num_channels}
    assert all(case.label is None and case.images[0].is_file() for case in dataset.cases)
    assert len(dataset.channel_names) == num_channels
    assert names[0].endswith(dataset.file_ending)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "found no scan"),
        (("a.nii.gz", "b.nrrd", "c.nrrd"), r"1 \.nii\.gz, 2 \.nrrd"),
        (("a_0000.nii.gz", "a_0001.nii.gz"), "channels of one scan, or scans"),
    ],
)
def test_a_folder_that_may_be_understood_in_several_ways_is_refused(tmp_path, names, message):
    write_scans(tmp_path, *names)
    with pytest.raises(DatasetError, match=message):
        load_scan_folder(tmp_path)


def test_a_folder_that_does_not_exist_holds_no_scan(tmp_path):
    with pytest.raises(DatasetError, match="found no scan"):
        load_scan_folder(tmp_path / "nowhere")
