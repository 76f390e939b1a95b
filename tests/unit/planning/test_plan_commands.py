"""The verbs extract_fingerprint and plan_experiment, from the command line to the files."""

import json
import shutil
from pathlib import Path

import pytest

from sparseunet.cli.main import main
from sparseunet.planning.nnunet_plans import plan_from_nnunet

DATASET = "Dataset004_Hippocampus"


@pytest.fixture
def workspace(tmp_path, data_root) -> Path:
    """A workspace that holds the first five cases of a real dataset."""
    source, target = data_root / DATASET, tmp_path / "raw" / DATASET
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True)
        for path in sorted((source / folder).iterdir())[:5]:
            shutil.copy(path, target / folder)
    description = json.loads((source / "dataset.json").read_text())
    (target / "dataset.json").write_text(json.dumps({**description, "numTraining": 5}))
    return tmp_path


def _run(workspace: Path, *words: str) -> int:
    return main(["--workspace", str(workspace), *words])


def _planner_case(data_root: Path, name: str) -> Path:
    return data_root.parent / "reference" / "planner_cases" / name


def test_a_dataset_is_measured_and_planned(workspace, capsys):
    assert _run(workspace, "extract_fingerprint", "-d", "4", "-np", "2") == 0
    assert "5 cases" in capsys.readouterr().out
    assert _run(workspace, "plan_experiment", "-d", "4", "-pl", "ResEncM") == 0
    table = capsys.readouterr().out
    assert "3d_fullres" in table
    assert "holds a whole median image" in table
    folder = workspace / "preprocessed" / DATASET
    assert (folder / "dataset.json").is_file()
    content = json.loads((folder / "nnUNetResEncUNetMPlans.json").read_text())
    assert plan_from_nnunet(content).planner == "ResEncM"
    assert content["sparseunet"]["num_foreground_cases"] == 5


def test_only_changed_cases_are_read_again_and_the_result_is_that_of_a_fresh_start(
    workspace, tmp_path, capsys
):
    _run(workspace, "extract_fingerprint", "-d", "4")
    stored = workspace / "preprocessed" / DATASET / "dataset_fingerprint.json"
    before = stored.read_bytes()
    capsys.readouterr()
    _run(workspace, "extract_fingerprint", "-d", "4")
    assert stored.read_bytes() == before
    assert "5 cases unchanged" in capsys.readouterr().out
    labels = sorted((workspace / "raw" / DATASET / "labelsTr").iterdir())
    shutil.copy(labels[0], labels[1])
    shutil.copy(*[workspace / "raw" / DATASET / "imagesTr" / name for name in _images(labels[:2])])
    _run(workspace, "extract_fingerprint", "-d", "4")
    assert "4 cases unchanged" in capsys.readouterr().out
    assert stored.read_bytes() != before
    _run(tmp_path / "other", "extract_fingerprint", "-d", str(workspace / "raw" / DATASET))
    fresh = tmp_path / "other" / "preprocessed" / DATASET / "dataset_fingerprint.json"
    assert stored.read_bytes() == fresh.read_bytes()


def test_a_damaged_record_is_made_anew(workspace, capsys):
    _run(workspace, "extract_fingerprint", "-d", "4")
    stored = workspace / "preprocessed" / DATASET / "dataset_fingerprint.json"
    before = stored.read_bytes()
    records = sorted((workspace / "preprocessed" / DATASET / "examined").iterdir())
    records[0].write_bytes(records[0].read_bytes()[:100])
    records[1].write_bytes(b"")
    capsys.readouterr()
    _run(workspace, "extract_fingerprint", "-d", "4")
    assert "3 cases unchanged" in capsys.readouterr().out
    assert stored.read_bytes() == before


def _images(labels):
    return [path.name.replace(".nii.gz", "_0000.nii.gz") for path in labels]


def test_measuring_again_can_be_forced(workspace):
    _run(workspace, "extract_fingerprint", "-d", "4")
    stored = workspace / "preprocessed" / DATASET / "dataset_fingerprint.json"
    before = stored.read_bytes()
    marked = json.loads(before)
    marked["median_relative_size_after_cropping"] = 0.125
    stored.write_text(json.dumps(marked))
    _run(workspace, "extract_fingerprint", "-d", "4", "--clean")
    assert stored.read_bytes() == before


def test_planning_without_a_fingerprint_says_what_to_do(workspace, capsys):
    assert _run(workspace, "plan_experiment", "-d", "4") == 2
    assert "extract_fingerprint -d" in capsys.readouterr().err


def test_files_alone_can_be_planned(tmp_path, data_root, capsys):
    case, output = _planner_case(data_root, "lits_ct"), tmp_path / "plans.json"
    words = ["plan_experiment", "--fingerprint", str(case / "fingerprint.json"), "-o", str(output)]
    words += ["--dataset-json", str(case / "dataset.json"), "--dataset-name", "Dataset501_lits_ct"]
    assert main([*words, "-pl", "ResEncL"]) == 0
    assert "times coarser" in capsys.readouterr().out
    written = json.loads(output.read_text())
    del written["sparseunet"]
    assert written == json.loads((case / "ResEncL.json").read_text())


def test_configurations_added_by_hand_survive_and_stale_ones_do_not(tmp_path, data_root, caplog):
    output = tmp_path / "plans.json"

    def plan(name):
        case = _planner_case(data_root, name)
        files = ["--fingerprint", str(case / "fingerprint.json"), "-o", str(output)]
        files += ["--dataset-json", str(case / "dataset.json"), "--dataset-name", "Dataset001_A"]
        assert main(["plan_experiment", *files]) == 0
        return json.loads(output.read_text())

    content = plan("lits_ct")
    content["configurations"]["mine"] = {"inherits_from": "3d_fullres", "batch_size": 5}
    output.write_text(json.dumps(content))
    assert set(plan("hippocampus")["configurations"]) == {"2d", "3d_fullres", "mine"}
    assert "kept the configurations mine" in caplog.text
    assert "held another plan" in caplog.text


@pytest.mark.parametrize(
    "words", [[], ["-d", "4", "-o", "plans.json"], ["--fingerprint", "a.json"]]
)
def test_dataset_and_files_exclude_each_other(workspace, words, capsys):
    assert _run(workspace, "plan_experiment", *words) == 2
    assert "either -d, or all of" in capsys.readouterr().err


def test_changed_memory_or_spacing_asks_for_a_name(workspace, capsys):
    _run(workspace, "extract_fingerprint", "-d", "4")
    spacing = ["-d", "4", "-overwrite_target_spacing", "2", "1", "1"]
    assert _run(workspace, "plan_experiment", *spacing) == 2
    assert "--overwrite-plans-name" in capsys.readouterr().err
    assert _run(workspace, "plan_experiment", *spacing, "-overwrite_plans_name", "coarse") == 0
    written = json.loads((workspace / "preprocessed" / DATASET / "coarse.json").read_text())
    assert written["configurations"]["3d_fullres"]["spacing"] == [2.0, 1.0, 1.0]
