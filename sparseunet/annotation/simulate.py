"""Simulate sparse annotation: a copy of a dense dataset in which only chosen slices keep labels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sparseunet.annotation.annotation_plan import AnnotationPlan, PlannedCase
from sparseunet.annotation.budget import Budget
from sparseunet.annotation.make_annotation_plan import make_annotation_plan
from sparseunet.annotation.selection import DEFAULT_SELECTOR
from sparseunet.annotation.sparse_copy import SimulationSummary, hide_all_but, write_sparse_copy
from sparseunet.annotation.spending import AXES, Axis, SpendingOptions
from sparseunet.data.annotation import Annotation
from sparseunet.data.annotation_record import (
    AnnotatedView,
    AnnotationRecord,
    AnnotationRecords,
)
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.io import read_geometry
from sparseunet.errors import DatasetError, Problem, RequestError


def simulate_annotation(
    dataset: Dataset,
    *,
    density: float,
    selector: str = DEFAULT_SELECTOR,
    axis: Axis = 0,
    seed: int = 0,
    folder: Path,
    volume_share: float = 1.0,
    num_workers: int = 1,
) -> SimulationSummary:
    """Write a raw dataset in which all but some slices of every training label map are hidden.

    Of D slices, max(1, round(density · D)) keep their labels (Z25 §2.1: annotation density ρ). With
    a volume share s below 1, max(1, round(s · N)) of N volumes keep any, chosen as `visit_evenly`
    says (Z25's volume count; with the same seed, more volumes contain those of fewer). The label
    maps of the others hold nothing but the ignore value, so the plan of the networks stays the same
    while training leaves them out. See `write_sparse_copy` for what else is written.

    Args:
        dataset: Every case that has a label map is made sparse; cases without stay unlabelled.
        density: Share of the slices that stay annotated, above 0 and up to 1.
        selector: Name in `SELECTORS`.
        axis: The slices lie across this axis of (z, y, x), or as `Axis` says.
        seed: Same seed, same slices; recorded with every selector.
        folder: The new dataset; must not exist.
        volume_share: Share of the volumes that stay annotated, above 0 and up to 1.
        num_workers: Threads that read and write label maps.

    Raises:
        RequestError: Shares, axis, selector or folder are not possible, no case has labels, or an
            image is 2D, which has no slices to choose from.
    """
    if folder.exists():
        raise RequestError(f"{folder} exists already and is not overwritten; choose another name.")
    plan = plan_for_density(
        dataset,
        density=density,
        selector=selector,
        axis=axis,
        seed=seed,
        volume_share=volume_share,
        num_workers=num_workers,
    )
    shares = {} if volume_share == 1 else {"volume_share": volume_share}
    return _apply(
        dataset, plan, density=density, folder=folder, provenance=shares, num_workers=num_workers
    )


def plan_for_density(
    dataset: Dataset,
    *,
    density: float,
    selector: str = DEFAULT_SELECTOR,
    axis: Axis = 0,
    seed: int = 0,
    volume_share: float = 1.0,
    num_workers: int = 1,
) -> AnnotationPlan:
    """Return the plan of a share of the slices of a share of the cases that have label maps.

    See `simulate_annotation` for arguments, rounding and errors.
    """
    problems = [
        f"{name} {share} is not a share; give one above 0 and up to 1"
        for name, share in (("density", density), ("volume share", volume_share))
        if not 0 < share <= 1
    ]
    if axis not in AXES:
        problems.append(f"axis {axis} does not exist; give one of {', '.join(map(str, AXES))}")
    labelled = tuple(case for case in dataset.cases if case.label is not None)
    if not labelled:
        problems.append(
            f"no training case of {dataset.name} has a label map, nothing can be hidden"
        )
    if problems:
        raise RequestError("Annotation cannot be simulated: " + "; ".join(problems) + ".")
    return make_annotation_plan(
        replace(dataset, cases=labelled),
        budget=Budget(text=f"{100 * density:g}%", unit="share", amount=density, per_case=True),
        selector=selector,
        axis=axis,
        seed=seed,
        options=SpendingOptions(
            num_volumes=max(1, round(volume_share * len(labelled))), num_workers=num_workers
        ),
    )


def simulate_plan(
    dataset: Dataset, plan: AnnotationPlan, *, folder: Path, num_workers: int = 1
) -> SimulationSummary:
    """Write a raw dataset in which only the planned slices keep their labels.

    Label maps of cases without planned slices hold nothing but the ignore value. With slices across
    several axes a voxel keeps its label if any of them holds it.

    Raises:
        DatasetError: The plan names cases without labels, or slices that the label maps do not
            have; holds every problem.
        RequestError: As for `write_sparse_copy`.
    """
    problems = [problem for planned in plan.cases for problem in _plan_problems(planned, dataset)]
    if problems:
        raise DatasetError(problems)
    return _apply(
        dataset,
        plan,
        density=None,
        folder=folder,
        provenance={"budget": plan.budget},
        num_workers=num_workers,
    )


def hide_slices(annotation: Annotation, *, keep: Sequence[int], axis: int) -> Annotation:
    """Return the annotation with only the slices `keep` across `axis` left annotated."""
    return hide_all_but(annotation, _mask(annotation.labels_ZYX.shape, {axis: keep}))


def _apply(
    dataset: Dataset,
    plan: AnnotationPlan,
    *,
    density: float | None,
    folder: Path,
    provenance: Mapping[str, object],
    num_workers: int,
) -> SimulationSummary:
    """Write a copy of a dataset that keeps the labels of the planned slices only.

    Args:
        dataset: Dense labels.
        plan: The slices to keep.
        density: Share of slices that was asked for; entered in `annotation.json`.
        folder: The new raw dataset.
        provenance: How the plan was made; entered in `annotation.json`.
        num_workers: Processes.
    """
    any_axis = min((planned.axis for planned in plan.cases), default=0)
    classes = tuple(dataset.labels.foreground)

    def sparsify(case: Case, dense: Annotation) -> tuple[Annotation, AnnotationRecord]:
        planned = sorted(plan.of_case(case.name), key=lambda one: one.axis)
        keep: dict[int, Sequence[int]] = {one.axis: one.slices for one in planned}
        keep = keep or {any_axis: ()}
        sparse = hide_all_but(dense, _mask(dense.labels_ZYX.shape, keep))
        first, *others = (_kept(sparse, slices, axis) for axis, slices in keep.items())
        record = AnnotationRecord(
            axis=first.axis,
            num_slices=first.num_slices,
            annotated_slices=first.annotated_slices,
            reviewed_empty_slices=first.reviewed_empty_slices,
            annotated_classes=classes,
            further_views=tuple(others),
        )
        return sparse, record

    return write_sparse_copy(
        dataset,
        sparsify,
        folder=folder,
        origin=AnnotationRecords(
            cases={},
            selector=plan.selector,
            density=density,
            seed=plan.seed,
            provenance=provenance,
        ),
        num_workers=num_workers,
    )


def _plan_problems(planned: PlannedCase, dataset: Dataset) -> list[Problem]:
    """Return why the slices of one planned case cannot be applied; nothing if they can."""
    label = next((case.label for case in dataset.cases if case.name == planned.case), None)
    if label is None:
        found, expected = "no label map", f"a dense label map in {dataset.name}"
    else:
        num_slices = read_geometry(label).shape[planned.axis]
        if num_slices == planned.num_slices:
            return []
        found = f"{num_slices} slices across axis {planned.axis}"
        expected = f"{planned.num_slices}, as the plan says"
    return [
        Problem(
            case=planned.case,
            file="" if label is None else label.name,
            found=found,
            expected=expected,
            fix="apply the plan to the dataset it was made for",
        )
    ]


def _mask(shape: tuple[int, ...], keep: Mapping[int, Sequence[int]]) -> np.ndarray:
    """Return the bool mask of the slices to keep, by axis."""
    mask_ZYX = np.zeros(shape, bool)
    for axis, slices in keep.items():
        np.moveaxis(mask_ZYX, axis, 0)[list(slices)] = True
    return mask_ZYX


def _kept(sparse: Annotation, slices: Sequence[int], axis: int) -> AnnotatedView:
    annotated = sorted(set(slices) & set(sparse.annotated_slices(axis).tolist()))
    foreground = np.moveaxis(sparse.labels_ZYX, axis, 0)
    return AnnotatedView(
        axis=axis,
        num_slices=sparse.labels_ZYX.shape[axis],
        annotated_slices=tuple(annotated),
        reviewed_empty_slices=tuple(index for index in annotated if not foreground[index].any()),
    )
