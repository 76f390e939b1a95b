"""How many processors a process may use, by whatever limits it."""

import os

import pytest

from sparseunet.cli.environment import available_cpus
from sparseunet.machine import cpus_of_cgroups

IN_A_CONTAINER = "0::/\n"
IN_A_JOB = "0::/system.slice/job_7/task_0\n"
FIRST_VERSION = "4:memory:/jobs\n3:cpu,cpuacct:/jobs/7\n1:name=systemd:/\n"


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="ascii")


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (IN_A_CONTAINER, {"cpu.max": "400000 100000\n"}, 4),
        (IN_A_CONTAINER, {"cpu.max": "250000 100000\n"}, 2),
        (IN_A_CONTAINER, {"cpu.max": "50000 100000\n"}, 1),
        (IN_A_CONTAINER, {"cpu.max": "max 100000\n"}, None),
        (IN_A_CONTAINER, {}, None),
        (
            IN_A_JOB,
            {
                "system.slice/job_7/task_0/cpu.max": "max 100000\n",
                "system.slice/job_7/cpu.max": "300000 100000\n",
                "system.slice/cpu.max": "800000 100000\n",
            },
            3,
        ),
        (
            FIRST_VERSION,
            {"cpu/jobs/7/cpu.cfs_quota_us": "200000", "cpu/jobs/7/cpu.cfs_period_us": "100000"},
            2,
        ),
        (
            FIRST_VERSION,
            {"cpu/jobs/7/cpu.cfs_quota_us": "-1", "cpu/jobs/7/cpu.cfs_period_us": "100000"},
            None,
        ),
        ("", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_the_smallest_quota_above_a_process_counts_in_whole_processors(
    tmp_path, groups, files, expected
):
    write(tmp_path, files)
    assert cpus_of_cgroups(groups, tmp_path) == expected


def test_what_slurm_gives_a_task_and_torchrun_a_process_is_not_exceeded(monkeypatch):
    for name in ("SLURM_CPUS_PER_TASK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    everything = available_cpus()
    assert 1 <= everything <= (os.cpu_count() or 1)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert available_cpus() == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", str(everything + 1))
    assert available_cpus() == everything
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(everything))
    assert available_cpus() == 1
