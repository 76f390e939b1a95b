"""What is set once per process."""

import subprocess
import sys

import pytest
import torch

from sparseunet.machine import Processor, parse_cpuinfo, this_processor
from sparseunet.networks.device import bfloat16_pays, resolve_precision
from sparseunet.runs.hardware import compute_threads

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


AMD = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu avx2 avx512f avx512_bf16

processor\t: 1
vendor_id\t: SomebodyElse
"""
XEON = "vendor_id : GenuineIntel\ncpu family : 6\nflags : avx2 avx512f avx512_bf16"


@pytest.mark.parametrize(
    ("cpuinfo", "applying", "learning"),
    [
        (AMD, True, True),
        (AMD.replace(" avx512_bf16", ""), False, False),
        (XEON, True, False),
        (f"{XEON} amx_bf16", False, False),
        (XEON.replace("GenuineIntel", "CentaurHauls"), False, False),
        ("processor : 0\nCPU implementer : 0x41\nFeatures : fp asimd bf16", False, False),
        ("", False, False),
    ],
    ids=["EPYC", "old EPYC", "Xeon", "Xeon with AMX", "another vendor", "ARM", "nothing known"],
)
def test_the_processor_alone_decides_the_precision(cpuinfo, applying, learning):
    processor = parse_cpuinfo(cpuinfo)
    assert bfloat16_pays(processor, learning=False) is applying
    assert bfloat16_pays(processor, learning=True) is learning


def test_cpuinfo_is_read_as_far_as_it_goes():
    found = parse_cpuinfo(AMD)
    assert (found.vendor, found.family) == ("AuthenticAMD", 25)
    assert parse_cpuinfo("cpu family : unknown\nnonsense") == Processor()


@pytest.mark.parametrize("learning", [False, True])
def test_auto_on_a_cpu_is_what_the_processor_says(learning):
    pays = bfloat16_pays(this_processor(), learning=learning)
    found = resolve_precision("auto", torch.device("cpu"), learning=learning)
    assert found is (torch.bfloat16 if pays else None)
