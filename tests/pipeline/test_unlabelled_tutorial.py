"""The tutorial from unlabelled scans to a trained network does what it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparseunet.annotation.annotation_plan import read_annotation_plan
from sparseunet.data.io import read_annotation
from sparseunet.data.load import load_dataset
from sparseunet.data.synthetic import make_scan

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "documentation" / "tutorial" / "from_unlabelled_scans.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> tuple[Path, str]:
    """The folder in which all blocks of the page were run, in order, and what they printed."""
    folder = tmp_path_factory.mktemp("tutorial")
    out = ""
    for language, text in BLOCKS:
        if language == "python":
            out += run(folder, "-c", text)
        elif language == "bash":
            for line in text.splitlines():
                out += run(folder, "-m", *shlex.split(line))
    return folder, out


def run(folder: Path, *words: str) -> str:
    """Run the interpreter in the folder, with this checkout first on its path."""
    start = "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    if words[0] == "-m":
        start += "from sparseunet.cli.main import main; sys.exit(main(sys.argv[2:]))"
    else:
        start += "exec(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", start, str(ROOT), *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_everything_it_shows_was_printed(printed):
    shown = [text for language, text in BLOCKS if not language and not text.startswith("scans/\n")]
    assert len(shown) == 3
    for text in shown:
        assert text in printed[1]


def test_it_ends_with_a_plan_for_every_scan(printed):
    folder, _ = printed
    plans = [
        read_annotation_plan(folder / f"{name}_plan.json")
        for name in ("annotation", "slower", "dataset")
    ]
    assert len(plans[0].cases) == 20
    assert plans[1].num_slices < plans[0].num_slices
    assert plans[2].cases == plans[0].cases
    assert all(plan.expected_minutes <= 120 for plan in plans)


def test_what_was_drawn_is_what_is_trained_on(printed):
    folder, _ = printed
    plan = read_annotation_plan(folder / "dataset_plan.json")
    dataset = load_dataset(folder / "raw" / "Dataset012_Drawn")
    for planned in plan.cases:
        annotation, _ = read_annotation(dataset.case(planned.case).label, dataset.labels)
        assert sorted(planned.slices) == annotation.annotated_slices(0).tolist()
        truth_ZYX = make_scan(seed=int(planned.case[-2:])).labels_ZYX
        rows = list(planned.slices)
        assert np.array_equal(annotation.labels_ZYX[rows], truth_ZYX[rows])
    weights = list((folder / "results").rglob("checkpoint_final.pt"))
    assert len(weights) == 1
