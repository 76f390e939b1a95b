"""Both stages of a cascade, from sparse labels to segmentations, by the commands a user types."""

import shutil

import pytest
import torch

from sparseunet.artifacts import read_json, write_json
from sparseunet.cli.main import main
from sparseunet.data.synthetic import make_dataset
from sparseunet.preprocessing.previous_stage import PreviousStage
from sparseunet.preprocessing.store import CaseStore

NAME = "Dataset002_Sparse"
RECIPE = ["-p", "tiny", "--base-features", "4", "--batch-size", "2", "--iterations", "2",
          "-device", "cpu", "--precision", "float32"]  # fmt: skip
PREDICT = ["-d", "2", "-c", "3d_cascade_fullres", "-device", "cpu", "--precision", "float32"]
CASES = [f"scan_{number:03d}" for number in range(4)]


def run(root, *words):
    return main(["--workspace", str(root), *map(str, words)])


def train(root, configuration, fold, *words):
    return run(root, "train", "2", configuration, fold, *RECIPE, *words)


def copy(root, folder):
    return shutil.copytree(root, folder, dirs_exist_ok=True)


def results(root, configuration):
    (folder,) = (root / "results" / NAME / configuration).iterdir()
    return folder


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A workspace with a sparse dataset in two folds, planned for very little memory."""
    root = tmp_path_factory.mktemp("cascade")
    dense = root / "raw" / "Dataset001_Shapes"
    make_dataset(dense, num_training=4, num_test=2)
    run(root, "simulate_annotation", "-d", "1", "--density", "0.10", "--selector", "fixed",
        "--axis", "0", "-o", NAME)  # fmt: skip
    folds = [CASES[:2], CASES[2:]]
    splits = [{"train": folds[1 - fold], "val": folds[fold]} for fold in range(2)]
    write_json(root / "raw" / NAME / "splits_final.json", splits)
    words = ["-gpu_memory_target", "0.02", "-overwrite_plans_name", "tiny"]
    configurations = ["-c", "3d_lowres", "3d_cascade_fullres"]
    assert run(root, "plan_and_preprocess", "-d", "2", *words, *configurations) == 0
    return root


@pytest.fixture(scope="module")
def cascade(planned, tmp_path_factory):
    """The same, with two folds of the first stage and one of the second."""
    root = copy(planned, tmp_path_factory.mktemp("trained"))
    for fold in (0, 1):
        assert train(root, "3d_lowres", fold) == 0
    assert train(root, "3d_cascade_fullres", 0) == 0
    return root


def test_the_second_stage_asks_for_every_fold_of_the_first(planned, tmp_path, capsys):
    root = copy(planned, tmp_path)
    assert train(root, "3d_cascade_fullres", 0) == 2
    said = capsys.readouterr().err
    assert "4 of 4 cases" in said
    assert f"sparseunet train {NAME} 3d_lowres 0 -p tiny\n" in said
    assert f"sparseunet train {NAME} 3d_lowres 1 -p tiny\n" in said
    assert train(root, "3d_lowres", 0) == 0
    capsys.readouterr()
    assert train(root, "3d_cascade_fullres", 0) == 2
    said = capsys.readouterr().err
    assert "2 of 4 cases" in said
    assert "scan_002, scan_003." in said
    assert "3d_lowres 0" not in said.split("Run first")[1]
    assert not (root / "results" / NAME / "3d_cascade_fullres").exists()


def test_each_fold_of_the_first_stage_leaves_its_held_out_cases_on_the_grid_of_the_second(cascade):
    store = CaseStore(cascade / "preprocessed" / NAME / "tiny_3d_fullres")
    for fold, cases in enumerate((CASES[:2], CASES[2:])):
        folder = results(cascade, "3d_lowres") / f"fold_{fold}"
        target = folder / "predicted_next_stage" / "3d_cascade_fullres"
        assert sorted(path.stem for path in target.glob("*.b2nd")) == cases
        previous = PreviousStage(folders=dict.fromkeys(cases, target))
        for case in cases:
            shape = store.manifest(case).shape
            assert previous.read_patch(case, (0, 0, 0), shape).shape == shape


def test_the_second_stage_has_learned_behind_held_out_segmentations(cascade):
    fold = results(cascade, "3d_cascade_fullres") / "fold_0"
    description = read_json(fold / "run.json")
    assert description["previous_stage"] == {
        "configuration": "3d_lowres",
        "run_id": results(cascade, "3d_lowres").name,
    }
    weights = torch.load(fold / "checkpoint_final.pt", weights_only=True)["weights"]
    assert weights["encoder.stages.0.0.conv.weight"].shape[1] == 1 + 3
    validation = read_json(fold / "validation" / "prediction.json")
    assert sorted(validation["previous_stage"]) == CASES[:2]
    assert len(read_json(fold / "validation" / "summary.json")["metric_per_case"]) == 2


def test_the_same_commands_again_do_nothing(cascade):
    before = {path: path.stat().st_mtime_ns for path in sorted((cascade / "results").rglob("*.*"))}
    assert train(cascade, "3d_lowres", 1) == 0
    assert train(cascade, "3d_cascade_fullres", 0) == 0
    after = {path: path.stat().st_mtime_ns for path in sorted((cascade / "results").rglob("*.*"))}
    assert after == before


def test_both_ways_of_giving_the_first_stage_give_the_same_bytes(cascade, tmp_path, capsys):
    images = cascade / "raw" / "Dataset001_Shapes" / "imagesTs"
    assert run(cascade, "predict", "-i", images, "-o", tmp_path / "both", *PREDICT) == 0
    assert "First stage:" in capsys.readouterr().out
    by_hand = ["-d", "2", "-c", "3d_lowres", "-f", "0", *PREDICT[4:]]
    assert run(cascade, "predict", "-i", images, "-o", tmp_path / "first", *by_hand) == 0
    given = ["-prev_stage_predictions", tmp_path / "first"]
    assert run(cascade, "predict", "-i", images, "-o", tmp_path / "given", *PREDICT, *given) == 0
    assert "First stage:" not in capsys.readouterr().out
    for name in ("scan_004.nii.gz", "scan_005.nii.gz"):
        second = (tmp_path / "given" / name).read_bytes()
        assert (tmp_path / "both" / name).read_bytes() == second
        assert (tmp_path / "first" / name).read_bytes() != second
    again = ["predict", "-i", images, "-o", tmp_path / "both", *PREDICT]
    assert run(cascade, *again) == 2
    assert run(cascade, *again, "--continue-prediction") == 0
    assert run(cascade, "predict", "-i", images, "-o", tmp_path / "none", *PREDICT,
               "--previous-stage-predictions", images) == 2  # fmt: skip
    said = capsys.readouterr().err
    assert said.count("no such file") == 2
    assert not (tmp_path / "none").exists()


def test_fold_all_learns_behind_fold_all(cascade, tmp_path, capsys):
    cascade = copy(cascade, tmp_path)
    assert train(cascade, "3d_cascade_fullres", "all") == 2
    assert "3d_lowres all" in capsys.readouterr().err
    assert train(cascade, "3d_lowres", "all") == 0
    folder = results(cascade, "3d_lowres") / "fold_all"
    made = folder / "predicted_next_stage" / "3d_cascade_fullres"
    assert sorted(path.stem for path in made.glob("*.b2nd")) == CASES
    assert train(cascade, "3d_cascade_fullres", "all") == 0


def test_new_weights_of_the_first_stage_segment_again_and_the_second_is_not_continued(
    cascade, tmp_path, capsys
):
    cascade = copy(cascade, tmp_path)
    fold = results(cascade, "3d_lowres") / "fold_1"
    label_file = fold / "validation" / "scan_002.nii.gz"
    kept = {path: path.read_bytes() for path in (fold / "checkpoint_final.pt", label_file)}
    content = torch.load(fold / "checkpoint_final.pt", weights_only=True)
    torch.manual_seed(0)
    for tensor in content["weights"].values():
        tensor.add_(0.3 * torch.randn_like(tensor))
    torch.save(content, fold / "checkpoint_final.pt")
    assert train(cascade, "3d_cascade_fullres", 0) == 2
    assert "scan_002, scan_003" in capsys.readouterr().err
    assert train(cascade, "3d_lowres", 1) == 0
    assert label_file.read_bytes() != kept[label_file]
    assert train(cascade, "3d_cascade_fullres", 0) == 2
    assert "another previous_stage_predictions" in capsys.readouterr().err
