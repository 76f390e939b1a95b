"""What the library logs looks on the command line like what it is."""

import logging

import pytest

from sparseunet.cli.main import main
from sparseunet.cli.messages import show_messages

LOGGER = logging.getLogger("sparseunet.somewhere")


@pytest.fixture(autouse=True)
def normal_again():
    yield
    show_messages(is_quiet=False, is_verbose=False)


@pytest.mark.parametrize(
    ("quiet", "verbose", "out", "err"),
    [
        (False, False, "a result\n", "warning: odd\n"),
        (True, False, "", "warning: odd\n"),
        (False, True, "a detail\na result\n", "warning: odd\n"),
    ],
)
def test_results_go_to_standard_output_and_warnings_are_marked(capsys, quiet, verbose, out, err):
    show_messages(is_quiet=quiet, is_verbose=verbose)
    LOGGER.debug("a detail")
    LOGGER.info("a result")
    LOGGER.warning("odd")
    assert capsys.readouterr() == (out, err)


def test_shown_twice_nothing_is_told_twice(capsys):
    for _ in range(2):
        show_messages(is_quiet=False, is_verbose=False)
    LOGGER.info("once")
    assert capsys.readouterr().out == "once\n"


def test_an_error_with_a_setting_names_its_flag(tmp_path, capsys):
    (tmp_path / "preprocessed" / "Dataset001_A").mkdir(parents=True)
    words = ["--workspace", str(tmp_path), "train", "1", "2d", "0", "--checkpoint-minutes", "-1"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("sparseunet train: ")
