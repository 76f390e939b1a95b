"""How much faster torch's fused optimisers step; on one thread, with nothing else running.

OMP_NUM_THREADS=1 python tests/performance/fused_optimisers.py
"""

import argparse
import time

import torch

from sparseunet.networks.build import build_network
from sparseunet.planning.plan import NetworkPlan
from sparseunet.training.optimisation import OPTIMIZERS, new_optimizer
from sparseunet.training.recipe import Recipe

STEPS, REPEATS = 20, 5


def step_s(optimizer: str, *, fused: bool) -> float:
    """Return the shortest time of a step over 5.6 million weights."""
    torch.manual_seed(0)
    plan = NetworkPlan(
        architecture="plain_unet",
        features_per_stage=(32, 64, 128, 256),
        kernel_sizes=((3, 3, 3),) * 4,
        strides=((1, 1, 1), *((2, 2, 2),) * 3),
        encoder_depths=(2,) * 4,
        decoder_depths=(2,) * 3,
    )
    network = build_network(plan, num_input_channels=1, num_outputs=3, deep_supervision=True)
    steps = new_optimizer(network, Recipe(optimizer=optimizer))
    for group in steps.param_groups:
        group["fused"] = fused
    for weight in network.parameters():
        weight.grad = torch.randn_like(weight)
    times_s = []
    for _ in range(STEPS):
        start = time.perf_counter()
        steps.step()
        times_s.append(time.perf_counter() - start)
    return min(times_s[3:])


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name in OPTIMIZERS:
        plain = min(step_s(name, fused=False) for _ in range(REPEATS))
        fused = min(step_s(name, fused=True) for _ in range(REPEATS))
        print(
            f"{name}: {plain * 1000:.1f} ms, fused {fused * 1000:.1f} ms, {plain / fused:.2f} times"
        )
