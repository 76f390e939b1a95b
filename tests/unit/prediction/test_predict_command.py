"""`sparseunet predict` finds the model and the scans, or says what there is."""

import os
import shutil
import sys

import numpy as np
import pydicom
import pytest
import torch
from dicom_series import write_series
from phantoms import blobs, intensities
from read_dicom_seg import assert_same_voxels

from sparseunet.artifacts import read_json
from sparseunet.cli.main import main
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_label_map, write_image
from sparseunet.errors import RequestError
from sparseunet.runs.find import default_folds, find_run, find_runs
from sparseunet.workspace import Workspace

NAME = "Dataset004_Hippocampus"
FAST = ["--disable_tta", "-device", "cpu", "--precision", "float32", "-np", "1"]


@pytest.fixture
def trained(write_run, tmp_path):
    """Three runs, finished in the order old, new, other; the last in another configuration."""
    workspace = Workspace.at(tmp_path)
    runs = [("3d_fullres", "old", (0, 1)), ("3d_fullres", "new", (0, "all")), ("2d", "other", (0,))]
    for time_s, (configuration, name, folds) in enumerate(runs, start=1):
        folder = write_run(
            workspace.run_folder(NAME, configuration, name),
            folds=folds,
            dimensions=2 if configuration == "2d" else 3,
        )
        for checkpoint in folder.glob("*/checkpoint_final.pt"):
            os.utime(checkpoint, (time_s, time_s))
    return workspace


@pytest.fixture
def scans(tmp_path):
    """A folder of two scans."""
    geometry = Geometry(shape=(9, 20, 21), spacing_mm=(2.0, 1.0, 1.0))
    for number in range(2):
        voxels_ZYX = intensities(blobs(geometry.shape, seed=number), seed=number)
        write_image(tmp_path / "in" / f"scan{number}_0000.nii.gz", voxels_ZYX, geometry)
    return tmp_path / "in"


@pytest.fixture
def series(tmp_path):
    """A folder of two scans as DICOM."""
    for number in range(2):
        voxels_ZYX = intensities(blobs((9, 20, 21), seed=number), seed=number)
        folder = tmp_path / "dicom" / f"patient{number}"
        write_series(folder, voxels_ZYX, spacing_mm=(2.0, 1.0, 1.0))
    return tmp_path / "dicom"


def _predict(tmp_path, *words):
    return main(["--workspace", str(tmp_path), "predict", *map(str, words)])


def test_the_run_that_finished_last_with_the_asked_folds_is_taken(trained):
    def found(*folds, run=None):
        return find_run(trained, NAME, "3d_fullres", folds, run=run).name

    assert found() == "new"
    assert found(0) == "new"
    assert found(0, 1) == "old"
    assert found("all") == "new"
    assert found(run="old") == "old"
    assert [folder.name for folder in find_runs(trained, NAME, "3d_fullres")] == ["new", "old"]
    assert find_run(trained, NAME, "2d").name == "other"


def test_the_network_of_every_case_goes_before_an_ensemble(trained):
    assert default_folds(find_run(trained, NAME, "3d_fullres", run="new")) == ("all",)
    assert default_folds(find_run(trained, NAME, "3d_fullres", run="old")) == (0, 1)


def test_a_run_that_is_not_there_is_answered_with_those_that_are(trained):
    with pytest.raises(RequestError, match=r"folds 3(.|\n)*run new folds 0, all\n.*run old folds"):
        find_run(trained, NAME, "3d_fullres", [3])
    with pytest.raises(RequestError, match="run missing"):
        find_run(trained, NAME, "3d_fullres", run="missing")
    with pytest.raises(RequestError, match="nothing"):
        find_run(trained, "Dataset005_Else", "3d_fullres")


def test_a_folder_is_predicted_with_the_model_of_a_dataset(trained, scans, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["-i", scans, "-o", out, "-d", 4, "-c", "3d_fullres", *FAST]
    assert _predict(tmp_path, *words) == 0
    assert sorted(path.name for path in out.glob("scan*")) == ["scan0.nii.gz", "scan1.nii.gz"]
    said = capsys.readouterr().out
    assert "Took run new, which finished last; others (see --run): old" in said
    assert "folds all" in said
    assert "2 segmentations" in said
    assert _predict(tmp_path, *words) == 2
    assert "--overwrite: " in capsys.readouterr().err
    assert _predict(tmp_path, *words, "--continue_prediction") == 0
    assert _predict(tmp_path, *words, "--continue") == 0
    assert _predict(tmp_path, *words, "--overwrite") == 0


def test_where_nothing_is_left_to_predict_no_device_is_needed(trained, scans, tmp_path):
    words = ["-i", scans, "-o", tmp_path / "out", "-d", 4, "-c", "3d_fullres", *FAST]
    assert _predict(tmp_path, *words) == 0
    before = read_json(tmp_path / "out" / "prediction.json")
    assert before["precision"] in {"float32", "bfloat16"}
    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    assert _predict(tmp_path, *words, "--continue", "-device", absent) == 0
    after = read_json(tmp_path / "out" / "prediction.json")
    assert after["precision"] == before["precision"]


def test_files_are_predicted_with_the_model_of_a_run_folder(trained, scans, tmp_path):
    run = find_run(trained, NAME, "2d")
    scan = scans / "scan1_0000.nii.gz"
    words = ["-i", scan, "-o", tmp_path / "out", "-m", run, "-f", 0, "-step_size", 1, *FAST]
    assert _predict(tmp_path, *words) == 0
    assert [path.name for path in (tmp_path / "out").glob("scan*")] == ["scan1.nii.gz"]


def test_a_single_file_needs_no_channel_number(trained, scans, tmp_path):
    scan = (scans / "scan1_0000.nii.gz").rename(scans / "head.nii.gz")
    words = ["-i", scan, "-o", tmp_path / "out", "-d", NAME, "-c", "2d", *FAST]
    assert _predict(tmp_path, *words) == 0
    assert (tmp_path / "out" / "head.nii.gz").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-d", "4"], "-d DATASET -c CONFIGURATION, or -m FOLDER_OR_FILE"),
        (["-d", "4", "-m", "x"], "not both"),
        (["-m", "nowhere"], "nowhere is no folder and no file"),
        (["-m", "in"], "no fold that was trained to the end"),
        (["-d", "4", "-c", "3d_lowres"], "3d_fullres run new folds 0, all"),
        (["-d", "4", "-c", "2d", "-f", "7"], "2d run other folds 0"),
        (["-d", "9", "-c", "2d"], "No dataset '9'"),
        (["-d", "4", "-c", "2d", "--step-size", "0"], "above 0"),
        (["-d", "4", "-c", "2d", "-device", "abacus"], "abacus"),
    ],
)
def test_a_wrong_request_is_refused_with_what_is_right(
    trained, scans, tmp_path, capsys, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    assert _predict(tmp_path, "-i", scans, "-o", tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/scan*"))


def test_names_that_are_not_understood_are_answered_with_those_that_are(
    trained, scans, tmp_path, capsys
):
    words = ["-o", tmp_path / "out", "-d", 4, "-c", "2d", *FAST]
    assert _predict(tmp_path, "-i", tmp_path / "absent", *words) == 2
    assert "absent" in capsys.readouterr().err
    (scans / "scan1_0000.nii.gz").rename(scans / "scan1.nii.gz")
    assert _predict(tmp_path, "-i", scans, *words) == 2
    assert "CASE_0000.nii.gz (MRI)" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert _predict(tmp_path, "-i", tmp_path / "empty", *words) == 2
    assert "CASE_0000.nii.gz (MRI)" in capsys.readouterr().err
    odd = (scans / "scan0_0000.nii.gz").rename(scans / "scan0_0003.nii.gz")
    assert _predict(tmp_path, "-i", odd, *words) == 2
    assert "channels 0003" in capsys.readouterr().err


def test_two_files_for_a_model_of_one_channel_are_refused_before_anything_is_written(
    trained, scans, tmp_path, capsys
):
    first = scans / "scan0_0000.nii.gz"
    second = shutil.copy(first, scans / "scan0_0001.nii.gz")
    words = ["-o", tmp_path / "out", "-d", 4, "-c", "2d", *FAST]
    assert _predict(tmp_path, "-i", first, second, *words) == 2
    told = capsys.readouterr().err
    assert "scan0 has 2 channels (scan0_0000.nii.gz, scan0_0001.nii.gz)" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["taken", "taken/out"])
def test_an_output_folder_that_is_a_file_is_refused(trained, scans, tmp_path, capsys, place):
    (tmp_path / "taken").write_text("mine")
    words = ["-o", tmp_path / place, "-d", 4, "-c", "2d", *FAST]
    assert _predict(tmp_path, "-i", scans, *words) == 2
    assert "taken is a file" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_fold_that_is_asked_for_twice_counts_once(trained, scans, tmp_path, capsys):
    words = ["-i", scans, "-o", tmp_path / "out", "-d", 4, "-c", "2d", "-f", 0, 0, *FAST]
    assert _predict(tmp_path, *words) == 0
    assert "folds 0 (" in capsys.readouterr().out


def test_a_broken_scan_among_good_ones_is_named_and_the_exit_code_says_whose_fault(
    trained, scans, tmp_path, capsys
):
    (scans / "scan0_0000.nii.gz").write_bytes(b"no image")
    words = ["-i", scans, "-o", tmp_path / "out", "-d", 4, "-c", "2d", *FAST]
    assert _predict(tmp_path, *words) == 2
    assert "scan0: " in capsys.readouterr().err
    assert (tmp_path / "out" / "scan1.nii.gz").is_file()


def test_folders_of_dicom_are_scans_named_like_the_folders(trained, series, tmp_path, capsys):
    words = ["-o", tmp_path / "out", "-d", 4, "-c", "2d", *FAST]
    assert _predict(tmp_path, "-i", series, *words) == 0
    files = sorted(path.name for path in (tmp_path / "out").glob("patient*"))
    assert files == ["patient0.nii.gz", "patient1.nii.gz"]
    one = series / "patient1"
    assert _predict(tmp_path, "-i", one, *words, "--continue-prediction") == 0
    capsys.readouterr()
    write_series(one, np.zeros((9, 20, 21)), spacing_mm=(2.0, 1.0, 1.0), name="other", number=2)
    assert _predict(tmp_path, "-i", one, *words, "--overwrite") == 2
    assert "2 DICOM series: 'phantom' (9 files" in capsys.readouterr().err


def test_a_dicom_seg_lies_beside_every_segmentation_and_is_made_up_for_where_missing(
    trained, series, tmp_path, capsys
):
    out = tmp_path / "out"
    words = ["-i", series, "-o", out, "-d", 4, "-c", "2d", *FAST]
    assert _predict(tmp_path, *words) == 0
    assert not list(out.glob("*.dcm"))
    assert _predict(tmp_path, *words, "--dicom-seg", "--continue-prediction") == 0
    names = [path.name for path in sorted(out.glob("patient*"))]
    assert names == ["patient0.dcm", "patient0.nii.gz", "patient1.dcm", "patient1.nii.gz"]
    classes = {"anterior": (1,), "posterior": (2,)}
    for name in ("patient0", "patient1"):
        assert assert_same_voxels(out / f"{name}.nii.gz", out / f"{name}.dcm", classes)
    before = (out / "patient0.dcm").read_bytes()
    assert _predict(tmp_path, *words, "--dicom_seg", "--overwrite") == 0
    assert (out / "patient0.dcm").read_bytes() == before
    (out / "patient0.nii.gz").unlink()
    (out / "patient1.nii.gz").unlink()
    capsys.readouterr()
    assert _predict(tmp_path, *words, "--dicom-seg") == 2
    assert "patient0.dcm, patient1.dcm already" in capsys.readouterr().err


def test_a_dicom_seg_names_the_weights_that_made_it(trained, series, tmp_path):
    out = tmp_path / "out"
    words = ["-i", series / "patient0", "-o", out, "-d", 4, "-c", "2d", *FAST]
    assert _predict(tmp_path, *words, "--dicom-seg") == 0
    (segment, _) = pydicom.dcmread(out / "patient0.dcm").SegmentSequence
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    made_by = read_json(out / "prediction.json")
    assert algorithm.AlgorithmVersion == made_by["sparseunet"]
    sha256 = made_by["weights"][0]["sha256"]
    expected = f"run=other,configuration=2d,weights_sha256={sha256}"
    assert algorithm.AlgorithmParameters == expected


def test_regions_are_overlapping_segments(write_run, series, tmp_path):
    regions = {"background": 0, "whole": [1, 2], "posterior": 2}
    run = write_run(tmp_path / "regions", labels=regions)
    out = tmp_path / "out"
    words = ["-i", series / "patient0", "-o", out, "-m", run, *FAST, "--dicom-seg"]
    assert _predict(tmp_path, *words) == 0
    files = (out / "patient0.nii.gz", out / "patient0.dcm")
    assert assert_same_voxels(*files, {"whole": (1, 2), "posterior": (2,)})


def test_a_dicom_seg_of_what_is_no_dicom_is_refused(trained, scans, series, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["-o", out, "-d", 4, "-c", "2d", *FAST, "--dicom-seg"]
    assert _predict(tmp_path, "-i", series, scans, *words) == 2
    assert "these scans are none: scan0, scan1" in capsys.readouterr().err
    assert not out.exists()
    words[1] = series / "patient0"
    assert _predict(tmp_path, "-i", series / "patient0", *words) == 2
    assert "choose another output folder" in capsys.readouterr().err


def test_without_the_package_a_dicom_seg_is_refused_before_anything_is_predicted(
    trained, series, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    words = ["-i", series, "-o", tmp_path / "out", "-d", 4, "-c", "2d", *FAST, "--dicom-seg"]
    assert _predict(tmp_path, *words) == 2
    assert 'pip install "sparseunet[dicom]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_series_that_no_dicom_seg_can_refer_to_is_named_and_the_others_are_written(
    trained, series, tmp_path, capsys
):
    for file in (series / "patient0").iterdir():
        dataset = pydicom.dcmread(file)
        del dataset.FrameOfReferenceUID
        dataset.save_as(file)
    out = tmp_path / "out"
    words = ["-i", series, "-o", out, "-d", 4, "-c", "2d", *FAST, "--dicom-seg"]
    assert _predict(tmp_path, *words) == 2
    said = capsys.readouterr().err
    assert "patient0: " in said
    assert "Frame Of Reference UID" in said
    names = [path.name for path in sorted(out.glob("patient*"))]
    assert names == ["patient1.dcm", "patient1.nii.gz"]


def test_probabilities_and_uncertainty_lie_beside_the_segmentations(trained, scans, tmp_path):
    out = tmp_path / "out"
    words = ["-i", scans, "-o", out, "-d", 4, "-c", "3d_fullres", "-f", 0, 1, "--run", "old"]
    extra = ["--save_probabilities", "--uncertainty", "--max-memory", "0.001"]
    assert _predict(tmp_path, *words, *FAST, *extra) == 0
    labels_ZYX, geometry = read_label_map(out / "scan0.nii.gz")
    probabilities_KZYX = np.load(out / "scan0.npy")
    assert probabilities_KZYX.dtype == np.float16
    assert np.allclose(probabilities_KZYX.astype(float).sum(axis=0), 1, atol=2e-3)
    assert (probabilities_KZYX.argmax(axis=0) == labels_ZYX).mean() > 0.99
    maps = {}
    for name in ("entropy", "disagreement"):
        maps[name], of_map = read_label_map(out / "uncertainty" / f"scan0_{name}.nii.gz")
        assert of_map == geometry
        assert maps[name].max() > 0
    sure_ZYX = probabilities_KZYX.max(axis=0) > 0.9
    assert maps["entropy"][sure_ZYX].max() < maps["entropy"][~sure_ZYX].max()


def test_a_network_that_agrees_with_itself_has_no_disagreement(trained, scans, tmp_path):
    out = tmp_path / "out"
    words = ["-i", scans, "-o", out, "-d", 4, "-c", "2d", "-step_size", 1, *FAST]
    assert _predict(tmp_path, *words, "--uncertainty") == 0
    labels_ZYX, _ = read_label_map(out / "uncertainty" / "scan0_disagreement.nii.gz")
    assert labels_ZYX.max() == 0, "one fold, one pass, one patch per slice"
    assert read_label_map(out / "uncertainty" / "scan0_entropy.nii.gz")[0].max() > 0
