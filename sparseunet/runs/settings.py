"""From what a person asks for to a configuration and a recipe with every value settled."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.planning.architectures import require_extra
from sparseunet.planning.overrides import (
    require_trainable,
    with_architecture,
    with_base_features,
    with_batch_size,
    with_patch_size,
    with_planned_patch,
)
from sparseunet.planning.plan import Configuration
from sparseunet.preprocessing.case import Restoration
from sparseunet.training.augmentation import load_augmentation
from sparseunet.training.losses import load_loss
from sparseunet.training.losses.comparison import weights_by_output
from sparseunet.training.mirroring import choose_mirror_axes
from sparseunet.training.presets import Preset, find_preset, named_class_weights
from sparseunet.training.recipe import DEFAULT_TRUST, Recipe
from sparseunet.training.sampling import resolve_shares


@dataclass(frozen=True, kw_only=True, slots=True)
class Overrides:
    """What a training changes of its plan; None leaves a value as it is planned.

    Attributes:
        preset: Name of a paper's network, patch, batch and recipe, or `nnunet`.
        architecture: Another network than planned: a name, or a function that builds one.
        patch_size: Voxels per axis, slowest first.
        batch_size: Patches per step.
        base_features: Features at full resolution.
    """

    preset: str = "nnunet"
    architecture: str | Callable[..., Any] | None = None
    patch_size: Sequence[int] | None = None
    batch_size: int | None = None
    base_features: int | None = None


def override_configuration(configuration: Configuration, overrides: Overrides) -> Configuration:
    """Return the plan's configuration with what preset and overrides change of it.

    Raises:
        RequestError: They do not fit the configuration or each other, or the network needs a
            package that is not installed.
    """
    preset = find_preset(overrides.preset, dimensions=configuration.dimensions)
    architecture = overrides.architecture or preset.architecture
    batch_size = preset.batch_size if overrides.batch_size is None else overrides.batch_size
    if architecture is not None:
        configuration = with_architecture(configuration, architecture)
    if overrides.patch_size is not None:
        configuration = with_patch_size(configuration, overrides.patch_size)
    elif preset.patch_size is not None:
        configuration = with_planned_patch(configuration, preset.patch_size)
    if batch_size is not None:
        configuration = with_batch_size(configuration, batch_size)
    if overrides.base_features is not None:
        configuration = with_base_features(configuration, overrides.base_features)
    require_trainable(configuration)
    require_extra(configuration.network.architecture)
    return configuration


def given_settings(recipe: Recipe | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what somebody chose: the values of a mapping, or the fields that are not at default.

    Raises:
        RequestError: A name is no field of `Recipe`.
    """
    if recipe is None:
        return {}
    if isinstance(recipe, Mapping):
        unknown = sorted(recipe.keys() - {each.name for each in fields(Recipe)})
        if unknown:
            raise RequestError(f"A recipe has no {', '.join(unknown)}.", setting="recipe")
        return dict(recipe)
    return {
        each.name: getattr(recipe, each.name)
        for each in fields(recipe)
        if getattr(recipe, each.name)
        != (each.default_factory() if each.default_factory is not MISSING else each.default)
    }


def settle_recipe(
    recipe: Recipe | Mapping[str, Any] | None,
    configuration: Configuration,
    *,
    preset: str,
    planned_iterations: int | None,
    time_chooses_length: bool,
    labels: LabelSchema,
    scans: Iterable[Restoration],
) -> tuple[Recipe, str | None]:
    """Return the recipe with nothing left open: of the preset, with what somebody chose.

    A command and a script that ask for the same get the same recipe here, and so the same run.

    Args:
        recipe: What somebody chose, see `given_settings`.
        configuration: Of the plan, overrides applied.
        preset: Name of a preset.
        planned_iterations: Of a plan for a time budget; hold where neither recipe nor preset say
            more.
        time_chooses_length: Whether a time budget will replace the number of iterations.
        labels: The dataset's classes; where they come in left/right pairs, one axis is not
            mirrored.
        scans: How each training case was brought to the network's grid.

    Returns:
        The recipe, and a sentence about the axes that are mirrored where it is not all of them.

    Raises:
        RequestError: A value is out of its range, or does not fit the classes.
    """
    chosen = find_preset(preset, dimensions=configuration.dimensions)
    given = given_settings(recipe)
    values: dict[str, Any] = dict(chosen.recipe) | given
    if time_chooses_length:
        values.pop("iterations", None)
    values["trust"] = DEFAULT_TRUST | dict(given.get("trust", {}))
    if "class_weights" not in given:
        values["class_weights"] = _class_weights(preset, chosen, labels.classes)
    notice = None
    if values.get("mirror_axes") is None:
        names = (*labels.classes, *labels.regions)
        choice = choose_mirror_axes(names, scans, dimensions=configuration.dimensions)
        values["mirror_axes"], notice = choice.axes, choice.notice
    settled = Recipe(**values).resolved(
        planned_iterations=None if time_chooses_length else planned_iterations,
        mirror_axes=values["mirror_axes"],
    )
    _require_axes(settled, configuration)
    _require_training_patch(settled, configuration, time_chooses=time_chooses_length)
    load_loss(settled.loss)  # wrong names are refused before anything is written
    load_augmentation(settled.augmentation)
    resolve_shares(settled.patch_shares, labels)
    weights_by_output(labels, settled.class_weights)
    return settled, notice


def _class_weights(name: str, preset: Preset, classes: Mapping[str, int]) -> dict[str, float]:
    if preset.class_weights is None:
        return {}
    return named_class_weights(name, preset.class_weights, classes)


def _require_training_patch(
    recipe: Recipe, configuration: Configuration, *, time_chooses: bool
) -> None:
    """Check that the network takes the patches that are to be learned from.

    Raises:
        RequestError: It does not, or a time budget chooses the patch.
    """
    if recipe.training_patch is None:
        return
    problem = None
    if time_chooses:
        problem = "A time budget chooses the patch; leave one of them out."
    elif "patch_size" in configuration.network.arguments:
        problem = (
            f"{configuration.network.architecture} is built for one size of patches, so it cannot "
            "learn from others than it predicts; change the patch of both."
        )
    try:
        with_patch_size(configuration, recipe.training_patch)
    except RequestError as error:
        problem = str(error)
    if problem is not None:
        raise RequestError(problem, setting="training_patch")


def _require_axes(recipe: Recipe, configuration: Configuration) -> None:
    known = range(configuration.dimensions)
    if any(axis not in known for axis in recipe.mirrored_axes):
        raise RequestError(
            f"Cannot mirror axes {' '.join(map(str, recipe.mirrored_axes))}: expected axes of the "
            f"{configuration.dimensions}D patch, from {', '.join(map(str, known))}, or none.",
            setting="mirror_axes",
        )
