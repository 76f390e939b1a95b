"""Write a copy of a dense dataset in which only part of every training label map is left."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sparseunet.annotation.new_dataset import (
    appearing_folder,
    describe_with_ignore,
    ignore_value,
    link_folder,
    link_images,
)
from sparseunet.artifacts import write_json
from sparseunet.data.annotated_classes import read_annotated_classes
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.annotation_record import (
    AnnotationRecord,
    AnnotationRecords,
    write_annotation_records,
)
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.io import read_annotation, write_label_map
from sparseunet.errors import RequestError
from sparseunet.progress import track
from sparseunet.workspace import ANNOTATION_JSON, DATASET_JSON

Sparsify = Callable[[Case, Annotation], tuple[Annotation, AnnotationRecord]]
"""Takes a dense case; returns what is left of its annotation, and the record of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationSummary:
    """Result of `write_sparse_copy`: the labels that a sparse copy of a dataset keeps."""

    folder: Path
    """The new raw dataset."""
    ignore: int
    """The label value of voxels whose labels are hidden."""
    records: AnnotationRecords
    """The content of `annotation.json`."""
    annotated_share: float
    """Share of the voxels of all cases that are annotated, in [0, 1]."""

    @property
    def num_kept_slices(self) -> int:
        """Number of annotated slices over all cases and axes."""
        return sum(
            len(one.annotated_slices)
            for record in self.records.cases.values()
            for one in record.views
        )

    @property
    def num_slices(self) -> int:
        """Number of slices over all cases and axes, annotated or not."""
        records = self.records.cases.values()
        return sum(one.num_slices for record in records for one in record.views)


def write_sparse_copy(
    dataset: Dataset,
    sparsify: Sparsify,
    *,
    folder: Path,
    origin: AnnotationRecords,
    num_workers: int,
) -> SimulationSummary:
    """Write a raw dataset whose training label maps hold what `sparsify` leaves of them.

    All other voxels get the ignore value, which is the dataset's own or else the highest label
    value plus one. Images and test data are hard links to the originals where the file system
    allows it, copies elsewhere; test labels stay as they are. The folder appears complete or not
    at all.

    Args:
        dataset: Every case that has a label map is made sparse; cases without stay unlabelled.
        sparsify: Called by several threads.
        folder: The new dataset; must not exist.
        origin: Says how slices were chosen; gets the cases, and `simulated_from` in its provenance.
        num_workers: Threads that read and write label maps.

    Raises:
        RequestError: The folder exists, no case has labels, or a label map cannot be read.
        DatasetError: The dataset's own `annotation.json` names classes that it does not have.
    """
    labelled = [case for case in dataset.cases if case.label is not None]
    problems = []
    if folder.exists():
        problems.append(f"{folder} exists already and is not overwritten; choose another name")
    if not labelled:
        problems.append(
            f"no training case of {dataset.name} has a label map, nothing can be hidden"
        )
    if any(case.provenance for case in dataset.cases):
        problems.append(
            f"not all labels of {dataset.name} were drawn by a person; simulate from the dataset "
            "that it was made from"
        )
    if problems:
        raise RequestError("Annotation cannot be simulated: " + "; ".join(problems) + ".")
    ignore = ignore_value(dataset.labels)
    some_classes = read_annotated_classes(dataset)
    with appearing_folder(folder) as new:
        link_images(dataset.cases, new / "imagesTr", file_ending=dataset.file_ending)
        for name in ("imagesTs", "labelsTs"):
            link_folder(dataset.folder / name, new / name)
        (new / "labelsTr").mkdir()

        def hide(case: Case) -> tuple[AnnotationRecord, int, int]:
            record, *counts = _write_case(case, dataset, sparsify=sparsify, ignore=ignore, new=new)
            classes = some_classes.get(case.name, record.annotated_classes)
            return replace(record, annotated_classes=classes), counts[0], counts[1]

        with ThreadPoolExecutor(num_workers) as pool:
            hidden = list(
                track(pool.map(hide, labelled), total=len(labelled), label="Hiding slices")
            )
        records = replace(
            origin,
            cases={case.name: made[0] for case, made in zip(labelled, hidden, strict=True)},
            provenance={"simulated_from": dataset.name, **origin.provenance},
        )
        write_annotation_records(new / ANNOTATION_JSON, records)
        write_json(new / DATASET_JSON, describe_with_ignore(dataset, ignore))
    return SimulationSummary(
        folder=folder,
        ignore=ignore,
        records=records,
        annotated_share=sum(kept for _, kept, _ in hidden) / sum(size for _, _, size in hidden),
    )


def hide_all_but(annotation: Annotation, keep_ZYX: np.ndarray) -> Annotation:
    """Return the annotation with only the voxels of the bool mask left annotated."""
    labels_ZYX, source_ZYX = annotation.labels_ZYX.copy(), annotation.source_ZYX.copy()
    labels_ZYX[~keep_ZYX] = 0
    source_ZYX[~keep_ZYX] = Source.NONE
    return replace(annotation, labels_ZYX=labels_ZYX, source_ZYX=source_ZYX)


def _write_case(
    case: Case, dataset: Dataset, *, sparsify: Sparsify, ignore: int, new: Path
) -> tuple[AnnotationRecord, int, int]:
    """Write the sparse label map; return its record, its annotated voxels and all its voxels."""
    assert case.label is not None
    dense, geometry = read_annotation(case.label, dataset.labels)
    sparse, record = sparsify(case, dense)
    wide_enough = np.promote_types(sparse.labels_ZYX.dtype, np.min_scalar_type(ignore))
    sparse = replace(sparse, labels_ZYX=sparse.labels_ZYX.astype(wide_enough, copy=False))
    labels_ZYX = sparse.to_label_map(ignore=ignore)
    write_label_map(new / "labelsTr" / f"{case.name}{dataset.file_ending}", labels_ZYX, geometry)
    return record, int(sparse.annotated_ZYX.sum()), labels_ZYX.size
