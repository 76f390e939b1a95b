"""Networks that need an extra: their tests skip, and say so, where it is not installed."""

import sys
from importlib import import_module

import pytest
import torch

from sparseunet.planning.architectures import PACKAGES, find_architecture

_DECLARED = []
"""Keeps torch's registration alive."""


def skip_without_packages_of(architecture: str) -> None:
    """Skip the test unless the network can be built here."""
    extra = find_architecture(architecture).extra
    if extra == "vision2d":
        _declare_operators_of_torchvision()
    if extra is not None:
        reason = f"{PACKAGES[extra]} is not installed (extra {extra})"
        pytest.importorskip(PACKAGES[extra], reason=reason)


def _declare_operators_of_torchvision() -> None:
    """Let a torchvision for CUDA be imported beside a torch for CPU; no network calls the two."""
    try:
        import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")
        _DECLARED.append(library)
        import_module("torchvision")
