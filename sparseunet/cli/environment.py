"""The only module that reads environment variables."""

import os
from collections.abc import Iterator
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


_CGROUPS = Path("/sys/fs/cgroup")


def available_cpus() -> int:
    """Return the number of processors this process may use.

    The smallest of what the system's mask, a cgroup's quota (`docker --cpus`, rounded down) and
    SLURM (`--cpus-per-task`) allow. Processes that `torchrun` started on this machine share them.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = [cpus, cpus_of_cgroups(_own_cgroups(), _CGROUPS)]
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    found.append(int(slurm) if slurm.isdigit() and int(slurm) else None)
    cpus = min(each for each in found if each is not None)
    together = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, cpus // int(together)) if together.isdigit() and int(together) else cpus


def cpus_of_cgroups(groups: str, root: Path) -> int | None:
    """Return the smallest quota of processor time among a process' cgroups, in whole processors.

    Args:
        groups: What `/proc/self/cgroup` says.
        root: Where cgroups are mounted.

    Returns:
        At least 1; None without a quota.
    """
    quotas = []
    for folder, is_first_version in _cgroup_folders(groups, "cpu", root):
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if is_first_version else ("cpu.max",)
        try:
            words = " ".join((folder / name).read_text(encoding="ascii") for name in names).split()
        except OSError:
            continue
        if len(words) == 2 and all(word.isdigit() and int(word) for word in words):
            quotas.append(max(1, int(words[0]) // int(words[1])))
    return min(quotas, default=None)


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
    except OSError:
        return None
    meminfo = dict(line.split(":", 1) for line in lines)
    found = [int(meminfo["MemAvailable"].split()[0]) * 1024]
    for folder, is_first_version in _cgroup_folders(_own_cgroups(), "memory", _CGROUPS):
        names = ("memory.max", "memory.current", "file")
        if is_first_version:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")
        left = _left_in_cgroup(folder, *names)
        found += [] if left is None else [left]
    return min(found)


def _own_cgroups() -> str:
    try:
        return Path("/proc/self/cgroup").read_text(encoding="utf-8")
    except OSError:
        return ""


def _cgroup_folders(groups: str, controller: str, root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the folders that may limit this process, and whether they are of the first version."""
    for line in groups.splitlines():
        _, controllers, group = line.split(":", 2)
        is_first_version = controller in controllers.split(",")
        if controllers and not is_first_version:
            continue
        top = root / controller if is_first_version else root
        folder = top / group.strip("/")
        yield from (
            (path, is_first_version)
            for path in (folder, *folder.parents)
            if path.is_relative_to(top)
        )


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
