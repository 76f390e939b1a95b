"""The choice among cross-validated runs, on runs as training leaves them."""

import json
import os
import shlex
from argparse import ArgumentParser
from importlib import import_module

import numpy as np
import pytest
from phantoms import box
from tiny_training import write_tiny_record

from sparseunet.artifacts import hash_file, read_json
from sparseunet.cli.main import VERBS, main
from sparseunet.data.dataset import Split
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_label_map, write_label_map
from sparseunet.workspace import Workspace, fold_folder

NAME = "Dataset001_Tiny"
SHAPE = (6, 12, 12)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0))
SPLITS = [{"train": ["c", "d"], "val": ["a", "b"]}, {"train": ["a", "b"], "val": ["c", "d"]}]
DATASET_JSON = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "box": 1, "ignore": 2},
    "file_ending": ".nii.gz",
}
TRUE = box(SHAPE, start=(1, 2, 2), stop=(5, 10, 10)).astype(np.uint8)


def cut(start, stop, *, island=False):
    """The box without some of its planes along x, and perhaps an island."""
    labels_ZYX = TRUE.copy()
    labels_ZYX[:, :, start:stop] = 0
    if island:
        labels_ZYX[0, 11, 11] = 1
    return labels_ZYX


@pytest.fixture
def workspace(tmp_path):
    """References of four cases in two folds."""
    prepared = tmp_path / "preprocessed" / NAME
    for case in "abcd":
        write_label_map(prepared / "gt_segmentations" / f"{case}.nii.gz", TRUE, GEOMETRY)
    (prepared / "splits_final.json").write_text(json.dumps(SPLITS))
    (prepared / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return Workspace.at(tmp_path)


@pytest.fixture
def validate(workspace):
    """Write a fold of a run: (configuration, run, fold, labels, sureness, ...)."""

    def write(configuration, name, fold, labels_ZYX, *, sure=None, at_s=1000, split=None):
        folder = fold_folder(workspace.run_folder(NAME, configuration, name), fold)
        cases = SPLITS[fold] if split is None else split
        write_tiny_record(
            folder,
            dataset_name=NAME,
            fold=fold,
            split=Split(train=tuple(cases["train"]), val=tuple(cases["val"])),
            dataset_json=DATASET_JSON,
        )
        checkpoint = folder / "checkpoint_final.pt"
        checkpoint.write_text(f"{configuration} {name} {fold}")
        os.utime(checkpoint, (at_s, at_s))
        for case in cases["val"]:
            write_label_map(folder / "validation" / f"{case}.nii.gz", labels_ZYX, GEOMETRY)
            if sure is not None:
                foreground = np.where(labels_ZYX == 1, sure, 1 - sure)
                probabilities = np.stack([1 - foreground, foreground]).astype(np.float16)
                np.save(folder / "validation" / f"{case}.npy", probabilities)
        prediction = {
            "weights": [{"file": checkpoint.name, "sha256": hash_file(checkpoint)}],
            "options": {"save_probabilities": sure is not None},
        }
        (folder / "validation" / "prediction.json").write_text(json.dumps(prediction))
        return folder

    return write


def validate_both(validate, configuration, name, labels_ZYX, **more):
    return [validate(configuration, name, fold, labels_ZYX, **more) for fold in (0, 1)]


def find(workspace, *words):
    return main(["--workspace", str(workspace.raw.parent), "find_best_configuration", "1", *words])


def result(workspace):
    return read_json(workspace.results_dataset(NAME) / "best_configuration.json")


def dice(labels_ZYX):
    return 2 * (labels_ZYX & TRUE).sum() / (labels_ZYX.sum() + TRUE.sum())


def assert_commands_parse(commands):
    for command in commands:
        words = shlex.split(command)
        parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
        import_module(VERBS[words[1]][0]).add_arguments(parser)
        parser.parse_args(words[2:])


def test_the_run_with_the_highest_dice_is_chosen_and_its_islands_are_dropped(
    workspace, validate, capsys
):
    validate_both(validate, "2d", "run-a", cut(2, 5))
    validate_both(validate, "3d_fullres", "run-b", cut(2, 4, island=True))
    assert find(workspace) == 0
    said = capsys.readouterr().out
    found = result(workspace)
    assert found["best"]["name"] == "3d_fullres run-b"
    scores = {each["name"]: each["foreground_mean_dice"] for each in found["candidates"]}
    assert scores == {
        "2d run-a": pytest.approx(dice(cut(2, 5))),
        "3d_fullres run-b": pytest.approx(dice(cut(2, 4, island=True))),
    }
    rules = workspace.results_dataset(NAME) / "postprocessing.json"
    predict = "predict -i FOLDER_OF_SCANS -o PREDICTIONS"
    assert found["commands"] == [
        f"sparseunet {predict} -d {NAME} -c 3d_fullres --run run-b -f 0 1",
        f"sparseunet apply_postprocessing -i PREDICTIONS -o CLEANED -pp {rules}",
    ]
    assert_commands_parse(found["commands"])
    assert rules.is_file()
    assert all(command in said for command in found["commands"])
    assert "Not tried: 2d run-a + 3d_fullres run-b" in said
    assert "WARNING" not in said
    text = (workspace.results_dataset(NAME) / "best_configuration.txt").read_text(encoding="utf-8")
    assert text in said


def test_of_candidates_that_are_equally_good_the_simpler_one_is_chosen(workspace, validate):
    validate_both(validate, "2d", "run-a", cut(2, 4), sure=0.9)  # where one is unsure ...
    validate_both(validate, "3d_fullres", "run-b", cut(7, 10), sure=0.6)  # ... the other decides
    assert find(workspace) == 0
    found = result(workspace)
    assert [each["name"] for each in found["candidates"]] == [
        "2d run-a",
        "3d_fullres run-b",
        "2d run-a + 3d_fullres run-b",
    ]
    # The mean follows the surer model everywhere, so it is as good as that one, and not better:
    assert found["best"]["name"] == "2d run-a", "of equals the simpler one"
    merged = workspace.ensemble_folder(NAME, ["2d-run-a", "3d_fullres-run-b"])
    for case in "abcd":
        assert np.array_equal(read_label_map(merged / f"{case}.nii.gz")[0], cut(2, 4))


def test_an_ensemble_is_chosen_where_each_model_is_unsure_where_it_is_wrong(workspace, validate):
    for fold in (0, 1):  # each is sure and right in one fold, unsure and wrong in the other
        good, bad = {"sure": 0.9}, {"sure": 0.6}
        first, second = (good, bad) if fold == 0 else (bad, good)
        maps = (TRUE, cut(2, 6)) if fold == 0 else (cut(2, 6), TRUE)
        validate("2d", "run-a", fold, maps[0], **first)
        validate("3d_fullres", "run-b", fold, maps[1], **second)
    assert find(workspace) == 0
    found = result(workspace)
    assert found["best"]["name"] == "2d run-a + 3d_fullres run-b"
    assert found["best"]["foreground_mean_dice"] == 1
    assert [command.split()[1] for command in found["commands"]] == [
        "predict",
        "predict",
        "ensemble",
    ]
    assert "PREDICTIONS_1 PREDICTIONS_2" in found["commands"][2]
    assert all("--save-probabilities" in command for command in found["commands"][:2])
    assert_commands_parse(found["commands"])
    assert found["postprocessing"] is None
    assert find(workspace, "--no-ensembles") == 0
    assert "+" not in result(workspace)["best"]["name"]


def test_with_sparse_references_the_choice_is_warned_of_and_nothing_is_dropped(
    workspace, validate, capsys
):
    sparse = TRUE.copy()
    sparse[[0, 1, 3, 4, 5]] = 2
    references = workspace.preprocessed_dataset(NAME) / "gt_segmentations"
    for case in "ab":
        write_label_map(references / f"{case}.nii.gz", sparse, GEOMETRY)
    off_slice = cut(0, 0)
    off_slice[4] = 0  # wrong where nobody looked, in the sparse cases
    validate("2d", "run-a", 0, off_slice)
    validate("2d", "run-a", 1, cut(2, 3, island=True))
    stale = workspace.results_dataset(NAME) / "postprocessing.json"
    stale.write_text("of an earlier choice")
    assert find(workspace) == 0
    said = capsys.readouterr().out
    found = result(workspace)
    expected = (1 + 1 + 2 * dice(cut(2, 3, island=True))) / 4
    assert found["best"]["foreground_mean_dice"] == pytest.approx(expected)
    assert found["num_sparse_references"] == 2
    assert "WARNING: 2 of 4 references are sparse. Scores count annotated voxels only" in said
    assert "not estimable" in said
    assert "not estimable" in found["why_no_postprocessing"]
    assert [command.split()[1] for command in found["commands"]] == ["predict"]
    assert not stale.exists()


def test_missing_folds_are_all_named_with_the_commands_to_train_them(workspace, validate, capsys):
    validate("2d", "run-a", 0, TRUE)
    folder = validate("3d_fullres", "run-b", 0, TRUE)
    (folder / "validation" / "b.nii.gz").unlink()
    other = validate("3d_fullres", "run-b", 1, TRUE)
    (other / "checkpoint_final.pt").write_text("trained again")
    assert find(workspace, "-c", "2d", "3d_fullres", "3d_lowres") == 2
    said = capsys.readouterr().err
    for line in (
        f"sparseunet train {NAME} 2d 1    # not trained",
        f"sparseunet train {NAME} 3d_lowres 0    # not trained",
        f"sparseunet train {NAME} 3d_lowres 1    # not trained",
        f"sparseunet train {NAME} 3d_fullres 0    # not validated on 1 of 2 cases",
        f"sparseunet train {NAME} 3d_fullres 1    # validated with other weights",
    ):
        assert line in said
    assert f"train {NAME} 2d 0" not in said
    assert "with the flags of run-a" in said
    assert not (workspace.results_dataset(NAME) / "best_configuration.json").exists()
    assert find(workspace) == 2
    assert find(workspace, "-f", "0", "-c", "2d") == 0, "one fold is enough where one is asked for"


def test_without_names_incomplete_configurations_are_told_and_left_out(workspace, validate, capsys):
    validate_both(validate, "2d", "run-a", cut(2, 4))
    validate("3d_fullres", "run-b", 0, TRUE)
    assert find(workspace) == 0
    said = capsys.readouterr().out
    assert result(workspace)["best"]["name"] == "2d run-a"
    assert "Left out" in said
    assert f"sparseunet train {NAME} 3d_fullres 1" in said


def test_runs_on_other_splits_do_not_count(workspace, validate, capsys):
    validate("2d", "run-a", 0, TRUE)
    validate("2d", "run-a", 1, TRUE, split={"train": ["a"], "val": ["b", "c", "d"]})
    assert find(workspace) == 2
    assert "trained on another split" in capsys.readouterr().err


def test_of_several_runs_the_last_counts_unless_they_are_named(workspace, validate):
    validate_both(validate, "2d", "run-a", TRUE, at_s=1000)
    validate_both(validate, "2d", "run-b", cut(2, 4), at_s=2000)
    assert find(workspace) == 0
    assert result(workspace)["best"]["name"] == "2d run-b"
    assert find(workspace, "--run", "run-a", "run-b") == 0
    assert result(workspace)["best"]["name"] == "2d run-a"
    assert len(result(workspace)["candidates"]) == 2


def test_nothing_trained_and_folds_that_do_not_exist_are_told(workspace, validate, capsys):
    assert find(workspace) == 2
    assert "sparseunet train" in capsys.readouterr().err
    validate_both(validate, "2d", "run-a", TRUE)
    assert find(workspace, "-f", "0", "7") == 2
    assert "No fold 7; expected 0 to 1" in capsys.readouterr().err


def test_a_dataset_without_folds_is_told_why_there_are_none(tmp_path, capsys):
    (tmp_path / "preprocessed" / "Dataset001_One").mkdir(parents=True)
    words = ["--workspace", str(tmp_path), "find_best_configuration", "Dataset001_One"]
    assert main(words) == 2
    assert "One case, or one group of cases, cannot be split" in " ".join(
        capsys.readouterr().err.split()
    )
