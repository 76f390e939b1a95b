"""What this machine lets a process use: processors and memory, limits of containers respected."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True, slots=True)
class Processor:
    """What the processor is, by its own account.

    Attributes:
        vendor: `AuthenticAMD`, `GenuineIntel`, ...; "" where the system does not say.
        family: Its number of the family; 0 where the system does not say.
        instructions: Names of instruction sets as Linux calls them, e.g. `avx512_bf16`.
    """

    vendor: str = ""
    family: int = 0
    instructions: frozenset[str] = frozenset()


@cache
def this_processor() -> Processor:
    """Return the processor of this machine; an unknown one where there is no `/proc/cpuinfo`."""
    try:
        return parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return Processor()


def parse_cpuinfo(text: str) -> Processor:
    """Return the first processor that a text like `/proc/cpuinfo` describes.

    Args:
        text: Lines `name : value`; what is missing stays unknown, as on ARM.
    """
    first = text.partition("\n\n")[0]
    entries = {
        name.strip(): value.strip()
        for name, colon, value in (line.partition(":") for line in first.splitlines())
        if colon
    }
    family = entries.get("cpu family", "")
    return Processor(
        vendor=entries.get("vendor_id", ""),
        family=int(family) if family.isdigit() else 0,
        instructions=frozenset(entries.get("flags", "").split()),
    )


def processors() -> int:
    """Return the number of processors this process may use, at least 1.

    The smaller of what the system's mask and a cgroup's quota (as docker sets it, rounded down)
    allow.
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpus_of_cgroups(_own_cgroups(), _CGROUPS)
    return max(1, min(each for each in (found or 1, quota) if each is not None))


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
