"""Run a command and say what the tree of its processes cost. Linux only; reads /proc.

python tests/performance/measure.py -- sparseunet plan_and_preprocess -d 4
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

INTERVAL_S = 0.2
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a command needed."""

    returncode: int
    wall_s: float
    processor_s: float
    """User and system time of the command and all its descendants that it waited for."""
    peak_tree_mib: float
    """Largest sum over the tree of proportional set sizes, in which shared pages count once;
    sampled, so short peaks can be missed."""
    peak_process_mib: float
    """Largest resident set of a single process; sampled."""
    most_processes: int


def measure(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
    interval_s: float = INTERVAL_S,
) -> Cost:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        environment: Its environment variables; None for those of the caller.
        log: File for what it prints; None shows it.
        interval_s: Time between samples. Proportional sizes are sampled at every second.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with Path(log or os.devnull).open("wb") as stream:
        output = None if log is None else stream
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        sampler = _Sampler(process.pid, interval_s)
        sampler.start()
        returncode = process.wait()
        wall_s = time.perf_counter() - start
        sampler.done.set()
        sampler.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(
        returncode=returncode,
        wall_s=round(wall_s, 3),
        processor_s=round(processor_s, 3),
        peak_tree_mib=round(sampler.peak_tree / _MIB, 1),
        peak_process_mib=round(sampler.peak_process / _MIB, 1),
        most_processes=sampler.most_processes,
    )


class _Sampler(threading.Thread):
    """Looks at a process and its descendants until `done` is set."""

    def __init__(self, root: int, interval_s: float) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.peak_tree = self.peak_process = self.most_processes = 0
        self._root, self._interval_s = root, interval_s

    def run(self) -> None:
        turn = 0
        while not self.done.is_set():
            tree = _tree(self._root)
            self.most_processes = max(self.most_processes, len(tree))
            self.peak_process = max([self.peak_process, *tree.values()])
            if turn % 2 == 0:
                self.peak_tree = max(self.peak_tree, sum(map(_proportional_size, tree)))
            turn += 1
            self.done.wait(self._interval_s)


def _tree(root: int) -> dict[int, int]:
    """Return process id to resident bytes of a process and all its descendants."""
    children: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.name))
        resident[int(entry.name)] = int(fields[21]) * _PAGE
    found, waiting = {}, [root]
    while waiting:
        process = waiting.pop()
        if process in resident:
            found[process] = resident[process]
        waiting += children.get(process, [])
    return found


def _proportional_size(process: int) -> int:
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:  # it ended meanwhile
        pass
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    parser.add_argument("command", nargs="+", help="program and arguments, after --")
    arguments = parser.parse_args()
    cost = measure(arguments.command)
    text = json.dumps(asdict(cost), indent=1)
    print(text, file=sys.stderr)
    if arguments.output is not None:
        arguments.output.write_text(text)
    raise SystemExit(cost.returncode)


if __name__ == "__main__":
    main()
