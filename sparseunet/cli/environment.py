"""The only module that reads environment variables."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.errors import RequestError
from sparseunet.workspace import Workspace

if TYPE_CHECKING:
    from sparseunet.training.processes import Processes


def resolve_workspace(option: str | None) -> Workspace:
    """Return the workspace: the option, SPARSEUNET_WORKSPACE, nnU-Net's variables, or here."""
    root = option or os.environ.get("SPARSEUNET_WORKSPACE")
    if root:
        return Workspace.at(Path(root))
    here = Workspace.at(Path.cwd())
    return Workspace(
        raw=Path(os.environ.get("nnUNet_raw", here.raw)),
        preprocessed=Path(os.environ.get("nnUNet_preprocessed", here.preprocessed)),
        results=Path(os.environ.get("nnUNet_results", here.results)),
    )


def available_cpus() -> int:
    """Return the number of processors this process may use (cgroup and SLURM masks respected).

    Processes that `torchrun` started on this machine share them.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    together = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, cpus // int(together)) if together.isdigit() and int(together) else cpus


def has_thread_count() -> bool:
    """Whether somebody has said how many threads a process may compute with."""
    return any(os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))


def launched_processes() -> "Processes":
    """Return which process of a training this is: the only one, or what `torchrun` says.

    Raises:
        RequestError: The variables do not tell of processes that can meet.
    """
    from sparseunet.training.processes import ALONE, Processes

    if os.environ.get("WORLD_SIZE", "1") == "1":
        return ALONE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    found = {name: os.environ.get(name, "") for name in names}
    host = os.environ.get("MASTER_ADDR", "")
    if not host or not all(text.isdigit() for text in found.values()):
        told = ", ".join(f"{name}={text!r}" for name, text in found.items())
        raise RequestError(
            f"The environment tells of several processes, but not how they meet: {told}, "
            f"MASTER_ADDR={host!r}. Start them with torchrun, or unset WORLD_SIZE to train in one."
        )
    rank, count, local_rank, port = (int(found[name]) for name in names)
    return Processes(
        rank=rank,
        count=count,
        local_rank=local_rank,
        address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
    )


def available_memory_bytes() -> int | None:
    """Return how much memory this process may still take (cgroup limits respected; Linux only).

    What the kernel keeps of files counts as available. None: the system does not tell.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    meminfo = dict(line.split(":", 1) for line in lines)
    found = [int(meminfo["MemAvailable"].split()[0]) * 1024]
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "file")
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")
        else:
            continue
        folder = root / group.strip("/")
        found += [
            left
            for path in (folder, *folder.parents)
            if path.is_relative_to(root) and (left := _left_in_cgroup(path, *names)) is not None
        ]
    return min(found)


def _left_in_cgroup(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    """Return the limit of a cgroup minus what it uses for other than files; None without limit."""
    try:
        most, used = (
            (folder / name).read_text(encoding="ascii").strip() for name in (limit, usage)
        )
        statistics = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    if not most.isdigit():
        return None
    files = dict(line.split() for line in statistics).get(cache, "0")
    return max(0, int(most) - int(used) + int(files))
