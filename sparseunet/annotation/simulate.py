"""Simulate sparse annotation: a copy of a dense dataset in which only chosen slices keep labels."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sparseunet.annotation.annotation_record import (
    AnnotationRecord,
    AnnotationRecords,
    write_annotation_records,
)
from sparseunet.annotation.derived_dataset import appearing_folder, link_images
from sparseunet.annotation.selection import load_selector
from sparseunet.annotation.selection.slices import SelectionRequest, SliceStack
from sparseunet.artifacts import write_json
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.io import read_annotation, read_geometry, write_label_map
from sparseunet.errors import RequestError
from sparseunet.progress import track
from sparseunet.workspace import ANNOTATION_JSON, DATASET_JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationSummary:
    """What a simulation kept."""

    folder: Path
    """The new raw dataset."""
    ignore: int
    """The label value that marks what was hidden."""
    records: AnnotationRecords
    """As written to `annotation.json`."""

    @property
    def num_kept_slices(self) -> int:
        """Number of annotated slices over all cases."""
        return sum(len(record.annotated_slices) for record in self.records.cases.values())

    @property
    def num_slices(self) -> int:
        """Number of slices over all cases, annotated or not."""
        return sum(record.num_slices for record in self.records.cases.values())


def simulate_annotation(
    dataset: Dataset,
    *,
    density: float,
    selector: str,
    axis: int,
    seed: int,
    folder: Path,
    num_workers: int = 1,
) -> SimulationSummary:
    """Write a raw dataset in which all but some slices of every training label map are hidden.

    Of D slices, max(1, round(density · D)) keep their labels (Z25 §2.1: annotation density); all
    other voxels get the ignore value, which is the dataset's own or else the highest label value
    plus one. Images and test data are hard links to the originals where the file system allows it,
    copies elsewhere; test labels stay as they are. The folder appears complete or not at all.

    Args:
        dataset: Every case that has a label map is made sparse; cases without stay unlabelled.
        density: Share of the slices that stay annotated, above 0 and up to 1.
        selector: Name in `SELECTORS`.
        axis: The slices lie across this axis of (z, y, x).
        seed: For selectors that draw at random; recorded with every selector.
        folder: The new dataset; must not exist.
        num_workers: Threads that read and write label maps.

    Raises:
        RequestError: Density, axis, selector or folder are not possible, no case has labels, or a
            label map is a 2D image, which has no slices to choose from.
    """
    _check_request(dataset, density=density, axis=axis, folder=folder)
    choose = load_selector(selector)
    ignore = (
        max(dataset.labels.values) + 1 if dataset.labels.ignore is None else dataset.labels.ignore
    )
    labelled = [case for case in dataset.cases if case.label is not None]
    stacks = [_stack(case, axis) for case in labelled]
    counts = tuple(count_for_density(stack.num_slices, density=density) for stack in stacks)
    request = SelectionRequest(
        counts=counts,
        total=sum(counts),
        seed=seed,
        labels=dataset.labels,
        num_workers=num_workers,
    )
    kept: dict[str, list[int]] = {case.name: [] for case in labelled}
    for slice_ in choose(stacks, request=request):
        kept[labelled[slice_.stack].name].append(slice_.index)

    with appearing_folder(folder) as new:
        link_images(dataset, new)
        (new / "labelsTr").mkdir()

        def hide(case: Case) -> AnnotationRecord:
            return _write_sparse_case(
                case, dataset, keep=kept[case.name], axis=axis, ignore=ignore, new=new
            )

        with ThreadPoolExecutor(num_workers) as pool:
            hidden = track(pool.map(hide, labelled), total=len(labelled), label="Hiding slices")
            cases = dict(zip((case.name for case in labelled), hidden, strict=True))
        records = AnnotationRecords(
            cases=cases,
            selector=selector,
            density=density,
            seed=seed,
            provenance={"simulated_from": dataset.name},
        )
        write_annotation_records(new / ANNOTATION_JSON, records)
        write_json(new / DATASET_JSON, _describe(dataset, ignore))
    return SimulationSummary(folder=folder, ignore=ignore, records=records)


def count_for_density(num_slices: int, *, density: float) -> int:
    """Return how many of `num_slices` a density in (0, 1] stands for: rounded, at least one."""
    return max(1, round(density * num_slices))


def hide_slices(annotation: Annotation, *, keep: Sequence[int], axis: int) -> Annotation:
    """Return the annotation with only the slices `keep` across `axis` left annotated."""
    hidden_ZYX = np.ones(annotation.labels_ZYX.shape, bool)
    np.moveaxis(hidden_ZYX, axis, 0)[list(keep)] = False
    labels_ZYX, source_ZYX = annotation.labels_ZYX.copy(), annotation.source_ZYX.copy()
    labels_ZYX[hidden_ZYX] = 0
    source_ZYX[hidden_ZYX] = Source.NONE
    return replace(annotation, labels_ZYX=labels_ZYX, source_ZYX=source_ZYX)


def _check_request(dataset: Dataset, *, density: float, axis: int, folder: Path) -> None:
    problems = []
    if not 0 < density <= 1:
        problems.append(f"density {density} is not a share of slices; give one above 0 and up to 1")
    if axis not in (0, 1, 2):
        problems.append(f"axis {axis} does not exist; give 0, 1 or 2 for z, y, x")
    if folder.exists():
        problems.append(f"{folder} exists already and is not overwritten; choose another name")
    if any(case.provenance for case in dataset.cases):
        problems.append(
            f"not all labels of {dataset.name} were drawn by a person; simulate from the dataset "
            "that it was made from"
        )
    labels = [case.label for case in dataset.cases if case.label is not None]
    if not labels:
        problems.append(
            f"no training case of {dataset.name} has a label map, nothing can be hidden"
        )
    flat = [label.name for label in labels if read_geometry(label).dimensions == 2]
    if flat:
        names = ", ".join(flat[:3]) + (", ..." if len(flat) > 3 else "")
        problems.append(
            f"{len(flat)} label maps of {dataset.name} are 2D images ({names}), which have no"
            " slices to choose from; for less annotation of 2D data take fewer images"
        )
    if problems:
        raise RequestError("Annotation cannot be simulated: " + "; ".join(problems) + ".")


def _stack(case: Case, axis: int) -> SliceStack:
    assert case.label is not None
    geometry = read_geometry(case.label)
    first, second = (other for other in range(3) if other != axis)
    spacing_mm = geometry.spacing_mm
    return SliceStack(
        case=case,
        axis=axis,
        num_slices=geometry.shape[axis],
        spacing_mm=(spacing_mm[axis], spacing_mm[first], spacing_mm[second]),
    )


def _write_sparse_case(
    case: Case,
    dataset: Dataset,
    *,
    keep: Sequence[int],
    axis: int,
    ignore: int,
    new: Path,
) -> AnnotationRecord:
    assert case.label is not None
    dense, geometry = read_annotation(case.label, dataset.labels)
    sparse = hide_slices(dense, keep=keep, axis=axis)
    labels_ZYX = sparse.to_label_map(ignore=ignore)
    write_label_map(new / "labelsTr" / f"{case.name}{dataset.file_ending}", labels_ZYX, geometry)
    annotated = tuple(int(index) for index in sparse.annotated_slices(axis))
    foreground = np.moveaxis(sparse.labels_ZYX, axis, 0)
    return AnnotationRecord(
        axis=axis,
        num_slices=geometry.shape[axis],
        annotated_slices=annotated,
        reviewed_empty_slices=tuple(index for index in annotated if not foreground[index].any()),
        annotated_classes=tuple(dataset.labels.foreground),
    )


def _describe(dataset: Dataset, ignore: int) -> dict:
    """Return the new `dataset.json`: as it was, with an ignore label."""
    description = {key: value for key, value in dataset.description.items() if key != "dataset"}
    return {**description, "labels": {**description["labels"], "ignore": ignore}}
