"""The scripts that measure are run by hand, so a test sees to it that they still start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SCRIPTS = [
    script
    for script in sorted((TESTS / "performance").glob("*.py"))
    if "__main__" in script.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.name for script in SCRIPTS])
def test_a_performance_script_imports_what_it_needs_and_explains_itself(script: Path) -> None:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    done = subprocess.run(
        [sys.executable, str(script), "--help"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
