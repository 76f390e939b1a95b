"""From trained folds to cleaned segmentations, by the commands that one command prints."""

import shlex

import numpy as np
import pytest

from sparseunet.artifacts import read_json, write_json
from sparseunet.cli.main import main
from sparseunet.data.io import read_label_map
from sparseunet.data.synthetic import make_dataset

NAME = "Dataset001_Shapes"
CASES = [f"scan_{number:03d}" for number in range(4)]
pytestmark = pytest.mark.slow
CPU = ["-device", "cpu", "--precision", "float32"]
RECIPE = ["--base-features", "4", "--batch-size", "2", "--iterations", "2", *CPU]
RECIPE += ["--num-workers", "0", "--augmentation", "none"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two configurations in two folds; of the first the probabilities are kept at once."""
    root = tmp_path_factory.mktemp("cross_validation")
    raw = root / "raw" / NAME
    make_dataset(raw, num_training=4, num_test=1)
    folds = [CASES[:2], CASES[2:]]
    splits = [{"train": folds[1 - fold], "val": folds[fold]} for fold in range(2)]
    write_json(raw / "splits_final.json", splits)
    words = ["-c", "2d", "3d_fullres"]
    assert run(root, "plan_and_preprocess", "-d", "1", *words) == 0
    for fold in (0, 1):
        assert run(root, "train", "1", "2d", fold, *RECIPE, "--npz") == 0
        assert run(root, "train", "1", "3d_fullres", fold, *RECIPE) == 0
        assert probabilities(root, "3d_fullres", fold) == [], "a later test asks for them"
    return root


def run(root, *words):
    return main(["--workspace", str(root), *map(str, words)])


def validation(root, configuration, fold):
    (folder,) = (root / "results" / NAME / configuration).iterdir()
    return folder / f"fold_{fold}" / "validation"


def probabilities(root, configuration, fold):
    return sorted(path.stem for path in validation(root, configuration, fold).glob("*.npy"))


def test_folds_keep_the_probabilities_of_their_validation_cases_when_asked(trained):
    assert probabilities(trained, "2d", 0) == CASES[:2]
    assert probabilities(trained, "2d", 1) == CASES[2:]
    for case in CASES[:2]:
        path = validation(trained, "2d", 0) / f"{case}.npy"
        labels_ZYX, _ = read_label_map(path.with_suffix(".nii.gz"))
        agree_ZYX = np.load(path).argmax(axis=0) == labels_ZYX
        assert agree_ZYX.mean() > 0.95, "softmax, rounding and resampling change places"


def test_the_same_command_makes_up_for_them_and_then_every_printed_command_works(
    trained, tmp_path, capsys, monkeypatch
):
    assert run(trained, "find_best_configuration", "1", "-np", "1") == 0
    assert "Not tried" in capsys.readouterr().out
    for fold in (0, 1):
        weights = trained / "results" / NAME / "3d_fullres"
        (before,) = (path.read_bytes() for path in weights.glob(f"*/fold_{fold}/*_final.pt"))
        words = ["train", "1", "3d_fullres", fold, *RECIPE, "--save-probabilities"]
        assert run(trained, *words) == 0
        assert "finished already" in capsys.readouterr().out
        assert probabilities(trained, "3d_fullres", fold) == CASES[2 * fold : 2 * fold + 2]
        changed = validation(trained, "3d_fullres", fold) / f"{CASES[2 * fold]}.npy"
        stamp = changed.stat().st_mtime_ns
        assert run(trained, *words) == 0
        assert changed.stat().st_mtime_ns == stamp, "what is there is left alone"
        (after,) = (path.read_bytes() for path in weights.glob(f"*/fold_{fold}/*_final.pt"))
        assert before == after

    assert run(trained, "find_best_configuration", "1", "-np", "1") == 0
    assert "Not tried" not in capsys.readouterr().out
    found = read_json(trained / "results" / NAME / "best_configuration.json")
    assert len(found["candidates"]) == 3

    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER_OF_SCANS").symlink_to(trained / "raw" / NAME / "imagesTs")
    for command in found["commands"]:
        words = shlex.split(command)[1:]
        more = [*CPU, "--disable-tta"] if words[0] == "predict" else []
        assert run(trained, *words, *more) == 0
    assert [path.name for path in (tmp_path / "PREDICTIONS").glob("*.nii.gz")] == [
        "scan_004.nii.gz"
    ]


def test_an_ensemble_of_both_is_their_mean(trained, tmp_path):
    for configuration in ("2d", "3d_fullres"):
        words = ["-i", trained / "raw" / NAME / "imagesTs", "-o", tmp_path / configuration]
        words += ["-d", "1", "-c", configuration, "-f", "0", "1", "--disable-tta", *CPU]
        assert run(trained, "predict", *words, "--save-probabilities") == 0
    folders = [tmp_path / "2d", tmp_path / "3d_fullres"]
    assert run(trained, "ensemble", "-i", *folders, "-o", tmp_path / "both") == 0
    arrays = [np.load(folder / "scan_004.npy").astype(np.float32) for folder in folders]
    expected = np.mean(arrays, axis=0).argmax(axis=0)
    assert np.array_equal(read_label_map(tmp_path / "both" / "scan_004.nii.gz")[0], expected)
