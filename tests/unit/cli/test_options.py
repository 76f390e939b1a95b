"""Times are written as people write them."""

import argparse

import pytest

from sparseunet.cli.options import minutes


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30", 30), ("30m", 30), ("90min", 90), ("1.5h", 90), ("45s", 0.75), (" 2 H ", 120), ("0", 0)],
)
def test_a_time_is_in_minutes_unless_a_unit_is_said(text, expected):
    assert minutes(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "m", "soon", "3 days", "1.2.3h", "nan", "30mm"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="such as 30m"):
        minutes(text)
