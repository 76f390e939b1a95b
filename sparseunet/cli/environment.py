"""The only module that reads environment variables."""

import os
from pathlib import Path

from sparseunet.workspace import Workspace


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
    """Return the number of processors this process may use (cgroup and SLURM masks respected)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_thread_count() -> bool:
    """Whether somebody has said how many threads a process may compute with."""
    return any(os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))
