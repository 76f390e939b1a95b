"""Errors name settings as Python does; the command line calls them as its flags."""

import argparse
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from sparseunet.cli import main as command_line
from sparseunet.errors import DatasetError, Problem, SparseUNetError


@pytest.fixture
def told(monkeypatch, capsys) -> Callable[[Exception], str]:
    """Run a verb that fails with an error, and return what is written."""

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("-bs", "--batch-size")
        parser.add_argument("--max-memory", dest="max_memory_gib")

    def tell(error: Exception) -> str:
        def run(_: argparse.Namespace) -> int:
            raise error

        verb = SimpleNamespace(__doc__="", add_arguments=add_arguments, run=run)
        monkeypatch.setattr(command_line, "import_module", lambda _: verb)
        assert command_line.main(["check"]) == error.exit_code
        return capsys.readouterr().err

    return tell


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("batch_size", "sparseunet check: --batch-size: Too large.\n"),
        ("max_memory_gib", "sparseunet check: --max-memory: Too large.\n"),
        ("architecture", "sparseunet check: Too large.\n"),
        (None, "sparseunet check: Too large.\n"),
    ],
)
def test_an_error_starts_with_the_flag_of_its_setting_where_the_verb_has_one(told, setting, line):
    assert told(SparseUNetError("Too large.", setting=setting)) == line


def test_problems_name_the_flag_beside_their_file(told):
    text = {"found": "9", "expected": "1 to 8", "fix": "take fewer"}
    problems = [
        Problem(setting="batch_size", **text),
        Problem(setting="architecture", **text),
        Problem(case="a", file="labelsTr", setting="max_memory_gib", **text),
    ]
    assert told(DatasetError(problems)) == (
        "sparseunet check: error: (--batch-size): found 9; expected 1 to 8; take fewer\n"
        "error: (architecture): found 9; expected 1 to 8; take fewer\n"
        "error: a (labelsTr, --max-memory): found 9; expected 1 to 8; take fewer\n"
    )
