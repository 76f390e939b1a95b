"""What a person should know before trusting a plan."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from sparseunet.data.density import LabelDensity
from sparseunet.fingerprint.fingerprint import Fingerprint
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.planning.plan_sentences import AXES, times

RARE_SPACING_FACTOR = 2.0
"""From here on a case lies a whole resolution stage off: at least half of its voxels are invented,
or half of its detail is lost."""
FEW_FOREGROUND_VOXELS = 2000
"""Below this fewer than ten voxels lie beyond each of the 0.5 and 99.5 percentiles."""
FEW_CASES = 5
"""A class in fewer cases is missing from some of the five folds."""
_ANISOTROPY = 3.0
_LITTLE_COVERED = 0.25
_NAMES_SHOWN = 5


def find_warnings(
    plan: Plan,
    *,
    fingerprint: Fingerprint | None,
    labels: Mapping[str, Any],
    densities: Sequence[LabelDensity] | None,
) -> list[str]:
    """Return one sentence per thing worth knowing, the data's before the plan's; none is an error.

    Args:
        plan: What was planned.
        fingerprint: The dataset's; None for plans taken from another dataset before it is measured.
        labels: The entry `labels` of `dataset.json`.
        densities: What is annotated, per case; None if that is not known.
    """
    found: list[str] = []
    if fingerprint is not None:
        found += _spacing_warnings(plan, fingerprint, densities)
        if plan.reasons is not None:  # else the statistics are another dataset's
            found += _statistics_warnings(plan, fingerprint)
    if densities is not None:
        found += _orientation_warnings(densities)
        found += _class_warnings(labels, densities)
    for configuration in plan.configurations.values():
        found += _configuration_warnings(configuration, plan)
    return found


def _spacing_warnings(
    plan: Plan, fingerprint: Fingerprint, densities: Sequence[LabelDensity] | None
) -> list[str]:
    target_mm = _target_in_files(plan)
    names = [case.name for case in densities or ()]
    if len(names) != len(fingerprint.spacings_mm):
        names = [f"case {number}" for number in range(1, len(fingerprint.spacings_mm) + 1)]
    rare = [
        f"{name} ({times(spacing_mm)} mm)"
        for name, spacing_mm in zip(names, fingerprint.spacings_mm, strict=True)
        if any(
            max(own / target, target / own) >= RARE_SPACING_FACTOR
            for own, target in zip(spacing_mm, target_mm, strict=True)
            if target is not None
        )
    ]
    if not rare:
        return []
    sentence = (
        f"Rare spacing: along some axis {len(rare)} of {len(names)} cases are twice as coarse or "
        "fine as the target, so resampling invents or drops at least half of their voxels there: "
        f"{_some(rare)}."
    )
    return [sentence]


def _target_in_files(plan: Plan) -> tuple[float | None, ...]:
    """Return the target spacing along the files' axes; None where images are not resampled."""
    full = plan.configurations.get("3d_fullres")
    if full is not None:
        planned: tuple[float | None, ...] = full.spacing_mm
    else:
        planned = (None, *next(iter(plan.configurations.values())).spacing_mm[-2:])
    return tuple(planned[axis] for axis in plan.transpose_backward)


def _statistics_warnings(plan: Plan, fingerprint: Fingerprint) -> list[str]:
    normalization = next(iter(plan.configurations.values())).normalization
    if "ct" not in normalization:
        return []
    voxels = fingerprint.num_foreground_voxels
    sentence = ""
    if fingerprint.intensity_source == "body":
        sentence = (
            f"Body fallback: only {voxels} foreground voxels are annotated, so CT intensities are "
            "normalised by the nonzero voxels of the images. Plan again once more is annotated."
        )
    elif 0 < voxels < FEW_FOREGROUND_VOXELS:
        sentence = (
            f"Few voxels behind the intensity statistics: {voxels} of "
            f"{fingerprint.num_foreground_cases} cases; below {FEW_FOREGROUND_VOXELS} the "
            "percentiles that CT is clipped to rest on fewer than ten voxels each."
        )
    return [sentence] if sentence else []


def _orientation_warnings(densities: Sequence[LabelDensity]) -> list[str]:
    counts = Counter(case.orientation for case in densities if case.orientation is not None)
    if len(counts) < 2:
        return []
    listed = ", ".join(f"{code} in {number}" for code, number in counts.most_common())
    sentence = (
        f"Mixed orientations: the axes x, y, z of the files point differently ({listed} cases). "
        "Nothing is reoriented, so the network sees the body turned; bring the files to one "
        "orientation."
    )
    return [sentence]


def _class_warnings(labels: Mapping[str, Any], densities: Sequence[LabelDensity]) -> list[str]:
    """Return warnings about cases without annotation and classes with few or no voxels."""
    found = []
    annotated = sum(case.annotated_voxels > 0 for case in densities)
    if annotated < len(densities):
        found.append(
            f"{len(densities) - annotated} of {len(densities)} cases have no annotation; they "
            "count for sizes and spacings, and training leaves them out."
        )
    for name, declared in labels.items():
        values = declared if isinstance(declared, list | tuple) else [declared]
        if name == "ignore" or list(values) == [0]:
            continue
        holding = sum(
            any(case.class_voxels.get(int(value), 0) for value in values) for case in densities
        )
        if not holding:
            found.append(
                f"Class {name} is annotated in no case: the network cannot learn it. Annotate it, "
                "or remove it from the labels of dataset.json."
            )
        elif holding < min(FEW_CASES, annotated):
            found.append(
                f"Class {name} is annotated in {holding} of {annotated} annotated cases, fewer "
                f"than the {FEW_CASES} folds: some folds validate without it."
            )
    return found


def _configuration_warnings(configuration: Configuration, plan: Plan) -> list[str]:
    """Return warnings about spacing, patch and batch of one configuration."""
    found = []
    name, reasons = configuration.name, plan.reasons
    if name == "3d_cascade_fullres":
        return []
    ratio = max(configuration.spacing_mm) / min(configuration.spacing_mm)
    if configuration.dimensions == 3 and ratio > _ANISOTROPY:
        axis = AXES[
            plan.transpose_forward[configuration.spacing_mm.index(max(configuration.spacing_mm))]
        ]
        found.append(
            f"{name}: anisotropic, {axis} is {ratio:.2g} times as coarse as the finest axis: it is "
            "pooled later and resampled apart from the others."
        )
    covered = prod(configuration.patch_size) / prod(configuration.median_shape)
    if covered < _LITTLE_COVERED and "3d_lowres" not in plan.configurations:
        found.append(
            f"{name}: a patch has only {covered:.0%} of the voxels of the median image; what is "
            "told apart by its place in the body may be confused."
        )
    network = None
    if reasons is not None and name not in {**(reasons.times or {}), **(reasons.slabs or {})}:
        network = reasons.networks.get(name)
    if network is not None and network.batch.rule != "memory":
        found.append(
            f"{name}: the batch of {configuration.batch_size} is at the limit that a small dataset "
            f"sets; memory would hold {network.batch.fitting}."
            if network.batch.rule == "dataset"
            else f"{name}: the batch of {configuration.batch_size} is the smallest there is, and "
            "more than a small dataset should give."
        )
    return found


def _some(items: Sequence[str]) -> str:
    rest = len(items) - _NAMES_SHOWN
    shown = ", ".join(items[:_NAMES_SHOWN])
    return f"{shown} and {rest} more" if rest > 0 else shown
