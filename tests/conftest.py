"""Where real data lies, and what happens without it."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("without_a_clock", deadline=None)
settings.load_profile("without_a_clock")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So it is in the background of a shell, and processes that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real datasets; without it a test skips, except in CI, where it fails."""
    root = Path(os.environ.get("SPARSEUNET_TEST_DATA", _BESIDE_THE_CHECKOUT))
    if root.is_dir():
        return root
    message = f"no test data at {root}; set SPARSEUNET_TEST_DATA to the folder of datasets"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
