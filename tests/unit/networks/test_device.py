"""What is set once per process."""

import subprocess
import sys

import pytest

from sparseunet.cli.train_fold import compute_threads

FAULTS = """
import resource, sys, torch
from sparseunet.networks.device import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    raise SystemExit(3)
for _ in range(20):
    torch.zeros(16_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.zeros(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_that_is_kept_is_not_fetched_page_by_page_again():
    found = {}
    for mode in ("keep", "leave"):
        process = subprocess.run(
            [sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=False
        )
        if process.returncode == 3:
            pytest.skip("this C library has no mallopt")
        found[mode] = int(process.stdout)
    assert found["keep"] < found["leave"] / 10


@pytest.mark.parametrize(
    ("cpus", "num_workers", "threads"),
    [(1, 0, 1), (1, 1, 1), (2, 0, 2), (2, 1, 2), (4, 1, 3), (16, 4, 12), (8, 12, 2)],
)
def test_workers_get_processors_of_their_own(cpus, num_workers, threads):
    assert compute_threads(cpus, num_workers) == threads
