"""Which code made something can be told: version, and commit in a checkout."""

import subprocess
from pathlib import Path

import pytest

from sparseunet import __version__, version
from sparseunet.cli.main import main

ROOT = Path(__file__).resolve().parents[3]


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(__version__)


def test_the_commit_is_what_git_says():
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    said = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    if said.returncode:
        pytest.skip("git cannot read this checkout")
    version.commit.cache_clear()
    assert version.commit() == said.stdout.strip()


@pytest.mark.parametrize("packed", [False, True])
def test_the_commit_of_a_branch_is_found_in_its_file_or_among_packed_ones(
    tmp_path, monkeypatch, packed
):
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    if packed:
        (git / "packed-refs").write_text(f"# pack-refs\n{'a' * 40} refs/heads/main\n")
    else:
        (git / "refs" / "heads" / "main").write_text(f"{'a' * 40}\n")
    monkeypatch.setattr(version, "_PACKAGE", tmp_path / "sparseunet")
    assert version.commit.__wrapped__() == "a" * 40


def test_without_a_checkout_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(version, "_PACKAGE", tmp_path / "sparseunet")
    assert version.commit.__wrapped__() is None
