"""Features of slices learned without labels from the scans themselves, kept by content."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparseunet.annotation.selection.features import small_pictures
from sparseunet.annotation.selection.per_stack import stack_seed
from sparseunet.annotation.selection.slices import SelectionRequest, SliceStack
from sparseunet.artifacts import atomic_path, hash_content, hash_file
from sparseunet.errors import RequestError, SparseUNetError
from sparseunet.progress import track
from sparseunet.workers import WorkerDiedError, map_in_processes

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_VERSION = 1
"""To be raised when features of the same request change, so that kept ones are not used."""
_SIDE = 64
_BATCH = 32
_LEARNING_RATE = 5e-4
_MAX_ITERATIONS = 1000
_MAX_PICTURES = 6000
"""To train on, over all scans; 100 MB per channel."""
_NUM_TIMED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderRecipe:
    """Which encoder is trained, on which slices and for how long."""

    encoder: str
    """Name in `sparseunet.networks.slice_encoders.ENCODERS`."""
    axes: tuple[int, ...] | None
    """Slices to train on lie across these axes; None for the axis of each stack alone."""
    num_epochs: int
    """How often every slice to train on is seen, on average, unless that takes too many steps."""


def learn_features(
    stacks: Sequence[SliceStack], *, request: SelectionRequest, recipe: EncoderRecipe
) -> list[np.ndarray]:
    """Train one encoder on slices of all scans and return the features of every stack's slices.

    The number of iterations depends on the number of slices alone (the recipe's passes over at
    most 6000 drawn pictures with batch 32, at most 1000 iterations), so the same request gives the
    same features on the same machine. A time budget only cuts: if the first iterations show that it
    would not be met, fewer are done and a warning says how many.

    Args:
        stacks: At least one; all with the same channels.
        request: Uses seed, device, `num_workers` (processes that read), `time_budget_s` for the
            training alone, and `cache`: features are kept there under a hash of the images' bytes
            and of everything they depend on. Those of a cut training are reused for the same
            budget only.
        recipe: What is trained.

    Returns:
        float32, shape (slices K, D) per stack.

    Raises:
        RequestError: There is no such device, or the scans differ in their number of channels.
    """
    paths = _cache_paths(stacks, request=request, recipe=recipe)
    for path in paths:
        if path.is_file():
            with np.load(path) as kept:
                return [kept[str(number)] for number in range(len(stacks))]
    pictures, to_learn_from_NCYX = _read_pictures(stacks, request=request, recipe=recipe)
    features, was_cut = _train_and_encode(
        pictures, to_learn_from_NCYX, request=request, recipe=recipe
    )
    if paths:
        with atomic_path(paths[was_cut]) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **{str(number): found for number, found in enumerate(features)})  # type: ignore[arg-type]
    return features


def _cache_paths(
    stacks: Sequence[SliceStack], *, request: SelectionRequest, recipe: EncoderRecipe
) -> tuple[Path, ...]:
    """Return the file of features trained to the end, then that of those cut by this budget."""
    if request.cache is None:
        return ()
    content = {
        "version": _VERSION,
        "recipe": recipe,
        "seed": request.seed,
        "stacks": [
            [stack.case.name, stack.axis, *map(hash_file, stack.case.images)] for stack in stacks
        ],
    }
    names = (hash_content(content), hash_content({**content, "budget_s": request.time_budget_s}))
    return tuple(request.cache / f"slice_features_{name}.npz" for name in names)


def _read_pictures(
    stacks: Sequence[SliceStack], *, request: SelectionRequest, recipe: EncoderRecipe
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the slices of every stack as small pictures, and those to learn from."""
    num_each = max(1, _MAX_PICTURES // len(stacks))
    work = partial(_read_one, recipe=recipe, seed=request.seed, num_to_learn_from=num_each)
    read = map_in_processes(work, stacks, num_workers=request.num_workers)
    pictures, to_learn_from = [], []
    for stack, found in zip(
        stacks, track(read, total=len(stacks), label="Reading slices"), strict=True
    ):
        if isinstance(found, WorkerDiedError):
            raise SparseUNetError(f"{stack.case.name} was not read: a worker {found}.")
        pictures.append(found[0])
        to_learn_from.append(found[1])
    channels = {part.shape[1] for part in pictures}
    if len(channels) > 1:
        raise RequestError(
            f"Scans must have the same number of channels, found {sorted(channels)}."
        )
    return pictures, np.concatenate(to_learn_from)[:_MAX_PICTURES]


def _read_one(
    stack: SliceStack, *, recipe: EncoderRecipe, seed: int, num_to_learn_from: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures in float16, which halves memory and is finer than the noise of scans."""
    slices_KCYX = stack.read()
    own = small_pictures(slices_KCYX, side=_SIDE).astype(np.float16)
    random = np.random.default_rng(stack_seed(stack, seed))
    planes = [own]
    if recipe.axes is not None:
        volume_ZCYX = np.moveaxis(slices_KCYX, 0, stack.axis + 1)  # channels first
        planes = [
            small_pictures(np.moveaxis(volume_ZCYX, axis + 1, 0), side=_SIDE).astype(np.float16)
            for axis in recipe.axes
        ]
    every = np.concatenate(planes)
    drawn = random.permutation(len(every))[:num_to_learn_from]
    return own, every[drawn]


def _train_and_encode(
    pictures: Sequence[np.ndarray],
    to_learn_from_NCYX: np.ndarray,
    *,
    request: SelectionRequest,
    recipe: EncoderRecipe,
) -> tuple[list[np.ndarray], bool]:
    """Train an encoder on pictures and return the features of every scan.

    Args:
        pictures: Per scan (N, C, Y, X), the slices to encode.
        to_learn_from_NCYX: The slices to train on, of all scans.
        request: Seed, device and time budget.
        recipe: Which encoder, and for how many epochs.

    Returns:
        Features (N, D) per scan, and whether the time budget cut the training short.
    """
    import torch

    from sparseunet.networks.device import resolve_device
    from sparseunet.networks.slice_encoders import ENCODERS

    device = resolve_device(request.device)
    planned = min(_MAX_ITERATIONS, ceil(recipe.num_epochs * len(to_learn_from_NCYX) / _BATCH))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        network = ENCODERS[recipe.encoder](to_learn_from_NCYX.shape[1]).to(device)
        was_cut = _train(
            network,
            torch.from_numpy(to_learn_from_NCYX),
            device=device,
            planned=planned,
            time_budget_s=request.time_budget_s,
        )
    network.eval()
    with torch.inference_mode():
        features = [
            torch.cat(
                [
                    network(batch.to(device, torch.float32))
                    for batch in torch.from_numpy(part).split(8 * _BATCH)
                ]
            )
            .cpu()
            .numpy()
            for part in pictures
        ]
    return features, was_cut


def _train(
    network: "torch.nn.Module",
    pictures_NCYX: "torch.Tensor",
    *,
    device: "torch.device",
    planned: int,
    time_budget_s: float | None,
) -> bool:
    """Train in place; return whether the budget cut it."""
    import torch

    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE)
    iterations, done, start = planned, 0, time.monotonic()
    while done < iterations:
        chosen = torch.randint(len(pictures_NCYX), (min(_BATCH, len(pictures_NCYX)),))
        loss = network.loss(pictures_NCYX[chosen].to(device, torch.float32))  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        done += 1
        if done == _NUM_TIMED and time_budget_s is not None:
            each_s = (time.monotonic() - start) / done
            iterations = min(planned, max(done, int(time_budget_s / each_s)))
    duration_s = time.monotonic() - start
    if iterations < planned:
        logger.warning(
            "Features were trained for %d of %d iterations to keep within %g s; the choice of "
            "slices depends on it. Without a time budget the same request gives the same choice.",
            iterations,
            planned,
            time_budget_s,
        )
    logger.info("Trained features for %d iterations in %.1f s", done, duration_s)
    return iterations < planned
