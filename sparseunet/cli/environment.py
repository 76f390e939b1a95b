"""The only module that reads environment variables."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.errors import RequestError
from sparseunet.machine import processors
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
    """Return the number of processors this process may use.

    The smaller of what the machine allows (`machine.processors`) and SLURM (`--cpus-per-task`).
    Processes that `torchrun` started on this machine share them.
    """
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    cpus = processors()
    if slurm.isdigit() and int(slurm):
        cpus = min(cpus, int(slurm))
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
