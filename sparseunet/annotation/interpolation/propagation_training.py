"""Teach a network to reconstruct slices from other slices of the same scan (Z25 appendix F)."""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sparseunet.networks.device import resolve_device
from sparseunet.networks.propagation import PropagationNetwork, carry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PropagationConfig:
    """How the network of learned propagation looks and learns."""

    num_iterations: int = 100
    """Each on one stack of slices of one scan; without meaning when a time budget is given."""
    num_slices: int = 6
    """Slices drawn per scan and iteration (K of Z25 appendix F)."""
    mean_gap: float = 2.0
    """The K slices are drawn from a run of K times as many slices: further apart than annotated
    slices ever are, slices of a long scan have nothing in common."""
    crop: int = 64
    """Side in pixels of the part of the slices that is trained on; the same for all K."""
    learning_rate: float = 1e-3
    carried_share: float = 0.75
    """Scheduled sampling: share of reconstructions, at the end of training, that start from a
    reconstruction instead of a real slice; grows from 0 (SSA, as Z25 appendix F takes it over)."""
    width: int = 16
    stride: int = 2
    radius: int = 6
    """Of the window in which a pixel looks for its like, in pixels of the finer in-plane axis."""


def train_propagation(
    stacks: Iterable[np.ndarray],
    *,
    radii: Sequence[tuple[int, int]],
    config: PropagationConfig,
    seed: int,
    device: str,
    time_budget_s: float | None = None,
) -> tuple[PropagationNetwork, list[float]]:
    """Train on slices of scans, without any label.

    Per iteration: K slices of one scan, in order; each is reconstructed from the slice before it
    and from the one after it. What is carried over is the intensities of that slice or, more often
    as training goes on, what the pass has made of them so far, as happens to masks later. The
    features always come from the real slices, which are known at use too.

    Args:
        stacks: Scans as (slice, channel, row, column), intensities in [0, 1], of two slices or
            more; read once, of which only the parts that are trained on stay in memory.
        radii: Window per scan, in pixels along rows and columns.
        config: What to train.
        seed: Same seed, same stacks, same number of threads: same network.
        device: Name of a torch device.
        time_budget_s: Train this long instead of for `config.num_iterations`.

    Returns:
        The network, ready for use, and the loss of every iteration.
    """
    start_s = time.perf_counter()
    random = np.random.default_rng(seed)
    samples = _draw_samples(stacks, radii, config, random)
    where = resolve_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PropagationNetwork(
            num_channels=samples[0][0].shape[1], width=config.width, stride=config.stride
        )
    network = network.to(where).train()
    optimizer = _optimizer(network, config)
    losses: list[float] = []
    done = 0.0
    while done < 1:
        slices, radius = samples[len(losses) % len(samples)]
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1 - done)
        slices_KCYX = torch.from_numpy(_mirror(slices, random).astype(np.float32)).to(where)
        carried = random.random(2 * config.num_slices) < config.carried_share * done
        loss = _reconstruction_loss(network, slices_KCYX, radius=radius, carried=carried.tolist())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        done = len(losses) / config.num_iterations
        if time_budget_s is not None:
            done = (time.perf_counter() - start_s) / time_budget_s
    duration_s = time.perf_counter() - start_s
    logger.info("Learned propagation: %d iterations in %.0f s", len(losses), duration_s)
    return network.eval(), losses


def _optimizer(network: PropagationNetwork, config: PropagationConfig) -> torch.optim.Optimizer:
    scalars = [network.log_sharpness, network.log_locality]
    weights = [weight for weight in network.parameters() if weight.ndim > 0]
    groups = [(weights, config.learning_rate), (scalars, 10 * config.learning_rate)]
    return torch.optim.Adam(
        [{"params": group, "lr": rate, "initial_lr": rate} for group, rate in groups]
    )


def _reconstruction_loss(
    network: PropagationNetwork,
    slices_KCYX: Tensor,
    *,
    radius: tuple[int, int],
    carried: Sequence[bool],
) -> Tensor:
    """Return the mean smooth L1 distance of the slices from their two reconstructions."""
    features = network(slices_KCYX)
    slices = slices_KCYX.permute(0, 2, 3, 1)
    last = len(slices) - 1
    reconstructed = slices[[0, last]]
    errors = []
    for step in range(last):
        from_ = torch.tensor([step, last - step], device=slices.device)
        to = torch.tensor([step + 1, last - step - 1], device=slices.device)
        replaced = torch.tensor(carried[2 * step : 2 * step + 2], device=slices.device)
        known = torch.where(replaced[:, None, None, None], reconstructed, slices[from_])
        reconstructed = carry(
            known,
            reference_BYXC=features[from_],
            target_BYXC=features[to],
            radius=radius,
            sharpness=network.log_sharpness.exp(),
            locality=network.log_locality.exp(),
        )
        errors.append(functional.smooth_l1_loss(reconstructed, slices[to], beta=0.1))
    return torch.stack(errors).mean()


def _draw_samples(
    stacks: Iterable[np.ndarray],
    radii: Sequence[tuple[int, int]],
    config: PropagationConfig,
    random: np.random.Generator,
) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """Return stacks of K slices (float16) of all scans, in random order, and their windows."""
    per_scan = -(-config.num_iterations // len(radii))
    samples = [
        (_draw_slices(stack, config, random), radius)
        for stack, radius in zip(stacks, radii, strict=True)
        for _ in range(per_scan)
    ]
    return [samples[index] for index in random.permutation(len(samples))]


def _draw_slices(
    stack: np.ndarray, config: PropagationConfig, random: np.random.Generator
) -> np.ndarray:
    run = min(len(stack), max(2, round(config.num_slices * config.mean_gap)))
    first = random.integers(len(stack) - run + 1)
    chosen = first + np.sort(random.permutation(run)[: config.num_slices])
    rows, columns = (
        slice(begin, begin + config.crop)
        for begin in (random.integers(max(1, size - config.crop + 1)) for size in stack.shape[2:])
    )
    return stack[chosen][:, :, rows, columns].astype(np.float16)


def _mirror(slices: np.ndarray, random: np.random.Generator) -> np.ndarray:
    axes = tuple(axis for axis in (2, 3) if random.random() < 0.5)
    return np.flip(slices, axes).copy()
