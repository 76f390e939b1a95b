import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from phantoms import blobs, box, intensities

from sparseunet.annotation.allocation import count_for_density
from sparseunet.annotation.simulate import hide_slices, simulate_annotation
from sparseunet.cli.main import main
from sparseunet.data.annotation import Annotation
from sparseunet.data.annotation_record import (
    AnnotationRecord,
    AnnotationRecords,
    read_annotation_records,
    write_annotation_records,
)
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_label_map, write_image, write_label_map
from sparseunet.data.load import load_dataset
from sparseunet.errors import RequestError

SHAPE = (12, 9, 7)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(3.0, 0.8, 0.7), origin_mm=(-5.0, 4.0, 30.5))


def _labels(seed: int) -> np.ndarray:
    """Blobs in the middle third of the slices, so that others are empty."""
    middle = box(SHAPE, start=(4, 0, 0), stop=(8, *SHAPE[1:]))
    return np.where(middle, blobs(SHAPE, seed=seed), 0).astype(np.uint8)


def _make_dataset(
    folder: Path, *, names=("a", "b"), classes=None, labels_of=_labels, file_ending=".nii.gz"
) -> Path:
    for index, name in enumerate(names):
        labels_ZYX = labels_of(index)
        for part in ("Tr", "Ts"):
            image = folder / f"images{part}" / f"{name}_0000{file_ending}"
            write_image(image, intensities(labels_ZYX, seed=index), GEOMETRY)
            write_label_map(folder / f"labels{part}" / f"{name}{file_ending}", labels_ZYX, GEOMETRY)
    description = {
        "channel_names": {"0": "CT"},
        "labels": classes or {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": len(names),
        "file_ending": file_ending,
        "licence": "none",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def _simulate(source: Path, target: Path, **changes):
    options = {"density": 0.25, "selector": "fixed", "axis": 0, "seed": 0}
    return simulate_annotation(load_dataset(source), folder=target, **{**options, **changes})


@pytest.mark.parametrize(
    ("num_slices", "density", "count"),
    [(35, 0.1, 4), (25, 0.1, 2), (9, 0.01, 1), (1, 0.5, 1), (7, 1.0, 7), (30, 0.05, 2)],
)
def test_a_density_is_rounded_to_slices_but_never_to_none(num_slices, density, count):
    assert count_for_density(num_slices, density=density) == count


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_hiding_slices_leaves_the_kept_ones_alone_and_the_others_unannotated(axis):
    dense = Annotation.from_label_map(blobs(SHAPE, seed=1), ignore=None)

    sparse = hide_slices(dense, keep=(1, 4), axis=axis)

    assert sparse.annotated_slices(axis).tolist() == [1, 4]
    assert sparse.annotated_ZYX.sum() == 2 * np.prod(SHAPE) / SHAPE[axis]
    kept = np.take(sparse.labels_ZYX, [1, 4], axis)
    assert np.array_equal(kept, np.take(dense.labels_ZYX, [1, 4], axis))
    assert dense.is_dense


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_new_dataset_holds_the_chosen_slices_and_nothing_else(tmp_path, axis):
    source = _make_dataset(tmp_path / "Dataset001_Dense")

    summary = _simulate(source, tmp_path / "Dataset002_Sparse", axis=axis)

    made = load_dataset(tmp_path / "Dataset002_Sparse")
    assert made.labels.ignore == summary.ignore == 3
    assert made.labels.classes == load_dataset(source).labels.classes
    assert made.description["licence"] == "none"
    for case in made.cases:
        dense_ZYX, dense_geometry = read_label_map(source / "labelsTr" / case.label.name)
        sparse_ZYX, geometry = read_label_map(case.label)
        record = summary.records.cases[case.name]
        assert geometry == dense_geometry
        assert sparse_ZYX.dtype == dense_ZYX.dtype
        for index in range(SHAPE[axis]):
            expected = np.take(dense_ZYX, index, axis)
            if index not in record.annotated_slices:
                expected = np.full_like(expected, 3)
            assert np.array_equal(np.take(sparse_ZYX, index, axis), expected)
    assert summary.num_slices == 2 * SHAPE[axis]
    assert summary.num_kept_slices == 2 * count_for_density(SHAPE[axis], density=0.25)


def test_classes_nobody_looked_for_stay_so_in_the_copy(tmp_path):
    source = _make_dataset(tmp_path / "Dataset001_Dense")
    first, second = sorted(case.name for case in load_dataset(source).cases)
    record = AnnotationRecord(
        axis=0, num_slices=12, annotated_slices=tuple(range(12)), annotated_classes=("organ",)
    )
    write_annotation_records(source / "annotation.json", AnnotationRecords(cases={first: record}))

    summary = _simulate(source, tmp_path / "Dataset002_Sparse")

    assert summary.records.cases[first].annotated_classes == ("organ",)
    assert summary.records.cases[second].annotated_classes == ("organ", "lesion")


def test_kept_slices_without_any_object_are_recorded_as_reviewed_empty(tmp_path):
    source = _make_dataset(tmp_path / "Dataset001_Dense")

    summary = _simulate(source, tmp_path / "Dataset002_Sparse", density=0.5)

    for record in summary.records.cases.values():
        assert record.annotated_slices == (1, 3, 5, 7, 9, 11)
        assert record.reviewed_empty_slices == (1, 3, 9, 11)
        assert record.annotated_classes == ("organ", "lesion")
        assert (record.axis, record.num_slices, record.source) == (0, 12, "manual")
    records = read_annotation_records(tmp_path / "Dataset002_Sparse" / "annotation.json")
    assert records == summary.records
    assert (records.selector, records.density, records.seed) == ("fixed", 0.5, 0)
    assert records.provenance == {"simulated_from": "Dataset001_Dense"}


def test_images_and_test_data_are_the_very_same_files(tmp_path):
    source = _make_dataset(tmp_path / "Dataset001_Dense", names=("Fälle 肝 'a' & [b]", "b"))
    target = tmp_path / "Dataset002_Sparse"

    _simulate(source, target)

    for folder in ("imagesTr", "imagesTs", "labelsTs"):
        names = sorted(path.name for path in (source / folder).iterdir())
        assert sorted(path.name for path in (target / folder).iterdir()) == names
        for name in names:
            assert (target / folder / name).samefile(source / folder / name)
    assert not (target / "labelsTr" / "b.nii.gz").samefile(source / "labelsTr" / "b.nii.gz")


def test_the_voxel_size_beside_a_tiff_comes_along(tmp_path):
    source = _make_dataset(tmp_path / "Dataset001_Dense", file_ending=".tif")
    target = tmp_path / "Dataset002_Sparse"

    _simulate(source, target)

    _, geometry = read_label_map(target / "labelsTr" / "a.tif")
    assert geometry.spacing_mm == GEOMETRY.spacing_mm
    assert (target / "imagesTr" / "a_0000.json").samefile(source / "imagesTr" / "a_0000.json")


def test_a_declared_ignore_value_is_kept_and_so_are_the_voxels_that_have_it(tmp_path):
    def scribbled(seed: int) -> np.ndarray:
        labels_ZYX = _labels(seed)
        labels_ZYX[:, :3] = 3
        labels_ZYX[5] = 3
        return labels_ZYX

    classes = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
    source = _make_dataset(tmp_path / "Dataset001_Part", classes=classes, labels_of=scribbled)

    summary = _simulate(source, tmp_path / "Dataset002_Sparse", density=1.0)

    assert summary.ignore == 3
    for index, (name, record) in enumerate(summary.records.cases.items()):
        sparse_ZYX, _ = read_label_map(
            tmp_path / "Dataset002_Sparse" / "labelsTr" / f"{name}.nii.gz"
        )
        assert np.array_equal(sparse_ZYX, scribbled(index))
        assert 5 not in record.annotated_slices
        assert len(record.annotated_slices) == SHAPE[0] - 1


def test_regions_get_an_ignore_value_above_all_their_labels(tmp_path):
    classes = {"background": 0, "whole": [1, 2], "core": 2}
    source = _make_dataset(tmp_path / "Dataset001_Regions", classes=classes)
    content = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps(content | {"regions_class_order": [1, 2]}))

    summary = _simulate(source, tmp_path / "Dataset002_Sparse")

    made = load_dataset(summary.folder)
    assert (summary.ignore, made.labels.ignore) == (3, 3)
    assert made.labels.regions == {"whole": (1, 2), "core": (2,)}


def test_an_ignore_value_above_255_is_not_cut_off(tmp_path):
    classes = {"background": 0} | {f"class {value}": value for value in range(1, 256)}
    source = _make_dataset(tmp_path / "Dataset001_Many", classes=classes)

    summary = _simulate(source, tmp_path / "Dataset002_Sparse")

    sparse_ZYX, _ = read_label_map(summary.folder / "labelsTr" / "a.nii.gz")
    assert summary.ignore == 256
    assert (sparse_ZYX == 256).sum() == 9 * SHAPE[1] * SHAPE[2]


def test_the_same_request_gives_the_same_bytes(tmp_path):
    source = _make_dataset(tmp_path / "Dataset001_Dense")
    for name in ("Dataset002_First", "Dataset003_Second"):
        _simulate(source, tmp_path / name)

    for file in ("labelsTr/a.nii.gz", "labelsTr/b.nii.gz", "dataset.json", "annotation.json"):
        first, second = (
            tmp_path / name / file for name in ("Dataset002_First", "Dataset003_Second")
        )
        assert first.read_bytes() == second.read_bytes()


def test_nothing_is_left_behind_when_a_label_map_cannot_be_read(tmp_path):
    source = _make_dataset(tmp_path / "Dataset001_Dense")
    broken = source / "labelsTr" / "b.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-40])

    with pytest.raises(RequestError, match=r"b\.nii\.gz"):
        _simulate(source, tmp_path / "new" / "Dataset002_Sparse")

    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"density": 0.0}, "density 0.0"),
        ({"density": 1.01}, "density 1.01"),
        ({"density": float("nan")}, "density nan"),
        ({"axis": 3}, "axis 3"),
        ({"axis": -1}, "axis -1"),
        ({"selector": "best"}, "no selector 'best'; choose from staggered, fixed"),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(tmp_path, changes, message):
    source = _make_dataset(tmp_path / "Dataset001_Dense")

    with pytest.raises(RequestError, match=message):
        _simulate(source, tmp_path / "Dataset002_Sparse", **changes)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["Dataset001_Dense"]


def test_an_existing_folder_is_not_touched(tmp_path):
    source = _make_dataset(tmp_path / "Dataset001_Dense")
    (tmp_path / "Dataset002_Sparse").mkdir()

    with pytest.raises(RequestError, match="exists already"):
        _simulate(source, tmp_path / "Dataset002_Sparse")

    assert list((tmp_path / "Dataset002_Sparse").iterdir()) == []


def test_2d_images_have_no_slices_to_hide(tmp_path, data_root):
    dataset = load_dataset(data_root / "Dataset120_ISBI2012EM")

    with pytest.raises(RequestError, match="2D images"):
        simulate_annotation(
            dataset, density=0.1, selector="fixed", axis=0, seed=0, folder=tmp_path / "Dataset002_S"
        )


def test_the_command_keeps_one_slice_in_ten_of_the_hippocampus(tmp_path, data_root, capsys):
    source = data_root / "Dataset004_Hippocampus"
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / source.name).symlink_to(source)
    words = [
        "simulate_annotation",
        "--workspace",
        str(tmp_path),
        "-d",
        "4",
        "-o",
        "Dataset010_Hip10",
    ]

    assert main([*words, "--density", "0.1", "--selector", "fixed", "--axis", "0"]) == 0

    assert "727 of 7151 slices kept" in capsys.readouterr().out
    made = tmp_path / "raw" / "Dataset010_Hip10"
    for dense_file in sorted((source / "labelsTr").iterdir())[::20]:
        dense = SimpleITK.ReadImage(str(dense_file))
        sparse = SimpleITK.ReadImage(str(made / "labelsTr" / dense_file.name))
        expected_ZYX = np.full(dense.GetSize()[::-1], 3)
        depth = dense.GetSize()[2]
        count = max(1, round(0.1 * depth))
        for index in range(count):
            kept = int((index + 0.5) * depth / count)
            expected_ZYX[kept] = SimpleITK.GetArrayFromImage(dense)[kept]
        assert np.array_equal(SimpleITK.GetArrayFromImage(sparse), expected_ZYX)
        assert sparse.GetPixelID() == dense.GetPixelID()
        assert sparse.GetOrigin() == pytest.approx(dense.GetOrigin())
        assert sparse.GetSpacing() == pytest.approx(dense.GetSpacing())
        assert sparse.GetDirection() == pytest.approx(dense.GetDirection())
    assert main([*words, "--density", "0.1"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words[:-1], "Dataset011_None", "--density", "0"]) == 2
    assert not (tmp_path / "raw" / "Dataset011_None").exists()
