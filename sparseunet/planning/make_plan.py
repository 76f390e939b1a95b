"""Plan every network for a dataset from its fingerprint."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np

from sparseunet.errors import RequestError
from sparseunet.fingerprint.fingerprint import Fingerprint
from sparseunet.planning.memory import (
    PLANNERS,
    Planner,
    choose_batch_size,
    shrinking_candidates,
)
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.planning.spacing import (
    choose_spacing,
    choose_transpose,
    coarser_grids,
    median_resampled_shape,
)

logger = logging.getLogger(__name__)

PlannerName = Literal["default", "ResEncM", "ResEncL", "ResEncXL"]
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
    if target_spacing_mm is None:
        target_mm = choose_spacing(fingerprint.spacings_mm, fingerprint.shapes_after_crop)
    else:
        target_mm = np.asarray(target_spacing_mm, np.float64)
    forward, backward = choose_transpose(target_mm)
    median_shape = median_resampled_shape(
        fingerprint.shapes_after_crop, fingerprint.spacings_mm, target_mm
    )
    normalization = _normalization(dataset_json)
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
    original_mm = np.median(np.asarray(fingerprint.spacings_mm), axis=0)[order]
    original_shape = np.median(np.asarray(fingerprint.shapes_after_crop), axis=0)[order]
    return Plan(
        dataset_name=dataset_name,
        plans_name=facts.plans_name,
        planner=planner,
        original_median_spacing_mm=_triple(float(value) for value in original_mm),
        original_median_shape=_triple(round(float(value)) for value in original_shape),
        image_reader_writer=_reader(dataset_json, fingerprint),
        transpose_forward=forward,
        transpose_backward=backward,
        intensities=fingerprint.intensities,
        configurations=_configurations(target_mm[order], median_shape[order], facts),
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


def _configurations(
    spacing_mm: np.ndarray, median_shape: np.ndarray, facts: _Facts
) -> dict[str, Configuration]:
    dataset_voxels = float(np.prod(median_shape) * facts.num_cases)
    spacing, shape = _floats(spacing_mm), _floats(median_shape)
    made: dict[str, Configuration] = {}
    flat = _configuration("2d", spacing[1:], shape[1:], facts, dataset_voxels=dataset_voxels)
    made["2d"] = replace(flat, batch_dice=True)
    if shape[0] != 1:
        full = _configuration("3d_fullres", spacing, shape, facts, dataset_voxels=dataset_voxels)
        low = _low_resolution(full, facts)
        if low is not None:
            made["3d_lowres"] = replace(low, next_stage="3d_cascade_fullres")
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
    for name in made.keys() - usable.keys():
        logger.warning("%s is left out: the images are too small to be pooled in it.", name)
    return usable


def _low_resolution(full: Configuration, facts: _Facts) -> Configuration | None:
    """Coarsen until a patch holds a quarter of the median image; None if that is not far."""
    full_voxels = voxels = prod(full.median_shape)
    low = None
    covered_voxels = prod(full.patch_size)
    grids = coarser_grids(full.spacing_mm, full.median_shape)
    while covered_voxels / voxels < _LOWRES_BELOW_COVERAGE:
        spacing_mm, shape = next(grids)
        voxels = float(np.prod(shape))
        low = _configuration(
            "3d_lowres",
            _floats(spacing_mm),
            tuple(round(float(edge)) for edge in shape),
            facts,
            dataset_voxels=voxels * facts.num_cases,
        )
        covered_voxels = prod(low.patch_size)
    return low if full_voxels / voxels >= _LOWRES_MIN_REDUCTION else None


def _configuration(
    name: str,
    spacing_mm: tuple[float, ...],
    median_shape: tuple[float, ...],
    facts: _Facts,
    *,
    dataset_voxels: float,
) -> Configuration:
    *_, fitting = shrinking_candidates(
        spacing_mm, median_shape, planner=facts.planner, num_outputs=facts.num_outputs
    )
    shared = name in ("2d", "3d_fullres") and facts.shares_preprocessing
    return Configuration(
        name=name,
        data_identifier=f"{_SHARED_PREPROCESSING if shared else facts.plans_name}_{name}",
        batch_size=choose_batch_size(fitting, planner=facts.planner, dataset_voxels=dataset_voxels),
        patch_size=fitting.patch_size,
        median_shape=median_shape,
        spacing_mm=spacing_mm,
        normalization=facts.normalization,
        use_mask_for_norm=facts.use_mask_for_norm,
        network=fitting.network,
        batch_dice=False,
    )


def _normalization(dataset_json: Mapping[str, Any]) -> tuple[str, ...]:
    names = dataset_json.get("channel_names", dataset_json.get("modality"))
    assert names is not None
    in_order = [names[key] for key in sorted(names, key=int)]
    return tuple(_NORMALIZATION_OF_CHANNEL.get(str(name).casefold(), "zscore") for name in in_order)


def _reader(dataset_json: Mapping[str, Any], fingerprint: Fingerprint) -> str:
    """Return nnU-Net's name of the reader that suits the file ending."""
    wanted = dataset_json.get("overwrite_image_reader_writer")
    if wanted not in (None, "None"):
        return str(wanted)
    ending = str(dataset_json.get("file_ending", ".nii.gz")).lower()
    if ending == ".tif":
        flat = all(shape[0] == 1 for shape in fingerprint.shapes_after_crop)
        return "NaturalImage2DIO" if flat else "Tiff3DIO"
    return _READERS.get(ending, "SimpleITKIO")


def _check_request(
    fingerprint: Fingerprint,
    dataset_json: Mapping[str, Any],
    planner: str,
    target_spacing_mm: Sequence[float] | None,
) -> None:
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
