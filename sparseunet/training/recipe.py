"""What a person may choose about a training, with nnU-Net 2.8.1's values as defaults."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from sparseunet.artifacts import identity_of
from sparseunet.errors import RequestError
from sparseunet.named_functions import path_of, wrong_name
from sparseunet.training.choices import (
    AUGMENTATIONS,
    CASE_WEIGHTINGS,
    LOSSES,
    OPTIMIZERS,
    SAMPLERS,
    SCHEDULES,
    Named,
)

DEFAULT_TRUST: dict[str, float] = {"manual": 1.0, "interpolated": 1.0, "pseudo": 1.0}
"""Loss weight of each source of labels."""
_DEFAULT_EPOCHS = 1000
_STEPS_PER_EPOCH = 250
_LEAST_EPOCHS = 20
"""An epoch is shorter where a training of known length would have fewer."""
_ALL_AXES = (0, 1, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The recipe of one training. Two runs with equal recipe, plan and data are the same run.

    What is None because the data decides is settled by `resolved`. Functions of yours are given as
    `package.module:function` or as they are; then their names are kept. Of the fields' metadata,
    `functions` and `choices` hold the names there are, `what` how messages call them, and `since`
    the version that brought a field, see `identity`.

    Attributes:
        iterations: Optimiser steps of the whole training; by default those of a plan for a time, or
            else 1000 epochs.
        iterations_per_epoch: Steps between two lines of the log, validations and checkpoints; by
            default 250, or a twentieth of a given length where that is less.
        optimizer: Which optimiser.
        learning_rate: At the start, or after the warm-up; the schedule says how it falls.
        momentum: Of `sgd`, which is Nesterov's; `adam` and `adamw` do not use it.
        weight_decay: Of the optimiser.
        schedule: How the learning rate falls.
        poly_exponent: Of `poly`: (1 - step / iterations) ** exponent.
        decay_factor: Of `step`: what the learning rate is multiplied by, every so many steps.
        decay_every: Of `step`: steps between two decays.
        warmup: Steps over which the learning rate climbs from 0; the schedule runs over the rest.
        gradient_norm: Gradients are scaled down to this norm.
        foreground_share: Share of each batch whose patches must hold a voxel of a class present in
            the case.
        patch_shares: By class, `background`, `unannotated` or `rest` (anywhere): how often a patch
            must hold a voxel of it, e.g. `liver=50 tumour=30 rest=20`; in place of the foreground
            share.
        case_weighting: How often each case is drawn: alike, or by the number of its annotated
            slices or its square root.
        loss: What is made small.
        class_weights: Weight in the cross-entropy of a class, background included, or of a region,
            e.g. `background=0.04 tumour=1.4`; others have 1.
        batch_dice: One Dice over the whole batch, or one per patch; by default the plan's choice
            where every case is dense, else over the batch, because a class is missing from most
            small sets of annotated slices.
        augmentation: How patches are changed at random.
        mirror_axes: Axes of the patch that are mirrored at random, and in prediction; on the
            command line also `none`. By default all, without the left-right one where labels come
            in left/right pairs.
        trust: Weight in the loss of labels by source, from 0 (as if not annotated) to 1, e.g.
            `interpolated=0.5 pseudo=0.3`.
        seed: Same seed, same weights.
        sampler: Where patches lie in their cases; with one of yours, shares of patches mean
            nothing.
        enough_annotated: Share of the voxels of a batch that are to be annotated for the
            cross-entropy to weigh as much as the Dice; where fewer are, it weighs in proportion
            less. 0: always as much.
        training_patch: Voxels per axis, slowest first, of the patches that are learned from; by
            default the plan's patch, which prediction keeps in any case. Thin across the annotated
            slices, with a larger batch, a step of equal cost holds more annotated voxels.
    """

    iterations: int | None = None
    iterations_per_epoch: int | None = None
    optimizer: Named = field(default="sgd", metadata={"what": "optimiser", "functions": OPTIMIZERS})
    learning_rate: float = 1e-2
    momentum: float = 0.99
    weight_decay: float = 3e-5
    schedule: Named = field(default="poly", metadata={"what": "schedule", "functions": SCHEDULES})
    poly_exponent: float = 0.9
    decay_factor: float = 0.7
    decay_every: int = 2000
    warmup: int = 0
    gradient_norm: float = 12.0
    foreground_share: float = 0.33
    patch_shares: dict[str, float] | None = None
    case_weighting: str = field(
        default="uniform", metadata={"what": "case weighting", "choices": tuple(CASE_WEIGHTINGS)}
    )
    loss: Named = field(default="dice_ce", metadata={"what": "loss", "functions": LOSSES})
    class_weights: dict[str, float] = field(default_factory=dict)
    batch_dice: bool | None = None
    augmentation: Named = field(
        default="nnunet", metadata={"what": "augmentation", "functions": AUGMENTATIONS}
    )
    mirror_axes: tuple[int, ...] | None = None
    trust: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_TRUST))
    seed: int = 0
    sampler: Named = field(
        default="nnunet", metadata={"what": "sampler", "functions": SAMPLERS, "since": "0.2"}
    )
    enough_annotated: float = field(default=0.25, metadata={"since": "0.3"})
    training_patch: tuple[int, ...] | None = field(default=None, metadata={"since": "0.3"})

    def __post_init__(self) -> None:
        problems = [*_name_functions(self), *_find_problems(self)]
        if problems:
            message = "\n".join(sentence for _, sentence in problems)
            raise RequestError(message, setting=problems[0][0])

    @property
    def num_iterations(self) -> int:
        """Optimiser steps of the whole training."""
        return self._length(None)[0]

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last one may be shorter."""
        return self._length(None)[1]

    @property
    def epochs(self) -> int:
        """Number of epochs, the last one perhaps shorter."""
        return -(-self.num_iterations // self.steps_per_epoch)

    @property
    def mirrored_axes(self) -> tuple[int, ...]:
        """Axes of the patch that are mirrored."""
        return _ALL_AXES if self.mirror_axes is None else self.mirror_axes

    def resolved(
        self, *, planned_iterations: int | None = None, mirror_axes: tuple[int, ...]
    ) -> "Recipe":
        """Return the recipe with everything settled that it left open.

        Args:
            planned_iterations: Of a plan for a time.
            mirror_axes: What the data allows.

        Raises:
            RequestError: The warm-up is not shorter than the training that comes out.
        """
        iterations, per_epoch = self._length(planned_iterations)
        axes = mirror_axes if self.mirror_axes is None else self.mirror_axes
        return replace(
            self, iterations=iterations, iterations_per_epoch=per_epoch, mirror_axes=axes
        )

    def identity(self) -> dict[str, Any]:
        """Return what tells a resolved recipe from others: every field by name.

        A field that came in a later version is left out while it has its default, so that the names
        of older runs stay theirs.
        """
        if None in (self.iterations, self.iterations_per_epoch, self.mirror_axes):
            raise ValueError("only a resolved recipe has an identity")
        return identity_of(self)

    def _length(self, planned_iterations: int | None) -> tuple[int, int]:
        """Return iterations in all, and per epoch."""
        iterations, per_epoch = self.iterations, self.iterations_per_epoch
        if iterations is None:
            iterations = planned_iterations
        if per_epoch is None:
            per_epoch = _STEPS_PER_EPOCH
            if iterations is not None:
                per_epoch = max(1, min(_STEPS_PER_EPOCH, iterations // _LEAST_EPOCHS))
        return (_DEFAULT_EPOCHS * per_epoch if iterations is None else iterations), per_epoch


def _name_functions(recipe: Recipe) -> list[tuple[str, str]]:
    """Put names in the place of functions; return the field and what is wrong of each without."""
    problems = []
    for one in fields(recipe):
        given = getattr(recipe, one.name)
        if "functions" in one.metadata and callable(given):
            try:
                path = path_of(given, what=one.metadata["what"])
                object.__setattr__(recipe, one.name, path)
            except RequestError as error:
                problems.append((one.name, str(error)))
    return problems


def _find_problems(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the field and what is wrong with it, for each that is wrong."""
    yield from _wrong_names(recipe)
    yield from _wrong_numbers(recipe)
    yield from _wrong_weights(recipe)


def _wrong_names(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for one in fields(recipe):
        given, what = getattr(recipe, one.name), str(one.metadata.get("what"))
        if "functions" in one.metadata and not callable(given):
            problem = wrong_name(given, one.metadata["functions"], what=what)
            if problem is not None:
                yield one.name, problem
        if "choices" in one.metadata and given not in one.metadata["choices"]:
            known = ", ".join(one.metadata["choices"])
            yield one.name, f"There is no {what} {given!r}; choose from {known}."


_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "iterations": (lambda value: value >= 1, "iterations must be at least 1"),
    "iterations_per_epoch": (lambda value: value >= 1, "iterations_per_epoch must be at least 1"),
    "decay_every": (lambda value: value >= 1, "decay_every must be at least 1"),
    "seed": (lambda value: value >= 0, "The seed must be 0 or more"),
    "learning_rate": (lambda value: value > 0, "The learning rate must be positive"),
    "momentum": (lambda value: 0 <= value < 1, "The momentum must be in [0, 1)"),
    "weight_decay": (lambda value: value >= 0, "The weight decay must be 0 or more"),
    "poly_exponent": (lambda value: value >= 0, "The exponent of poly must be 0 or more"),
    "decay_factor": (lambda value: 0 < value <= 1, "The decay factor must be in (0, 1]"),
    "gradient_norm": (lambda value: value > 0, "The norm of gradients must be positive"),
    "foreground_share": (
        lambda value: 0 <= value <= 1,
        "The foreground share must be from 0 to 1",
    ),
    "enough_annotated": (
        lambda value: 0 <= value <= 1,
        "The share of voxels that is enough must be from 0 to 1",
    ),
}


def _wrong_numbers(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for name, (fits, sentence) in _RANGES.items():
        value = getattr(recipe, name)
        if value is not None and not fits(value):
            yield name, f"{sentence}, found {value}."
    length_is_wrong = recipe.num_iterations < 1  # and was told above
    if not (length_is_wrong or 0 <= recipe.warmup < recipe.num_iterations):
        sentence = (
            f"The warm-up must be shorter than the training of {recipe.num_iterations} iterations, "
            f"found {recipe.warmup}."
        )
        yield "warmup", sentence


def _wrong_weights(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for name, weight in recipe.class_weights.items():
        if not 0 <= weight < math.inf:
            yield "class_weights", f"The weight of class {name} must be 0 or more, found {weight}."
    if recipe.class_weights and recipe.loss == "dice":
        sentence = (
            "Class weights act on the cross-entropy, and the loss dice has none; leave them out or "
            "choose dice_ce."
        )
        yield "class_weights", sentence
    weights = recipe.trust.values()
    in_range = all(0 <= weight <= 1 for weight in weights) and any(weights)
    if recipe.trust.keys() != DEFAULT_TRUST.keys() or not in_range:
        told = " ".join(f"{source}={weight:g}" for source, weight in recipe.trust.items())
        sentence = (
            f"The trust of {', '.join(DEFAULT_TRUST)} must be weights from 0 to 1, one of them "
            f"above 0; found {told}."
        )
        yield "trust", sentence
    shares = None if recipe.patch_shares is None else recipe.patch_shares.values()
    if shares is not None and not (min(shares, default=-1) >= 0 < sum(shares) < math.inf):
        sentence = (
            "Patch shares must be weights of at least 0, one of them above it, found "
            f"{recipe.patch_shares}."
        )
        yield "patch_shares", sentence
    if shares is not None and recipe.sampler not in SAMPLERS:
        sentence = (
            f"Patch shares mean nothing to the sampler {recipe.sampler}, which draws the places of "
            "all patches; leave one of them out."
        )
        yield "patch_shares", sentence
