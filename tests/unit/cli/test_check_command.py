"""`sparseunet check` prints the table and says by its exit code whether a dataset can be used."""

import json
import shutil
from pathlib import Path

import pytest

from sparseunet.cli.main import main

EXIT_CODES = {"accept": 0, "warn": 0, "reject": 2}


def test_every_bad_input_gives_its_exit_code(
    data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_root.parent / "bad_inputs"
    for entry in json.loads((folder / "manifest.json").read_text()):
        code = main(["check", str(folder / entry["folder"]), "-np", "1"])
        assert code == EXIT_CODES[entry["expect"]], entry["folder"]
        verdict = capsys.readouterr().out.splitlines()[-1]
        assert verdict.startswith(f"{entry['folder']}: {'rejected' if code else 'accepted'}")


@pytest.mark.parametrize("name", ["4", "Dataset004_Small"])
def test_a_dataset_is_found_by_id_or_name(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    source = data_root.parent / "bad_inputs" / "00_control_valid"
    shutil.copytree(source, tmp_path / "raw" / "Dataset004_Small")
    assert main(["check", name, "--workspace", str(tmp_path), "--num-workers", "2"]) == 0
    assert capsys.readouterr().out == "Dataset004_Small: accepted, 3 cases, 0 errors, 0 warnings\n"


def test_an_unknown_dataset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "Dataset099_Nothing", "--workspace", str(tmp_path)]) == 2
    assert "Dataset099_Nothing" in capsys.readouterr().err
