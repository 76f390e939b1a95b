"""Start-up is cheap: help, checking and planning never import torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sparseunet.cli.main import VERBS

PACKAGE = Path(__file__).resolve().parents[2] / "sparseunet"
NEEDS_TORCH = {
    "networks",
    "training",
    "prediction",
    "self_training",
    "benchmark",
    "pipeline",
    "runs",
}
NEEDS_TORCH_WITHIN = "sparseunet.annotation.interpolation.propagation_"
"""Modules that are imported when labels are propagated by a network, and not before."""
HEAVY = {"torch", "numpy", "scipy", "SimpleITK", "nibabel", "skimage", "sklearn", "blosc2"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert modules_after("import sparseunet") & HEAVY == set()


@pytest.mark.parametrize("words", [["--help"], ["--version"], []], ids=["help", "version", "none"])
def test_the_command_without_a_verb_imports_nothing_heavy(words: list[str]) -> None:
    assert modules_after(call_of_main(words)) & HEAVY == set()


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_imports_nothing_heavy(verb: str) -> None:
    assert modules_after(call_of_main([verb, "--help"])) & HEAVY == set()


def test_modules_that_need_no_torch_import_none() -> None:
    names = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") not in NEEDS_TORCH
    ]
    assert "sparseunet.planning.plan" in names
    statements = "".join(
        f"import {name}\n" for name in names if not name.startswith(NEEDS_TORCH_WITHIN)
    )
    assert "torch" not in modules_after(statements)


def test_finding_and_listing_runs_imports_no_torch() -> None:
    names = ("find", "record", "run", "cross_validation", "choose", "list_folds")
    assert "torch" not in modules_after("".join(f"import sparseunet.runs.{n}\n" for n in names))


def test_averaging_what_models_said_imports_no_torch() -> None:
    names = ("sparseunet.prediction.ensemble", "sparseunet.prediction.saved_probabilities")
    assert "torch" not in modules_after("".join(f"import {name}\n" for name in names))


def test_checking_planning_and_preprocessing_import_no_torch(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    statements = (
        "from pathlib import Path\n"
        "from sparseunet.cli.main import main\n"
        "from sparseunet.data.synthetic import make_dataset\n"
        f"make_dataset(Path({str(raw / 'Dataset001_Dense')!r}), num_training=2, num_test=0)\n"
        f"words = ['--workspace', {str(tmp_path)!r}]\n"
        "sparse = ['-d', '1', '--density', '0.2', '-o', 'Dataset002_Sparse']\n"
        "assert main([*words, 'simulate_annotation', *sparse]) == 0\n"
        "assert main([*words, 'plan_and_preprocess', '-d', '2', '-np', '1']) == 0\n"
        "labels = [str(Path(words[1]) / 'raw' / name / 'labelsTr') for name in NAMES]\n"
        "assert main(['evaluate', *labels, '-np', '1', '-o', words[1] + '/scores.json']) == 0\n"
    ).replace("NAMES", "('Dataset002_Sparse', 'Dataset001_Dense')")
    assert "torch" not in modules_after(statements)
    assert (tmp_path / "preprocessed" / "Dataset002_Sparse" / "nnUNetPlans_2d").is_dir()


def call_of_main(words: list[str]) -> str:
    return (
        "from sparseunet.cli.main import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as stop:\n    assert not stop.code, stop"
    )


def modules_after(statements: str) -> set[str]:
    """Return the top-level modules a fresh interpreter holds after running the statements."""
    script = (
        f"{statements}\nimport json, sys\n"
        "sys.stderr.write(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))
