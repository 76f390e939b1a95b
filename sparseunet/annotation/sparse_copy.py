"""Write a copy of a dense dataset in which only part of every training label map is left."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sparseunet.annotation.annotation_record import (
    AnnotationRecord,
    AnnotationRecords,
    write_annotation_records,
)
from sparseunet.artifacts import write_json
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.io import read_annotation, write_label_map
from sparseunet.errors import RequestError
from sparseunet.progress import track
from sparseunet.workspace import ANNOTATION_JSON, DATASET_JSON

_COMPANION_ENDINGS = (".json", ".raw", ".zraw")
"""Of files that belong to an image: the voxel size of a TIFF, the voxels of a MetaImage header."""

Sparsify = Callable[[Case, Annotation], tuple[Annotation, AnnotationRecord]]
"""Takes a dense case; returns what is left of its annotation, and the record of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationSummary:
    """What a simulation kept."""

    folder: Path
    """The new raw dataset."""
    ignore: int
    """The label value that marks what was hidden."""
    records: AnnotationRecords
    """As written to `annotation.json`."""
    annotated_share: float
    """Share of the voxels of all cases that are annotated, in [0, 1]."""

    @property
    def num_kept_slices(self) -> int:
        """Number of annotated slices over all cases and axes."""
        return sum(
            len(record.annotated_slices)
            + sum(len(other.annotated_slices) for other in record.other_axes)
            for record in self.records.cases.values()
        )

    @property
    def num_slices(self) -> int:
        """Number of slices over all cases and axes, annotated or not."""
        return sum(
            record.num_slices + sum(other.num_slices for other in record.other_axes)
            for record in self.records.cases.values()
        )


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
    """
    labelled = [case for case in dataset.cases if case.label is not None]
    problems = []
    if folder.exists():
        problems.append(f"{folder} exists already and is not overwritten; choose another name")
    if not labelled:
        problems.append(
            f"no training case of {dataset.name} has a label map, nothing can be hidden"
        )
    if problems:
        raise RequestError("Annotation cannot be simulated: " + "; ".join(problems) + ".")
    ignore = dataset.labels.ignore
    if ignore is None:
        ignore = max(dataset.labels.values) + 1
    with _appearing_folder(folder) as new:
        _link_images(dataset, new)
        for name in ("imagesTs", "labelsTs"):
            _link_folder(dataset.folder / name, new / name)
        (new / "labelsTr").mkdir()

        def hide(case: Case) -> tuple[AnnotationRecord, int, int]:
            return _write_case(case, dataset, sparsify=sparsify, ignore=ignore, new=new)

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
        write_json(new / DATASET_JSON, _describe(dataset, ignore))
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


@contextmanager
def _appearing_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder` that takes its name only if the block succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        new = holder / folder.name
        new.mkdir()  # not the holder itself: mkdtemp makes that private to the user
        yield new
        new.rename(folder)
    finally:
        shutil.rmtree(holder)


def _link_images(dataset: Dataset, new: Path) -> None:
    (new / "imagesTr").mkdir()
    for case in dataset.cases:
        for channel, image in enumerate(case.images):
            stem = f"{case.name}_{channel:04d}"
            _link(image, new / "imagesTr" / f"{stem}{dataset.file_ending}")
            for name in (stem, case.name):
                for ending in _COMPANION_ENDINGS:
                    companion = image.with_name(name + ending)
                    target = new / "imagesTr" / companion.name
                    if companion.is_file() and not target.exists():
                        _link(companion, target)


def _link_folder(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    target.mkdir()
    for file in sorted(source.rglob("*")):
        if file.is_file():
            _link(file, target / file.relative_to(source))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:  # another file system, or one without hard links, or a file of someone else
        shutil.copyfile(source, target)


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


def _describe(dataset: Dataset, ignore: int) -> dict:
    """Return the new `dataset.json`: as it was, with an ignore label."""
    description = {key: value for key, value in dataset.description.items() if key != "dataset"}
    return {**description, "labels": {**description["labels"], "ignore": ignore}}
