"""Preprocessing of real scans: hippocampus MR, cardiac MR with scribbles, abdominal CT."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from skimage.transform import resize

from sparseunet.artifacts import read_json, write_json
from sparseunet.cli.main import main
from sparseunet.data.annotation import Annotation
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.image import Image
from sparseunet.data.io import read_annotation, read_image, read_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.data.load import load_dataset, parse_labels
from sparseunet.fingerprint.extract import extract_fingerprint
from sparseunet.planning.make_plan import make_plan
from sparseunet.planning.nnunet_plans import plan_from_nnunet
from sparseunet.preprocessing.case import preprocess_case
from sparseunet.preprocessing.dataset import preprocess_dataset
from sparseunet.preprocessing.interpolation import separate_axis
from sparseunet.preprocessing.restore import restore_labels
from sparseunet.preprocessing.store import CaseStore


def one_hot(labels_ZYX, labels):
    return np.stack([labels_ZYX == value for value in labels.values]).astype(np.float32)


def dice(first, second):
    return 2 * np.logical_and(first, second).sum() / (first.sum() + second.sum())


def some_cases(data_root, name, count):
    dataset = load_dataset(data_root / name)
    return replace(dataset, cases=dataset.cases[:: len(dataset.cases) // count][:count])


@pytest.fixture(scope="module")
def acdc_scribbles(data_root):
    dataset = some_cases(data_root, "Dataset027_ACDC", 3)
    description = read_json(dataset.folder / "dataset_scribble.json")
    cases = tuple(
        replace(case, label=dataset.folder / "labelsTr_scribble" / case.label.name)
        for case in dataset.cases
    )
    return replace(dataset, cases=cases, labels=parse_labels(description), description=description)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_hippocampus_keeps_its_grid_and_comes_back_unchanged(data_root, tmp_path, configuration):
    dataset = some_cases(data_root, "Dataset004_Hippocampus", 6)
    reference = data_root.parent / "reference" / "hippocampus_real"
    plan = plan_from_nnunet(read_json(reference / "nnUNetPlans.json"))
    chosen = plan.configurations[configuration]
    (summary,) = preprocess_dataset(
        dataset, plan=plan, configurations=[chosen], folder=tmp_path, num_workers=2
    )
    assert (summary.num_cases, summary.num_dense_cases) == (6, 6)
    store = CaseStore(tmp_path / chosen.data_identifier)
    for case in dataset.cases:
        stored = store.read(case.name)
        labels_ZYX, _ = read_label_map(case.label)
        image = read_image(case.images)
        assert stored.image_CZYX.mean() == pytest.approx(0, abs=1e-3)
        assert stored.image_CZYX.std() == pytest.approx(1, abs=1e-3)
        assert stored.restoration.geometry == image.geometry
        restored_ZYX = restore_labels(
            one_hot(stored.annotation.labels_ZYX, dataset.labels),
            stored.restoration,
            labels=dataset.labels,
        )
        assert np.array_equal(restored_ZYX, labels_ZYX)


def test_scribbles_of_the_heart_survive_on_a_coarser_and_a_finer_grid(acdc_scribbles):
    plan = make_plan(
        extract_fingerprint(acdc_scribbles, num_workers=2),
        dataset_json=acdc_scribbles.description,
        dataset_name=acdc_scribbles.name,
    )
    planned = plan.configurations["3d_fullres"]
    for case in acdc_scribbles.cases:
        image = read_image(case.images)
        annotation, _ = read_annotation(case.label, acdc_scribbles.labels)
        for factor in [0.6, 1.0, 1.7]:
            spacing_mm = tuple(factor * size for size in planned.spacing_mm)
            result = preprocess_case(
                case.name,
                image,
                annotation,
                plan=plan,
                configuration=replace(planned, spacing_mm=spacing_mm),
            )
            after = result.annotation
            start, size = result.restoration.crop_start, result.restoration.crop_shape
            box = tuple(slice(first, first + n) for first, n in zip(start, size, strict=True))
            before_ZYX = annotation.annotated_ZYX[box]
            assert 0 < after.annotated_ZYX.mean() < 3 * before_ZYX.mean()
            voxels = np.argwhere(before_ZYX)
            ratio = np.asarray(after.labels_ZYX.shape) / np.asarray(size)
            nearest = np.floor((voxels + 0.5) * ratio + 1e-9).astype(int)
            nearest = np.minimum(nearest, np.asarray(after.labels_ZYX.shape) - 1)
            assert after.annotated_ZYX[tuple(nearest.T)].all()


def test_the_heart_is_the_same_image_with_dense_labels_scribbles_or_none(data_root, acdc_scribbles):
    plan = make_plan(
        extract_fingerprint(acdc_scribbles, num_workers=2),
        dataset_json=acdc_scribbles.description,
        dataset_name=acdc_scribbles.name,
    )
    chosen = replace(plan.configurations["3d_fullres"], spacing_mm=(7.0, 1.3, 1.3))
    case = acdc_scribbles.cases[0]
    image = read_image(case.images)
    scribbles, _ = read_annotation(case.label, acdc_scribbles.labels)
    dense_ZYX, _ = read_label_map(case.label.parent.parent / "labelsTr" / case.label.name)
    dense = Annotation.from_label_map(dense_ZYX, ignore=None)
    results = [
        preprocess_case(case.name, image, annotation, plan=plan, configuration=chosen)
        for annotation in (None, scribbles, dense)
    ]
    assert len({result.image_CZYX.tobytes() for result in results}) == 1
    (image_ZYX,) = results[0].image_CZYX
    assert np.isfinite(image_ZYX).all()
    assert separate_axis(image.geometry.spacing_mm, (7.0, 1.3, 1.3)) == 0
    restored_ZYX = restore_labels(
        one_hot(results[2].annotation.labels_ZYX, acdc_scribbles.labels),
        results[2].restoration,
        labels=acdc_scribbles.labels,
    )
    for value in (1, 2, 3):
        assert dice(restored_ZYX == value, dense_ZYX == value) > 0.9


@pytest.fixture(scope="module")
def spleen(data_root):
    folder = data_root / "example_spleen_ct"
    case = Case(
        name="spleen2", images=(folder / "spleen2_0000.nii.gz",), label=folder / "spleen2.nii.gz"
    )
    return Dataset(
        folder=folder,
        name="Dataset009_Spleen",
        channel_names=("CT",),
        labels=LabelSchema(classes={"background": 0, "spleen": 1}, regions={}),
        file_ending=".nii.gz",
        cases=(case,),
        description={
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "spleen": 1},
            "numTraining": 1,
            "file_ending": ".nii.gz",
        },
    )


def test_a_ct_of_the_spleen_is_clipped_and_resampled_as_the_rules_say(spleen):
    plan = make_plan(
        extract_fingerprint(spleen, num_workers=1),
        dataset_json=spleen.description,
        dataset_name=spleen.name,
    )
    (case,) = spleen.cases
    image = read_image(case.images)
    annotation, _ = read_annotation(case.label, spleen.labels)
    chosen = replace(plan.configurations["3d_fullres"], spacing_mm=(3.0, 1.0, 1.0))
    result = preprocess_case(case.name, image, annotation, plan=plan, configuration=chosen)
    (statistics,) = plan.intensities
    low, high = statistics.percentile_00_5, statistics.percentile_99_5
    expected_ZYX = (np.clip(image.voxels_CZYX[0], low, high) - statistics.mean) / statistics.std
    (image_ZYX,) = result.image_CZYX
    assert image_ZYX.shape == (43, 132, 130)
    assert image_ZYX.min() >= expected_ZYX.min() - 1e-5
    assert image_ZYX.max() <= expected_ZYX.max() + 1e-5
    start, size = result.restoration.crop_start, result.restoration.crop_shape
    assert (start, size) == ((0, 0, 0), image.geometry.shape)
    slice_YX = resize(expected_ZYX[13], (132, 130), 3, mode="edge", anti_aliasing=False)
    nearest = [row for row in range(43) if int((row + 0.5) * 26 / 43) == 13]
    for row in nearest:
        assert np.allclose(image_ZYX[row], slice_YX, atol=1e-3)
    restored_ZYX = restore_labels(
        one_hot(result.annotation.labels_ZYX, spleen.labels),
        result.restoration,
        labels=spleen.labels,
    )
    assert dice(restored_ZYX == 1, annotation.labels_ZYX == 1) > 0.97


def test_every_single_annotated_slice_of_the_spleen_survives_any_spacing(spleen):
    plan = make_plan(
        extract_fingerprint(spleen, num_workers=1),
        dataset_json=spleen.description,
        dataset_name=spleen.name,
    )
    (case,) = spleen.cases
    image = read_image(case.images)
    dense, _ = read_annotation(case.label, spleen.labels)
    thinned_CZYX = image.voxels_CZYX[:, :, ::8, ::8]
    geometry = replace(image.geometry, shape=thinned_CZYX.shape[1:])
    small = Image(voxels_CZYX=thinned_CZYX, geometry=geometry)
    for spacing_mm in [9.7, 7.0, 6.1, 3.3, 1.9]:
        chosen = replace(plan.configurations["3d_fullres"], spacing_mm=(spacing_mm, 1.0, 1.0))
        for index in range(0, 26, 5):
            sparse_ZYX = np.full(small.geometry.shape, 9, np.uint8)
            sparse_ZYX[index] = dense.labels_ZYX[index, ::8, ::8]
            annotation = Annotation.from_label_map(sparse_ZYX, ignore=9)
            result = preprocess_case("s", small, annotation, plan=plan, configuration=chosen)
            slices = result.annotation.annotated_slices(0)
            position = (slices + 0.5) * 26 / result.annotation.labels_ZYX.shape[0] - 0.5
            assert len(slices) >= 1
            assert np.abs(position - index).max() <= max(0.5, 0.5 * spacing_mm / 5.0) + 1e-6


@pytest.fixture
def workspace(data_root, tmp_path_factory):
    """Six cases, for one test alone, since one of them adds a case."""
    root = tmp_path_factory.mktemp("workspace")
    source = data_root / "Dataset004_Hippocampus"
    target = root / "raw" / source.name
    (target / "imagesTr").mkdir(parents=True)
    (target / "labelsTr").mkdir()
    description = read_json(source / "dataset.json")
    names = sorted(path.name for path in (source / "labelsTr").glob("*.nii.gz"))[:6]
    for name in names:
        shutil.copyfile(source / "labelsTr" / name, target / "labelsTr" / name)
        image = name.replace(".nii.gz", "_0000.nii.gz")
        shutil.copyfile(source / "imagesTr" / image, target / "imagesTr" / image)
    (target / "dataset.json").write_text(
        str({**description, "numTraining": 6}).replace("'", '"'), encoding="utf-8"
    )
    return root


def test_plan_and_preprocess_makes_everything_training_needs(workspace, capsys):
    command = ["--workspace", str(workspace), "plan_and_preprocess", "-d", "4", "-np", "2"]
    assert main([*command, "-c", "2d", "3d_fullres"]) == 0
    printed = capsys.readouterr().out
    assert "accepted, 6 cases" in printed
    assert "3d_fullres: 6 cases, all annotated densely" in printed
    folder = workspace / "preprocessed" / "Dataset004_Hippocampus"
    assert {path.name for path in folder.iterdir()} == {
        "dataset.json",
        "dataset_fingerprint.json",
        "examined",
        "gt_segmentations",
        "label_density.json",
        "nnUNetPlans.json",
        "nnUNetPlans_2d",
        "nnUNetPlans_3d_fullres",
        "nnUNetPlans_report.md",
        "splits_final.json",
    }
    assert len(CaseStore(folder / "nnUNetPlans_3d_fullres").cases) == 6
    assert len(read_json(folder / "splits_final.json")) == 5
    raw = workspace / "raw" / "Dataset004_Hippocampus" / "labelsTr"
    for path in raw.iterdir():
        assert (folder / "gt_segmentations" / path.name).read_bytes() == path.read_bytes()
    assert main(command) == 0
    assert "6 cases, 6 unchanged" in capsys.readouterr().out


def test_a_configuration_the_plan_does_not_have_is_refused_with_those_it_has(workspace, capsys):
    command = ["--workspace", str(workspace), "plan_and_preprocess", "-d", "4"]
    assert main([*command, "-c", "2d", "3d_lowres"]) == 2
    assert "no configuration 3d_lowres; it has: 2d, 3d_fullres" in capsys.readouterr().err
    preprocess = ["--workspace", str(workspace), "preprocess", "-d", "4", "-c", "4d"]
    assert main(preprocess) == 2
    assert "no configuration 4d" in capsys.readouterr().err


def test_preprocess_without_plans_says_what_to_run_first(workspace, capsys):
    command = ["--workspace", str(workspace), "preprocess", "-d", "4", "-pl", "otherPlans"]
    assert main(command) == 2
    assert "otherPlans.json does not exist. Run sparseunet plan_experiment" in (
        capsys.readouterr().err
    )


def test_an_existing_split_is_kept_and_a_new_case_joins_it(workspace, data_root):
    raw = workspace / "raw" / "Dataset004_Hippocampus"
    command = ["--workspace", str(workspace), "plan_and_preprocess", "-d", "4", "-c", "2d"]
    assert main(command) == 0
    path = workspace / "preprocessed" / "Dataset004_Hippocampus" / "splits_final.json"
    mine = [{"train": split["train"][::-1], "val": split["val"]} for split in read_json(path)]
    write_json(path, mine)
    assert main(command) == 0
    assert read_json(path) == mine
    names = {name for split in mine for name in (*split["train"], *split["val"])}
    source = data_root / "Dataset004_Hippocampus"
    image = next(
        file
        for file in sorted((source / "imagesTr").iterdir())
        if file.name.removesuffix("_0000.nii.gz") not in names
    )
    new = image.name.removesuffix("_0000.nii.gz")
    shutil.copy(image, raw / "imagesTr")
    shutil.copy(source / "labelsTr" / f"{new}.nii.gz", raw / "labelsTr")
    write_json(raw / "dataset.json", read_json(raw / "dataset.json") | {"numTraining": 7})
    assert main(command) == 0
    extended = read_json(path)
    assert [new in split["val"] for split in extended].count(True) == 1
    for before, after in zip(mine, extended, strict=True):
        assert set(before["train"]) <= set(after["train"])
        assert set(before["val"]) <= set(after["val"])


def test_a_rejected_dataset_is_not_preprocessed(data_root, tmp_path, capsys):
    bad = data_root.parent / "bad_inputs" / "02_shape_mismatch"
    folder = next(path.parent for path in [*bad.rglob("dataset.json")])
    target = tmp_path / "raw" / "Dataset902_Bad"
    shutil.copytree(folder, target)
    assert main(["--workspace", str(tmp_path), "plan_and_preprocess", "-d", "902"]) == 2
    assert "rejected" in capsys.readouterr().out
    written = (tmp_path / "preprocessed" / "Dataset902_Bad").rglob("*")
    assert {path.relative_to(tmp_path).parts[2] for path in written} == {"examined"}
