"""`predict -m`, `import_model` and `export_model`: the same model answers the same everywhere."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_series import write_series
from frozen_models import DATASET, write_model_folder
from phantoms import blobs, intensities

from sparseunet import (
    PredictionOptions,
    load_model,
    predict_image,
    predict_image_probabilities,
)
from sparseunet.artifacts import read_json, to_json, write_json
from sparseunet.cli.main import main
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_image, read_label_map, write_image
from sparseunet.errors import RequestError
from sparseunet.networks.checkpoint import read_checkpoint
from sparseunet.networks.trained_model import load_network
from sparseunet.runs.exchange.nnunet_model import load_nnunet_model
from sparseunet.workspace import Workspace

OURS = "Dataset004_Hippocampus"
FAST = ["-device", "cpu", "--precision", "float32", "-np", 1, "--disable-tta", "--step-size", 1]


class Opens:
    """Pickled, a call that leaves a file behind where it is run."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


@pytest.fixture
def scan(tmp_path):
    geometry = Geometry(shape=(9, 14, 13), spacing_mm=(1.0, 1.0, 1.0))
    voxels_ZYX = intensities(blobs(geometry.shape, seed=3), seed=3)
    path = tmp_path / "in" / "scan_0000.nii.gz"
    write_image(path, voxels_ZYX, geometry)
    return path


@pytest.fixture
def theirs(tmp_path):
    """A model folder of nnU-Net with two folds."""
    return write_model_folder(tmp_path / "theirs", "plain_3d", folds=(0, 1))


@pytest.fixture
def ours(write_run, tmp_path):
    """A run of ours with two folds."""
    folder = Workspace.at(tmp_path).run_folder(OURS, "3d_fullres", "run-1")
    return write_run(folder, folds=(0, 1))


def _run(tmp_path, *words):
    return main(["--workspace", str(tmp_path), *map(str, words)])


def _predict(tmp_path, scan, *words):
    """Predict and return the labels, and what the folder says about where they come from."""
    out = tmp_path / "out"
    assert _run(tmp_path, "predict", "-i", scan, "-o", out, "--overwrite", *FAST, *words) == 0
    return read_label_map(out / "scan.nii.gz")[0], read_json(out / "prediction.json")


def test_a_model_of_nnunet_predicts_the_same_as_folder_as_zip_and_imported(
    theirs, scan, tmp_path, capsys
):
    direct, said = _predict(tmp_path, scan, "-m", theirs)
    assert set(np.unique(direct)) == {0, 1, 2}
    assert said["run_folder"] == str(theirs)
    assert [weight["file"] for weight in said["weights"]] == [
        "fold_0/checkpoint_final.pth",
        "fold_1/checkpoint_final.pth",
    ]
    zipped = shutil.make_archive(str(tmp_path / "theirs"), "zip", tmp_path / "theirs")
    from_zip, said_of_zip = _predict(tmp_path, scan, "-m", zipped)
    assert np.array_equal(from_zip, direct)
    assert said_of_zip["run_folder"] == zipped
    assert said_of_zip["weights"] == said["weights"]

    assert _run(tmp_path, "import_model", zipped, "-d", 7, "--run", "foreign") == 0
    assert "licence: CC0" in capsys.readouterr().out
    imported, _ = _predict(tmp_path, scan, "-d", 7, "-c", "3d_fullres", "--run", "foreign")
    assert np.array_equal(imported, direct)


def test_a_model_that_is_loaded_once_gives_what_the_command_gives(theirs, ours, scan, tmp_path):
    image = read_image([scan])
    options = PredictionOptions(device="cpu", precision="float32", mirror=False, step=1)
    zipped = shutil.make_archive(str(tmp_path / "theirs"), "zip", tmp_path / "theirs")
    for place in (theirs, zipped, ours):
        expected_ZYX, _ = _predict(tmp_path, scan, "-m", place)
        model = load_model(place, options=options)
        voxels_CZYX, spacing_mm = image.voxels_CZYX, image.geometry.spacing_mm
        for _ in range(2):
            assert np.array_equal(predict_image(model, image), expected_ZYX)
            again_ZYX = predict_image(model, voxels_CZYX[0], spacing_mm=spacing_mm)
            assert np.array_equal(again_ZYX, expected_ZYX)
        probabilities_KZYX = predict_image_probabilities(model, image)
        assert np.array_equal(probabilities_KZYX.argmax(axis=0), expected_ZYX)


def test_the_folds_and_the_model_of_a_place_can_be_chosen(theirs, ours):
    assert len(load_model(theirs).networks) == 2
    assert len(load_model(theirs, folds=[1]).networks) == 1
    with pytest.raises(RequestError, match="no model of configuration 2d"):
        load_model(ours, configuration="2d")
    with pytest.raises(RequestError, match="give the options to load_model"):
        predict_image(load_model(ours), np.zeros((8, 8, 8)), options=PredictionOptions())


def test_an_imported_model_is_a_run_with_its_origin(theirs, tmp_path, capsys):
    assert _run(tmp_path, "import_model", theirs) == 0
    (folder,) = (tmp_path / "results" / DATASET / "3d_fullres").iterdir()
    assert folder.name.startswith("nnunet-")
    description = read_json(folder / "fold_1" / "run.json")
    assert description["run_id"] == folder.name
    assert description["imported_from"]["model"] == "nnUNetTrainer__nnUNetPlans__3d_fullres"
    assert description["dataset_json"]["licence"] == "CC0"
    weights = read_checkpoint(folder / "fold_0" / "checkpoint_final.pt")["weights"]
    model = load_nnunet_model(theirs, [0])
    same = load_network(model, model.checkpoints[0]).state_dict()
    assert all(weights[name].equal(same[name]) for name in same)

    assert _run(tmp_path, "import_model", theirs) == 2
    assert "--run" in capsys.readouterr().err
    assert _run(tmp_path, "import_model", theirs, "--run", "again", "-f", 1) == 0
    assert [path.name for path in (folder.parent / "again").iterdir()] == ["fold_1"]
    assert _run(tmp_path, "import_model", theirs, "-d", "Dataset009_Other") == 0
    assert (tmp_path / "results" / "Dataset009_Other" / "3d_fullres" / folder.name).is_dir()


def test_both_stages_of_a_cascade_come_along_and_predict_the_same(scan, tmp_path, capsys):
    second = write_model_folder(tmp_path / "theirs", "second_stage_3d")
    write_model_folder(tmp_path / "theirs", "plain_3d", configuration="3d_lowres")
    direct, _ = _predict(tmp_path, scan, "-m", second)
    assert "First stage" in capsys.readouterr().out

    assert _run(tmp_path, "import_model", second) == 0
    results = tmp_path / "results" / DATASET
    (run,) = (results / "3d_cascade_fullres").iterdir()
    assert (results / "3d_lowres").is_dir()
    assert np.array_equal(_predict(tmp_path, scan, "-m", run)[0], direct)

    file = tmp_path / "both.zip"
    words = ["export_model", "-d", 7, "-c", "3d_cascade_fullres", "-o"]
    assert _run(tmp_path, *words, file) == 0
    assert np.array_equal(_predict(tmp_path, scan, "-m", file)[0], direct)
    assert _run(tmp_path / "elsewhere", "import_model", file) == 0
    copy = tmp_path / "elsewhere" / "results" / DATASET / "3d_cascade_fullres" / run.name
    assert np.array_equal(_predict(tmp_path, scan, "-m", copy)[0], direct)
    assert _run(tmp_path / "elsewhere", "import_model", file, "--run", "again") == 0

    assert _run(tmp_path, *words, tmp_path / "nnunet", "--as", "nnunet") == 0
    words = ["-m", tmp_path / "nnunet", "-c", "3d_cascade_fullres"]
    assert np.array_equal(_predict(tmp_path, scan, *words)[0], direct)


def test_only_the_last_stage_of_a_cascade_is_written_as_dicom_seg(tmp_path):
    second = write_model_folder(tmp_path / "theirs", "second_stage_3d")
    write_model_folder(tmp_path / "theirs", "plain_3d", configuration="3d_lowres")
    series, out = tmp_path / "series", tmp_path / "out"
    voxels_ZYX = intensities(blobs((9, 20, 21), seed=0), seed=0)
    write_series(series, voxels_ZYX, spacing_mm=(2.0, 1.0, 1.0))
    words = ["predict", "-m", second, "-i", series, "-o", out, "--dicom-seg", *FAST]
    assert _run(tmp_path, *words) == 0
    assert (out / "3d_lowres" / "series.nii.gz").is_file()
    assert [path.name for path in out.rglob("*.dcm")] == ["series.dcm"]


def test_a_model_file_predicts_and_imports_the_same(ours, scan, tmp_path, capsys):
    direct, _ = _predict(tmp_path, scan, "-m", ours)
    file = tmp_path / "model.zip"
    words = ["export_model", "-d", 4, "-c", "3d_fullres", "-o", file, "--licence", "CC-BY 4.0"]
    assert _run(tmp_path, *words) == 0
    assert "CC-BY 4.0" in capsys.readouterr().out
    from_file, said = _predict(tmp_path, scan, "-m", file)
    assert np.array_equal(from_file, direct)
    assert said["run_folder"] == str(file)

    other = tmp_path / "elsewhere"
    assert _run(other, "import_model", file) == 0
    imported = other / "results" / OURS / "3d_fullres" / "run-1"
    assert np.array_equal(_predict(other, scan, "-m", imported)[0], direct)
    assert read_json(imported / "fold_0" / "run.json")["imported_from"]["file"] == "model.zip"

    assert _run(tmp_path, *words) == 2
    assert "not overwritten" in capsys.readouterr().err
    file.rename(tmp_path / "first.zip")
    assert _run(tmp_path, *words) == 0
    assert file.read_bytes() == (tmp_path / "first.zip").read_bytes()


def test_a_manifest_says_what_is_in_the_file(ours, tmp_path):
    description = read_json(ours / "fold_0" / "run.json")
    description["cases"] = {"train": ["a", "b"], "val": ["c"]}
    description["versions"] = {"torch": "2.9"}
    description["dataset_json"] |= {"licence": "CC0", "description": "Two brains."}
    write_json(ours / "fold_0" / "run.json", description)
    write_json(ours / "fold_0" / "validation" / "summary.json", {"foreground_mean": {"Dice": 0.5}})
    file = tmp_path / "model.zip"
    assert _run(tmp_path, "export_model", "-d", 4, "-c", "3d_fullres", "-f", 0, "-o", file) == 0
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("manifest.json"))
    assert names[0] == "manifest.json"
    assert set(names[1:]) == set(manifest["files"])
    assert manifest["licence"] == "CC0"
    assert manifest["description"] == "Two brains."
    assert manifest["training_data"]["num_cases"] == 2
    assert manifest["scores"] == {"0": {"Dice": 0.5}}
    assert manifest["versions"] == {"torch": "2.9"}
    assert manifest["model"] == "3d_fullres/run-1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: files | {"manifest.json": b"[" * 100_000}, "not valid JSON"),
        (lambda files: files | {"3d_fullres/run-1/fold_0/run.json": b"{}"}, "another SHA-256"),
        (lambda files: files | {"3d_fullres/run-1/fold_7/run.json": b"{}"}, "not in the manifest"),
        (
            lambda files: {name: data for name, data in files.items() if "fold_0" not in name},
            "is missing",
        ),
        (lambda files: files | {"manifest.json": b'{"kind": "x"}'}, "kind 'x'"),
        (lambda files: files | {"manifest.json": b"{"}, "not valid JSON"),
    ],
)
def test_a_model_file_that_was_changed_is_refused(ours, scan, tmp_path, capsys, change, words):
    file = tmp_path / "model.zip"
    assert _run(tmp_path, "export_model", "-d", 4, "-c", "3d_fullres", "-o", file) == 0
    with zipfile.ZipFile(file) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in change(files).items():
            archive.writestr(name, data)
    assert _run(tmp_path, "predict", "-i", scan, "-o", tmp_path / "out", "-m", file, *FAST) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": "../../../evil"},
        {"configuration": "3d_lowres"},
        {"training": {"mirror_axes": [7]}},
        {"training": None},
        {"plan": []},
        {"plan": None},
        {"dataset_json": {"labels": {"background": 0, "x": 1}, "file_ending": "/../x.nii.gz"}},
    ],
)
def test_a_description_that_no_training_wrote_is_refused(ours, scan, tmp_path, capsys, change):
    description = read_json(ours / "fold_0" / "run.json") | change
    (ours / "fold_0" / "run.json").write_text(to_json(description))
    assert _run(tmp_path, "predict", "-i", scan, "-o", tmp_path / "out", "-m", ours, *FAST) == 2
    assert capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["predict", "import_model"])
@pytest.mark.parametrize("wrong", ["weights", "code", "patch", "description"])
def test_a_hostile_or_damaged_model_of_nnunet_leaves_nothing_behind(
    theirs, scan, tmp_path, capsys, wrong, verb
):
    checkpoint, plans = theirs / "fold_0" / "checkpoint_final.pth", theirs / "plans.json"
    canary = tmp_path / "canary"
    content, planned = read_checkpoint(checkpoint), read_json(plans)
    if wrong == "weights":
        del content["network_weights"]["decoder.seg_layers.0.bias"]
    if wrong == "code":
        content["logging"] = Opens(canary)
    torch.save(content, checkpoint)
    if wrong == "patch":
        planned["configurations"]["3d_fullres"]["patch_size"] = [-8, 8, 8]
    write_json(plans, planned)
    if wrong == "description":
        (theirs / "dataset.json").unlink()
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    words = {
        "predict": ["-i", scan, "-o", tmp_path / "out", "-m", theirs, "-f", 0, *FAST],
        "import_model": [theirs, "-f", 0],
    }
    assert _run(tmp_path, verb, *words[verb]) == 2
    assert str(theirs) in capsys.readouterr().err
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("ending", ["", ".zip"])
def test_a_run_exported_for_nnunet_comes_back_the_same(ours, scan, tmp_path, ending):
    direct, _ = _predict(tmp_path, scan, "-m", ours, "-f", 0, 1)
    target = tmp_path / f"for_nnunet{ending}"
    words = ["export_model", "-d", 4, "-c", "3d_fullres", "-o", target, "--as", "nnunet"]
    assert _run(tmp_path, *words) == 0
    if ending:
        shutil.unpack_archive(target, tmp_path / "unpacked")
    root = (tmp_path / "unpacked" if ending else target) / OURS
    folder = root / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    checkpoints = {f"fold_{fold}/checkpoint_final.pth" for fold in (0, 1)}
    assert names == {"plans.json", "dataset.json", *checkpoints}
    content = read_checkpoint(folder / "fold_1" / "checkpoint_final.pth")
    assert content["trainer_name"] == "nnUNetTrainer"
    assert content["init_args"]["configuration"] == "3d_fullres"
    assert content["inference_allowed_mirroring_axes"] == (0, 1, 2)
    assert np.array_equal(_predict(tmp_path, scan, "-m", target)[0], direct)
    assert _run(tmp_path, *words) == 2


def test_what_export_cannot_do_is_said(ours, tmp_path, capsys):
    words = ["export_model", "-d", 4, "-c", "3d_fullres", "-o"]
    assert _run(tmp_path, *words, tmp_path / "model.tar") == 2
    assert "NAME.zip" in capsys.readouterr().err
    assert _run(tmp_path, *words, tmp_path / "x", "--as", "nnunet", "--licence", "CC0") == 2
    assert "no place" in capsys.readouterr().err
    assert _run(tmp_path, *words, tmp_path / "m.zip", "-f", 4) == 2
    assert _run(tmp_path, "import_model", tmp_path / "nowhere") == 2
    assert _run(tmp_path, "import_model", ours, "-d", 999) == 2
    assert _run(tmp_path, "import_model", ours, "--run", "../out") == 2
    assert "no name of a folder" in capsys.readouterr().err
