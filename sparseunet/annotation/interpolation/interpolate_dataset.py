"""Interpolate the labels of a raw dataset: into a new dataset, or before preprocessing."""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sparseunet.annotation.interpolation.fill_dataset import (
    FROM_LABELS,
    FilledCase,
    InterpolationOptions,
    fill_dataset,
    judge_dataset,
)
from sparseunet.annotation.interpolation.verdict import (
    Verdict,
    hash_labels,
    verdict_lines,
    write_verdict,
)
from sparseunet.annotation.new_dataset import appearing_folder, link_folder, link_images
from sparseunet.artifacts import write_json
from sparseunet.data.dataset import Dataset
from sparseunet.errors import RequestError
from sparseunet.workspace import ANNOTATION_JSON, DATASET_JSON, INTERPOLATION_JSON, Workspace

logger = logging.getLogger(__name__)

AUTO = "auto"
"""Method that chooses another one, or to leave the labels alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilledLabels:
    """A dataset whose labels were filled before preprocessing.

    Attributes:
        dataset: With the filled labels.
        only_3d: Whether its labels are for 3D networks only.
        cases: What was done to each case.
        options: With the method that was used.
    """

    dataset: Dataset
    only_3d: bool
    cases: tuple[FilledCase, ...]
    options: InterpolationOptions


def interpolate_dataset(
    dataset: Dataset,
    *,
    workspace: Workspace,
    folder: Path,
    options: InterpolationOptions,
    num_workers: int,
) -> tuple[tuple[FilledCase, ...], InterpolationOptions]:
    """Write a new raw dataset: the same images, labels with the gaps between slices filled.

    Args:
        dataset: The raw dataset.
        workspace: Keeps what `auto` finds, for the report of plans.
        folder: Of the new dataset; appears whole or not at all.
        options: How; the method may be `auto`.
        num_workers: Cases in memory at the same time.

    Returns:
        What was done to each case, and the options with the method that was used.

    Raises:
        RequestError: `auto` refuses, or as `fill_dataset`.
    """
    verdict = None
    if options.method == AUTO:
        verdict = judge_and_keep(workspace, dataset, options.axis, num_workers)
        options = follow(verdict, options, dataset)
    with appearing_folder(folder) as new:
        link_images(dataset.cases, new / "imagesTr", file_ending=dataset.file_ending)
        for name in ("imagesTs", "labelsTs"):
            link_folder(dataset.folder / name, new / name)
        _, cases = fill_dataset(dataset, options=options, folder=new, num_workers=num_workers)
        _copy(dataset.folder / ANNOTATION_JSON, new)
        described = {key: item for key, item in dataset.description.items() if key != "dataset"}
        write_json(new / DATASET_JSON, described)
        asked = asdict(options)
        content = {
            "kind": "interpolation",
            "version": 1,
            "interpolated_from": dataset.name,
            "options": {name: asked[name] for name in ("method", "axis", "until_gap_mm", "seed")},
            "cases": cases,
            "verdict": verdict,
        }
        write_json(new / INTERPOLATION_JSON, content)
    return cases, options


def fill_labels(
    workspace: Workspace, dataset: Dataset, method: str, num_workers: int
) -> FilledLabels | None:
    """Fill the labels of a dataset into its preprocessed folder.

    Args:
        workspace: Where the preprocessed dataset lies.
        dataset: The raw dataset.
        method: Of the interpolators, or `auto`.
        num_workers: Cases in memory at the same time.

    Returns:
        None if `auto` finds that interpolated labels are not expected to help.

    Raises:
        RequestError: As `fill_dataset`.
    """
    folder = workspace.interpolated_labels(dataset.name)
    options = InterpolationOptions(method=method, device=method_device(method, AUTO), cache=folder)
    if method == AUTO:
        verdict = judge_and_keep(workspace, dataset, None, num_workers)
        if verdict is None or not verdict.use_3d:
            logger.info("%s: preprocessed with the annotated slices only", dataset.name)
            return None
        options = follow(verdict, options, dataset)
    filled, cases = fill_dataset(dataset, options=options, folder=folder, num_workers=num_workers)
    return FilledLabels(dataset=filled, only_3d=method == AUTO, cases=cases, options=options)


def judge_and_keep(
    workspace: Workspace, dataset: Dataset, axis: int | None, num_workers: int
) -> Verdict | None:
    """Judge a dataset, log the verdict, and keep it where the plan report finds it."""
    verdict = judge_dataset(dataset, axis=axis, num_workers=num_workers)
    path = workspace.preprocessed_dataset(dataset.name) / INTERPOLATION_JSON
    if verdict is None:
        path.unlink(missing_ok=True)
    else:
        verdict = replace(verdict, labels_hash=hash_labels(dataset))
        write_verdict(path, verdict)
        logger.info("%s: is interpolation worth it?", dataset.name)
        for line in verdict_lines(verdict):
            logger.info("%s", line)
    return verdict


def follow(
    verdict: Verdict | None, options: InterpolationOptions, dataset: Dataset
) -> InterpolationOptions:
    """Return the options with the verdict's method and, unless one was given, its widest gap.

    Raises:
        RequestError: The verdict is not to interpolate, or there is none.
    """
    instead = "Train on the annotated slices as they are, or name a method to fill them anyway."
    if verdict is None:
        raise RequestError(
            f"{dataset.name}: no case has two completely annotated slices and a gap, so nothing "
            f"says whether interpolation helps. {instead}"
        )
    if not verdict.use_3d:
        raise RequestError(
            f"{dataset.name}: interpolated labels are not expected to help. {verdict.why_3d} "
            f"{instead}"
        )
    until_gap_mm = options.until_gap_mm or verdict.until_gap_mm
    return replace(options, method=verdict.method, until_gap_mm=until_gap_mm)


def method_device(method: str, asked_for: str) -> str:
    """Return the device for a method; those that work from labels alone need none, and no torch."""
    if method in (AUTO, *FROM_LABELS):
        return "cpu"

    from sparseunet.networks.device import resolve_device  # imports torch

    return str(resolve_device(asked_for))


def _copy(file: Path, folder: Path) -> None:
    if file.is_file():
        (folder / file.name).write_bytes(file.read_bytes())
