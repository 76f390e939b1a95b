"""From what a person asks for to the device, precision and processes that a training uses."""

from dataclasses import dataclass

import torch

from sparseunet.errors import RequestError
from sparseunet.machine import processors
from sparseunet.networks.device import require_compiler, resolve_device, resolve_precision
from sparseunet.training.processes import Processes
from sparseunet.training.step import Hardware


@dataclass(frozen=True, kw_only=True, slots=True)
class HardwareOptions:
    """Where and how a training computes; a run is the same run whatever is chosen here.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `float32`, `bfloat16` or `float16`.
        num_workers: Processes that make batches; None: one on a CPU, up to twelve on a GPU.
        num_processors: That this training may use; None: all that the machine allows.
        sets_threads: Whether the number of threads of a CPU is chosen here; else it stays.
        compile: Whether torch compiles the network.
        accumulate: Parts in which a batch passes the network, for less memory.
    """

    device: str = "auto"
    precision: str = "auto"
    num_workers: int | None = None
    num_processors: int | None = None
    sets_threads: bool = False
    compile: bool = False
    accumulate: int = 1

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 0:
            raise RequestError(
                f"The number of workers must be 0 or more, found {self.num_workers}.",
                setting="num_workers",
            )


def choose_hardware(options: HardwareOptions, processes: Processes) -> Hardware:
    """Return the hardware that is asked for.

    Raises:
        RequestError: The device, the precision or a compiler is not to be had.
    """
    device = _own_device(resolve_device(options.device), processes)
    workers, cpus = options.num_workers, options.num_processors or processors()
    if workers is None:
        workers = 1 if device.type == "cpu" else max(1, min(12, cpus - 1))
    if device.type == "cpu" and options.sets_threads:
        torch.set_num_threads(compute_threads(cpus, workers))
    if options.compile:
        require_compiler(device)
    return Hardware(
        device=device,
        dtype=resolve_precision(options.precision, device, learning=True),
        num_workers=workers,
        processes=processes,
        compiles=options.compile,
        num_parts=options.accumulate,
    )


def compute_threads(cpus: int, num_workers: int) -> int:
    """Return how many threads a CPU computes with: a processor for each worker is left.

    Two processors both compute, since one worker rarely needs a whole one.
    """
    return max(1, min(cpus, 2), cpus - num_workers)


def _own_device(device: torch.device, processes: Processes) -> torch.device:
    """Return the device of this process: of several, each has a GPU of its own."""
    if processes.count == 1 or device.type == "cpu":
        return device
    if device.type != "cuda" or device.index is not None:
        raise RequestError(
            f"Several processes train on cuda, a GPU each, or on cpu, found {device}.",
            setting="device",
        )
    if processes.local_rank >= torch.cuda.device_count():
        raise RequestError(
            f"This machine has {torch.cuda.device_count()} GPUs, too few for process "
            f"{processes.local_rank + 1}; start fewer processes, or train on cpu.",
            setting="device",
        )
    own = torch.device("cuda", processes.local_rank)
    torch.cuda.set_device(own)
    return own
