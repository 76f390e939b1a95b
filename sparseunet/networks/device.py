"""Which device and precision networks run in."""

import contextlib
import ctypes
from dataclasses import dataclass

import torch
from torch import nn

from sparseunet.errors import RequestError
from sparseunet.machine import Processor, this_processor

PRECISIONS = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""Name to the autocast type; None for no autocast."""
DTYPE_NAMES = {dtype: name for name, dtype in PRECISIONS.items()}
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's `mallopt`, from its `malloc.h`."""
_TOP_PAD_BYTES = 64 * 2**20


def resolve_device(name: str) -> torch.device:
    """Return the torch device called `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        RequestError: The device is not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": _has_mps()}
    kind = name.split(":")[0]
    if not available.get(kind, False):
        there = ", ".join(key for key, here in available.items() if here)
        raise RequestError(
            f"Device {name!r} is not on this machine; expected one of: auto, {there}."
        )
    return torch.device(name)


def resolve_precision(name: str, device: torch.device, *, learning: bool) -> torch.dtype | None:
    """Return the autocast type for `auto`, `float32`, `bfloat16` or `float16`; None for float32.

    `auto` is float16 on CUDA, float32 on MPS, and on a CPU bfloat16 where that was measured to pay
    on such a processor (`bfloat16_pays`), else float32.

    Args:
        name: What is asked for.
        device: Where networks run.
        learning: Whether they are trained there, or only applied.

    Raises:
        RequestError: The name is unknown.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.float16
        faster = device.type == "cpu" and bfloat16_pays(this_processor(), learning=learning)
        return torch.bfloat16 if faster else None
    if name not in PRECISIONS:
        raise RequestError(
            f"No precision {name!r}; expected one of: auto, {', '.join(PRECISIONS)}."
        )
    return PRECISIONS[name]


def autocast(
    device: torch.device, dtype: torch.dtype | None
) -> contextlib.AbstractContextManager[object]:
    """Return torch's autocast context for `dtype`, or one that does nothing for float32."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def require_compiler(device: torch.device) -> None:
    """Compile a small function, to see that networks can be.

    Raises:
        RequestError: There is no working compiler.
    """
    try:
        torch.compile(torch.sin)(torch.zeros(1, device=device))
    except RuntimeError as error:  # of torch's compiler all errors are
        reason = str(error).partition("\n")[0][:200]
        raise RequestError(
            f"Compiling needs a working C++ compiler, and on a GPU Triton, for {device}: {reason} "
            "Install them or do not compile.",
            setting="compile",
        ) from None


def compile_network(network: nn.Module) -> None:
    """Let torch compile a network when it is first used.

    For fixed shapes: patches have one size, and torch 2.13 fails on some networks if it has to
    allow for others, which it does as soon as it has seen two.
    """
    network.compile(dynamic=False)


def keep_freed_memory() -> bool:
    """Make this process keep the memory it frees, for training on a CPU; whether that worked.

    Feature maps are so large that glibc asks the kernel for each of them and hands each back, so
    that every step touches fresh pages. Kept instead, a step of a small 3D network took 0.6 of the
    processor time in float32 and 0.8 in bfloat16, for 19 % and 3 % more memory at most. Child
    processes inherit the setting. Does nothing where the C library has no `mallopt` (musl, macOS,
    Windows).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bfloat16:
    """Processors on which bfloat16 pays.

    Attributes:
        vendor: As `Processor.vendor`.
        instructions: That the processor must have, all of them.
        lacks: Instructions that it must not have.
        applying: Whether networks are applied faster.
        learning: Whether they are trained faster.
        measured: What stands behind it.
    """

    vendor: str
    instructions: frozenset[str]
    lacks: frozenset[str] = frozenset()
    applying: bool
    learning: bool
    measured: str


_BFLOAT16 = (
    _Bfloat16(
        vendor="AuthenticAMD",
        instructions=frozenset({"avx512_bf16"}),
        applying=True,
        learning=True,
        measured="EPYC of family 25 (Zen 4), two cores, torch 2.13: a patch of 40×56×40 through a "
        "U-Net is predicted in 56 ms, in float32 in 132 ms; training is faster, too",
    ),
    _Bfloat16(
        vendor="GenuineIntel",
        instructions=frozenset({"avx512_bf16"}),
        lacks=frozenset({"amx_bf16"}),
        applying=True,
        learning=False,
        measured="Xeon without AMX, torch 2.13: networks are applied 1.3 times as fast and trained "
        "1.5 times as slowly",
    ),
)
"""Every processor on which bfloat16 was measured to pay; on all others float32 is taken, also on
those with AMX, which nobody has measured. Nothing is timed when a command runs: the same command on
the same machine has to choose the same, however busy the machine is."""


def bfloat16_pays(processor: Processor, *, learning: bool) -> bool:
    """Whether networks are faster in bfloat16 than in float32 on a processor.

    Having the instructions is not enough, and applying and training differ.

    Args:
        processor: See `machine.this_processor`.
        learning: Whether networks are trained, or only applied.
    """
    for known in _BFLOAT16:
        fits = known.vendor == processor.vendor and known.instructions <= processor.instructions
        if fits and not known.lacks & processor.instructions:
            return known.learning if learning else known.applying
    return False


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
