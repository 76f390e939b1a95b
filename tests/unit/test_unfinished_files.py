"""What a killed process leaves half written goes away; what others are writing stays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparseunet.artifacts import atomic_path, remove_unfinished, unfinished_prefix

WRITE_AND_DIE = """
import os, pathlib, signal, sys
from sparseunet.artifacts import atomic_path
with atomic_path(pathlib.Path(sys.argv[1]) / "deep" / "result.json") as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(tmp_path)], check=False)
    assert "result.json" in names(tmp_path)
    remove_unfinished(tmp_path)
    assert names(tmp_path) == {"deep"}


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / ".writing-another_machine-1-x"
    elsewhere.mkdir()
    with atomic_path(tmp_path / "result.json") as temporary:
        temporary.write_text("half")
        remove_unfinished(tmp_path)
        assert temporary.read_text() == "half"
    assert elsewhere.exists()
    assert (tmp_path / "result.json").read_text() == "half"


def test_temporary_folders_name_machine_and_process() -> None:
    assert unfinished_prefix().endswith(f"-{os.getpid()}-")
