"""Plan every network for a dataset from its fingerprint."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np

from sparseunet.errors import RequestError
from sparseunet.fingerprint.fingerprint import Fingerprint
from sparseunet.planning.memory import choose_batch_size, shrinking_candidates
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.planning.planners import PLANNERS, Planner, PlannerName
from sparseunet.planning.reasons import LowResolutionReasons, NetworkReasons, PlanReasons
from sparseunet.planning.spacing import (
    choose_spacing,
    choose_transpose,
    coarser_grids,
    median_resampled_shape,
)

logger = logging.getLogger(__name__)

PLANNED_CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
"""Every configuration a planner can make, in the order of the plans file."""

_LOWRES_BELOW_COVERAGE = 0.25
_LOWRES_MIN_REDUCTION = 2.0
_MASKED_BELOW_RELATIVE_SIZE = 0.75
_SHARED_PREPROCESSING = "nnUNetPlans"
_READERS = {
    ".png": "NaturalImage2DIO",
    ".bmp": "NaturalImage2DIO",
    ".tiff": "Tiff3DIO",
    ".nii": "NibabelIO",
}
_NORMALIZATION_OF_CHANNEL = {
    "ct": "ct",
    "nonorm": "none",
    "zscore": "zscore",
    "rescale_to_0_1": "rescale_to_0_1",
    "rgb_to_0_1": "rgb_to_0_1",
}


def make_plan(
    fingerprint: Fingerprint,
    *,
    dataset_json: Mapping[str, Any],
    dataset_name: str,
    planner: PlannerName = "default",
    target_spacing_mm: Sequence[float] | None = None,
    gpu_memory_gb: float | None = None,
    plans_name: str | None = None,
) -> Plan:
    """Plan `2d` and, for volumes, `3d_fullres` and where it pays the two steps of a cascade.

    Nothing here depends on how much is annotated: the ignore label is not counted as an output.

    Args:
        fingerprint: Measurements of the dataset.
        dataset_json: Content of its `dataset.json`: channel names, labels, number of cases.
        dataset_name: E.g. `Dataset004_Hippocampus`.
        planner: A key of `PLANNERS`.
        target_spacing_mm: Spacing along the file's (z, y, x) to use in place of the derived one.
        gpu_memory_gb: Memory to fill in place of the planner's own.
        plans_name: Name of the plans in place of the planner's own.

    Raises:
        RequestError: There is no such planner, a required key is missing, or the images are too
            small for a U-Net.

    Source: nnU-Net 2.8.1, whose plans it equals for datasets without an ignore label.
    """
    _check_request(fingerprint, dataset_json, planner, target_spacing_mm)
    rules = PLANNERS[planner]
    if gpu_memory_gb is not None:
        rules = rules.with_memory(gpu_memory_gb)
    spacing = choose_spacing(
        fingerprint.spacings_mm, fingerprint.shapes_after_crop, given_mm=target_spacing_mm
    )
    target_mm = np.asarray(spacing.target_mm)
    forward, backward = choose_transpose(target_mm)
    median_shape = median_resampled_shape(
        fingerprint.shapes_after_crop, fingerprint.spacings_mm, target_mm
    )
    if (median_shape < 1).any():
        raise RequestError(
            f"At the target spacing {spacing.target_mm} mm (z, y, x) the median image has "
            f"{_floats(median_shape)} voxels; expected at least one along every axis. Give a "
            "smaller target spacing."
        )
    normalization = normalization_of(dataset_json)
    masked = fingerprint.median_relative_size_after_cropping < _MASKED_BELOW_RELATIVE_SIZE
    facts = _Facts(
        planner=rules,
        plans_name=plans_name or rules.plans_name,
        num_cases=int(dataset_json.get("numTraining", len(fingerprint.spacings_mm))),
        num_outputs=sum(name != "ignore" for name in dataset_json["labels"]),
        normalization=normalization,
        use_mask_for_norm=tuple(masked and key == "zscore" for key in normalization),
        shares_preprocessing=plans_name in (None, rules.plans_name) and target_spacing_mm is None,
    )
    order = list(forward)
    made = _plan_networks(target_mm[order], median_shape[order], facts)
    original_mm = np.median(np.asarray(fingerprint.spacings_mm), axis=0)[order]
    original_shape = np.median(np.asarray(fingerprint.shapes_after_crop), axis=0)[order]
    return Plan(
        dataset_name=dataset_name,
        plans_name=facts.plans_name,
        planner=planner,
        original_median_spacing_mm=_triple(float(value) for value in original_mm),
        original_median_shape=_triple(round(float(value)) for value in original_shape),
        image_reader_writer=reader_of(
            dataset_json, flat=all(shape[0] == 1 for shape in fingerprint.shapes_after_crop)
        ),
        transpose_forward=forward,
        transpose_backward=backward,
        intensities=fingerprint.intensities,
        configurations=made.configurations,
        reasons=PlanReasons(
            rules=rules,
            spacing=spacing,
            relative_size=fingerprint.median_relative_size_after_cropping,
            num_measured_cases=len(fingerprint.spacings_mm),
            num_cases=facts.num_cases,
            num_outputs=facts.num_outputs,
            low_resolution=made.low_resolution,
            networks={name: made.networks[name] for name in made.configurations},
            left_out=made.left_out,
        ),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Facts:
    """What all configurations of a plan share."""

    planner: Planner
    plans_name: str
    num_cases: int
    num_outputs: int
    normalization: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
    shares_preprocessing: bool
    """Whether `2d` and `3d_fullres` lie on the grid that every planner derives, so that their
    preprocessed folders serve all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Networks:
    """All configurations of a plan, and why."""

    configurations: dict[str, Configuration]
    networks: dict[str, NetworkReasons]
    low_resolution: LowResolutionReasons | None
    left_out: tuple[str, ...]


def _plan_networks(spacing_mm: np.ndarray, median_shape: np.ndarray, facts: _Facts) -> _Networks:
    """Plan the 2D network, and where images have several slices the 3D ones and the cascade."""
    dataset_voxels = float(np.prod(median_shape) * facts.num_cases)
    spacing, shape = _floats(spacing_mm), _floats(median_shape)
    made: dict[str, Configuration] = {}
    why: dict[str, NetworkReasons] = {}
    cascade = None
    flat, why["2d"] = _configuration(
        "2d", spacing[1:], shape[1:], facts, dataset_voxels=dataset_voxels
    )
    made["2d"] = replace(flat, batch_dice=True)
    if shape[0] != 1:
        full, why["3d_fullres"] = _configuration(
            "3d_fullres", spacing, shape, facts, dataset_voxels=dataset_voxels
        )
        low, low_why, cascade = _low_resolution(full, facts)
        if low is not None and low_why is not None:
            made["3d_lowres"] = replace(low, next_stage="3d_cascade_fullres")
            why["3d_lowres"], why["3d_cascade_fullres"] = low_why, why["3d_fullres"]
            full = replace(full, batch_dice=True)
        made["3d_fullres"] = full
        if low is not None:
            made["3d_cascade_fullres"] = replace(
                full, name="3d_cascade_fullres", previous_stage="3d_lowres"
            )
    usable = {name: item for name, item in made.items() if len(item.network.strides) > 1}
    if not usable:
        raise RequestError(
            f"The images are too small for a U-Net: their median shape is {shape} voxels at "
            f"the target spacing {spacing} mm; expected at least one axis of 12, or two of 8, "
            "voxels in a slice. Check the spacing in the files, or give a finer target spacing."
        )
    left_out = tuple(name for name in made if name not in usable)
    for name in left_out:
        logger.warning("%s is left out: the images are too small to be pooled in it.", name)
    return _Networks(configurations=usable, networks=why, low_resolution=cascade, left_out=left_out)


def _low_resolution(
    full: Configuration, facts: _Facts
) -> tuple[Configuration | None, NetworkReasons | None, LowResolutionReasons]:
    """Coarsen until a patch holds a quarter of the median image; None if that is not far."""
    full_voxels = voxels = prod(full.median_shape)
    low, why = None, None
    covered_voxels = prod(full.patch_size)
    covered = covered_voxels / full_voxels
    grids = coarser_grids(full.spacing_mm, full.median_shape)
    while covered_voxels / voxels < _LOWRES_BELOW_COVERAGE:
        spacing_mm, shape = next(grids)
        voxels = float(np.prod(shape))
        low, why = _configuration(
            "3d_lowres",
            _floats(spacing_mm),
            tuple(round(float(edge)) for edge in shape),
            facts,
            dataset_voxels=voxels * facts.num_cases,
        )
        covered_voxels = prod(low.patch_size)
    reduction = full_voxels / voxels
    outcome: Literal["made", "not_needed", "too_similar"] = "not_needed"
    if low is not None:
        outcome = "made" if reduction >= _LOWRES_MIN_REDUCTION else "too_similar"
    reasons = LowResolutionReasons(outcome=outcome, covered=covered, reduction=reduction)
    return (low, why, reasons) if outcome == "made" else (None, None, reasons)


def _configuration(
    name: str,
    spacing_mm: tuple[float, ...],
    median_shape: tuple[float, ...],
    facts: _Facts,
    *,
    dataset_voxels: float,
) -> tuple[Configuration, NetworkReasons]:
    """Plan one network: the largest patch that fits into memory, then the batch size."""
    first, *more = shrinking_candidates(
        spacing_mm, median_shape, planner=facts.planner, num_outputs=facts.num_outputs
    )
    fitting = more[-1] if more else first
    batch = choose_batch_size(fitting, planner=facts.planner, dataset_voxels=dataset_voxels)
    shared = name in ("2d", "3d_fullres") and facts.shares_preprocessing
    configuration = Configuration(
        name=name,
        data_identifier=f"{_SHARED_PREPROCESSING if shared else facts.plans_name}_{name}",
        batch_size=batch.batch_size,
        patch_size=fitting.patch_size,
        median_shape=median_shape,
        spacing_mm=spacing_mm,
        normalization=facts.normalization,
        use_mask_for_norm=facts.use_mask_for_norm,
        network=fitting.network,
        batch_dice=False,
    )
    return configuration, NetworkReasons(
        first_patch=first.patch_size,
        num_cuts=len(more),
        cost=fitting.cost,
        max_cost=facts.planner.max_cost[len(median_shape)],
        batch=batch,
    )


def normalization_of(dataset_json: Mapping[str, Any]) -> tuple[str, ...]:
    """Return for each channel the key of its normalisation, by nnU-Net's rule (its name)."""
    names = dataset_json.get("channel_names", dataset_json.get("modality"))
    assert names is not None
    in_order = [names[key] for key in sorted(names, key=int)]
    return tuple(_NORMALIZATION_OF_CHANNEL.get(str(name).casefold(), "zscore") for name in in_order)


def reader_of(dataset_json: Mapping[str, Any], *, flat: bool) -> str:
    """Return nnU-Net's name of the reader that suits the file ending."""
    wanted = dataset_json.get("overwrite_image_reader_writer")
    if wanted not in (None, "None"):
        return str(wanted)
    ending = str(dataset_json.get("file_ending", ".nii.gz")).lower()
    if ending == ".tif":
        return "NaturalImage2DIO" if flat else "Tiff3DIO"
    return _READERS.get(ending, "SimpleITKIO")


def _check_request(
    fingerprint: Fingerprint,
    dataset_json: Mapping[str, Any],
    planner: str,
    target_spacing_mm: Sequence[float] | None,
) -> None:
    """Raise a `RequestError` that lists every problem of the request."""
    problems = []
    if planner not in PLANNERS:
        problems.append(f"There is no planner {planner!r}; expected one of {', '.join(PLANNERS)}.")
    if not fingerprint.spacings_mm:
        problems.append("The fingerprint holds no case; extract it from a dataset with images.")
    names = dataset_json.get("channel_names", dataset_json.get("modality"))
    if not isinstance(names, Mapping) or not names:
        problems.append('dataset.json has no "channel_names", e.g. {"0": "CT"}.')
    elif len(names) != len(fingerprint.intensities):
        problems.append(
            f"dataset.json names {len(names)} channels, the fingerprint measured "
            f"{len(fingerprint.intensities)}; extract the fingerprint again."
        )
    if not isinstance(dataset_json.get("labels"), Mapping):
        problems.append('dataset.json has no "labels", e.g. {"background": 0, "liver": 1}.')
    if target_spacing_mm is not None and (
        len(target_spacing_mm) != 3 or not all(value > 0 for value in target_spacing_mm)
    ):
        problems.append(
            f"The target spacing {tuple(target_spacing_mm)} must be three positive numbers "
            "(z, y, x)."
        )
    if problems:
        raise RequestError("\n".join(problems))


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _triple(values: Any) -> tuple[Any, Any, Any]:
    first, second, third = values
    return first, second, third
