"""Planning for sparse labels, for a machine, and from another dataset, from the command line."""

import json
import shutil
from pathlib import Path

import pytest

from sparseunet.cli.main import main
from sparseunet.data.density import measure_label_density, write_label_densities
from sparseunet.data.io import read_annotation
from sparseunet.data.load import load_dataset
from sparseunet.data.synthetic import make_dataset
from sparseunet.planning.nnunet_plans import budgeted_iterations, plan_from_nnunet
from sparseunet.workspace import Workspace

DENSE, SPARSE = "Dataset001_Dense", "Dataset002_Sparse"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A workspace with a dense dataset and one with a slice per case, both measured."""
    root = tmp_path_factory.mktemp("workspace")
    make_dataset(root / "raw" / DENSE, num_training=4, num_test=0)
    words = ["--workspace", str(root)]
    hidden = ["-d", "1", "--density", "0.05", "-o", SPARSE]
    assert main([*words, "simulate_annotation", *hidden]) == 0
    assert main([*words, "extract_fingerprint", "-d", "1", "2", "-np", "1"]) == 0
    workspace = Workspace.at(root)
    dataset = load_dataset(workspace.raw_dataset("2"))
    densities = []
    for case in dataset.cases:
        annotation, geometry = read_annotation(case.label, dataset.labels)
        densities.append(measure_label_density(case.name, annotation, geometry))
    write_label_densities(workspace.label_density_file(SPARSE), densities)
    workspace.label_density_file(DENSE).unlink(missing_ok=True)
    return root


@pytest.fixture
def workspace(prepared, tmp_path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "workspace"))


def _plan(workspace: Path, *words: str) -> int:
    return main(["--workspace", str(workspace), "plan_experiment", *words])


def _read(workspace: Path, dataset: str, name: str) -> dict:
    return json.loads((workspace / "preprocessed" / dataset / f"{name}.json").read_text())


def test_every_plan_has_a_report_of_its_own(workspace, capsys, caplog):
    assert _plan(workspace, "-d", "2") == 0
    assert _plan(workspace, "-d", "2", "-pl", "ResEncM") == 0
    folder = workspace / "preprocessed" / SPARSE
    for name in ("nnUNetPlans", "nnUNetResEncUNetMPlans"):
        text = (folder / f"{name}_report.md").read_text(encoding="utf-8")
        assert text.startswith(f"# Plan {name} of {SPARSE}")
        assert "| 3d_fullres | 1" in text
    shown = capsys.readouterr().out
    assert "Target spacing" in shown
    assert "Train 2d first" in shown
    assert "Class lesion" in caplog.text


def test_without_known_density_planning_works_and_says_so(workspace, capsys):
    assert _plan(workspace, "-d", "1") == 0
    assert "no label_density.json" in capsys.readouterr().out
    named = ["--sparse-aware", "--overwrite-plans-name", "slab"]
    assert _plan(workspace, "-d", "1", *named) == 2
    assert "extract_fingerprint" in capsys.readouterr().err
    assert not (workspace / "preprocessed" / DENSE / "slab.json").exists()


def test_densities_of_other_cases_are_not_used(workspace, capsys, caplog):
    path = Workspace.at(workspace).label_density_file(SPARSE)
    content = json.loads(path.read_text())
    content["cases"][0]["name"] = "somebody_else"
    path.write_text(json.dumps(content))
    assert _plan(workspace, "-d", "2") == 0
    assert "is of other cases" in caplog.text
    assert "no label_density.json" in capsys.readouterr().out


def test_a_sparse_aware_plan_shares_the_preprocessed_data_and_leaves_the_others_alone(workspace):
    assert _plan(workspace, "-d", "2") == 0
    assert _plan(workspace, "-d", "2", "--sparse-aware", "--overwrite-plans-name", "slab") == 0
    plain, slab = (_read(workspace, SPARSE, name) for name in ("nnUNetPlans", "slab"))
    assert slab["plans_name"] == "slab"
    assert slab["configurations"]["2d"] == plain["configurations"]["2d"]
    before, after = (item["configurations"]["3d_fullres"] for item in (plain, slab))
    assert after["patch_size"][0] == 10 < before["patch_size"][0]
    assert after["data_identifier"] == before["data_identifier"]
    assert slab["sparseunet"]["sparse_aware"]["3d_fullres"]["max_depth"] == 10
    assert "sparse_aware" not in plain["sparseunet"]
    report = workspace / "preprocessed" / SPARSE / "slab_report.md"
    assert "a tenth is annotated on average" in report.read_text(encoding="utf-8")


def test_a_time_budget_makes_a_plan_that_records_its_steps(workspace, monkeypatch):
    monkeypatch.setattr("sparseunet.training.time_budget.measure_step_s", lambda *_: 1.0)
    words = ["--time-budget", "1", "--device", "cpu", "--overwrite-plans-name", "quick"]
    assert _plan(workspace, "-d", "2", *words) == 0
    content = _read(workspace, SPARSE, "quick")
    configuration = plan_from_nnunet(content).configurations["3d_fullres"]
    assert configuration.network.features_per_stage[0] == 8
    assert configuration.batch_size == 2
    assert budgeted_iterations(content, "3d_fullres") > 0
    assert budgeted_iterations(content, "3d_huge") is None
    assert content["sparseunet"]["time_budget"]["device"] == "cpu"
    report = workspace / "preprocessed" / SPARSE / "quick_report.md"
    assert "steps of" in report.read_text(encoding="utf-8")


def test_plans_can_be_taken_from_another_dataset(workspace, capsys):
    assert _plan(workspace, "-d", "2") == 0
    words = ["-d", "1", "--plans-from", "2", "--overwrite-plans-name", "FromSparse"]
    assert _plan(workspace, *words) == 0
    moved, source = _read(workspace, DENSE, "FromSparse"), _read(workspace, SPARSE, "nnUNetPlans")
    assert moved["dataset_name"] == DENSE
    assert moved["configurations"]["2d"]["data_identifier"] == "FromSparse_2d"
    key = "foreground_intensity_properties_per_channel"
    assert moved[key] == source[key]
    assert (workspace / "preprocessed" / DENSE / "FromSparse_report.md").is_file()
    assert _plan(workspace, *words, "--source-plans", "missing") == 2
    assert "--source-plans" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--sparse-aware"], "--overwrite-plans-name"),
        (["--time-budget", "5"], "--overwrite-plans-name"),
        (["--plans-from", "1"], "--overwrite-plans-name"),
        (["--time-budget", "0", "--overwrite-plans-name", "x"], "must be positive"),
        (["--device", "cpu"], "what --time-budget measures"),
        (["--source-plans", "x"], "--plans-from"),
        (["--plans-from", "1", "--sparse-aware", "--overwrite-plans-name", "x"], "leave out"),
        (["--plans-from", "2", "--source-plans", "x", "--overwrite-plans-name", "x"], "not exist"),
        (
            ["--time-budget", "5", "--device", "tpu", "--overwrite-plans-name", "x"],
            "'tpu'",
        ),
    ],
)
def test_requests_that_mean_nothing_are_refused_and_write_nothing(
    workspace, capsys, words, expected
):
    before = sorted((workspace / "preprocessed").rglob("*"))
    assert _plan(workspace, "-d", "2", *words) == 2
    assert expected in capsys.readouterr().err
    assert sorted((workspace / "preprocessed").rglob("*")) == before


def test_both_verbs_that_plan_know_the_flags(workspace):
    words = ["-d", "2", "--no-pp", "--sparse-aware", "--overwrite-plans-name", "slab"]
    main(["--workspace", str(workspace), "plan_and_preprocess", *words])
    assert (workspace / "preprocessed" / SPARSE / "slab.json").is_file()
