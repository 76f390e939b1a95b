"""Which device and precision networks run in."""

import contextlib
import ctypes
import logging
import time
from functools import cache

import torch
from torch import nn

from sparseunet.errors import RequestError

logger = logging.getLogger(__name__)

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

    `auto` is float16 on CUDA, float32 on MPS, and on a CPU whichever of bfloat16 and float32 a
    convolution is faster in right now (measured once per process, about a fifth of a second).

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
        faster = device.type == "cpu" and bfloat16_is_faster(learning=learning)
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
            f"--compile needs a working C++ compiler, and on a GPU Triton, for {device}: {reason} "
            "Install them or leave it out."
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


@cache
def bfloat16_is_faster(*, learning: bool) -> bool:
    """Whether this processor is at least 1.2 times as fast in bfloat16 as in float32.

    Having the instructions is not enough, and the passes differ: a Xeon with avx512_bf16 but
    without AMX applied networks 1.3 times as fast in bfloat16 and trained them 1.5 times as slowly.
    """
    time_s = _time_learning if learning else _time_answer
    float32_s, bfloat16_s = (
        min(time_s(dtype) for _ in range(6)) for dtype in (None, torch.bfloat16)
    )
    logger.info("A test convolution: float32 %.4f s, bfloat16 %.4f s", float32_s, bfloat16_s)
    return bfloat16_s * 1.2 < float32_s


def _time_answer(dtype: torch.dtype | None) -> float:
    """Return the seconds of a convolution of one sample, as most patches are predicted."""
    convolution = nn.Conv3d(32, 32, 3, padding=1)
    voxels_BCZYX = torch.ones(1, 32, 24, 24, 24)
    with torch.inference_mode():
        start = time.perf_counter()
        with autocast(torch.device("cpu"), dtype):
            convolution(voxels_BCZYX)
        return time.perf_counter() - start


def _time_learning(dtype: torch.dtype | None) -> float:
    """Return the seconds of both passes through a convolution.

    Of two samples, because with one thread torch has a slow kernel for one sample in float32.
    """
    convolution = nn.Conv3d(32, 32, 3, padding=1)
    voxels_BCZYX = torch.ones(2, 32, 16, 16, 16, requires_grad=True)
    with torch.enable_grad():
        start = time.perf_counter()
        with autocast(torch.device("cpu"), dtype):
            convolution(voxels_BCZYX).sum().backward()
        return time.perf_counter() - start


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
