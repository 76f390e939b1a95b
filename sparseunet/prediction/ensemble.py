"""Average what several models say about the same scans, and decide the labels anew."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from sparseunet.artifacts import atomic_path
from sparseunet.data.geometry import Geometry
from sparseunet.data.grids import compare_grids
from sparseunet.data.io import read_geometry, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, Problem, RequestError, Severity
from sparseunet.prediction.saved_probabilities import SavedModel
from sparseunet.preprocessing.resample import (
    SLAB_VOXELS,
    decide_labels,
    label_dtype,
    output_values,
)
from sparseunet.progress import track
from sparseunet.workspace import probabilities_file

_THRESHOLD = 0.5
"""Threshold of the probability of a region (nnU-Net 2.8.1)."""


def ensemble(
    models: Sequence[SavedModel],
    *,
    output: Path,
    labels: LabelSchema,
    file_ending: str,
    num_workers: int,
    save_probabilities: bool = False,
) -> dict[str, Path]:
    """Write the label of the highest mean probability, or all regions whose mean is above a half.

    Probabilities are read slab by slab: in memory are the label map of a case and a few arrays of
    two million voxels per thread, however many classes and models there are.

    Args:
        models: Two or more, with the same cases on the same grids.
        output: Folder of `CASE` + `file_ending`; made when missing.
        labels: What the channels of the probabilities mean.
        file_ending: With the dot.
        num_workers: Cases at the same time, one per thread.
        save_probabilities: Whether their mean is kept, as `predict` does.

    Returns:
        The label file of every case.

    Raises:
        DatasetError: Nothing was written: cases that one model lacks, files that are missing or
            damaged, other classes or other grids; lists all.
        RequestError: Some files cannot be averaged; the others are written. Lists all.

    Source: nnU-Net 2.8.1.
    """
    problems = [problem for case in _all_cases(models) for problem in _check(case, models, labels)]
    if problems:
        raise DatasetError(problems)
    files = {case: output / f"{case}{file_ending}" for case in _all_cases(models)}
    output.mkdir(parents=True, exist_ok=True)

    def merge(case: str) -> str | None:
        try:
            _merge(case, models, files[case], labels, save_probabilities=save_probabilities)
        except RequestError as error:
            return f"  {case}: {error}"
        return None

    with ThreadPoolExecutor(num_workers) as pool:
        failures = [
            failure
            for failure in track(pool.map(merge, files), total=len(files), label="Averaging")
            if failure is not None
        ]
    if failures:
        raise RequestError(
            f"{len(failures)} of {len(files)} cases could not be averaged; the others are in "
            f"{output}:\n" + "\n".join(failures)
        )
    return files


def _all_cases(models: Sequence[SavedModel]) -> list[str]:
    return sorted({case for model in models for case in model.cases})


def _check(case: str, models: Sequence[SavedModel], labels: LabelSchema) -> Iterator[Problem]:
    """Yield why the models cannot be averaged in this case."""
    reference: tuple[Path, Geometry] | None = None
    for model in models:
        saved = model.cases.get(case)
        if saved is None:
            yield _problem(
                case,
                model.name,
                found="no probabilities",
                expected="those of every case that another model has",
                fix="predict it and save probabilities, or take it out of the other folders",
            )
            continue
        try:
            geometry = read_geometry(saved.label_file)
        except DatasetError as error:
            yield from error.problems
            continue
        reference = reference or (saved.label_file, geometry)
        yield from (
            problem
            for problem in compare_grids(
                geometry,
                reference[1],
                case=case,
                file=str(saved.label_file),
                reference_file=str(reference[0]),
            )
            if problem.severity is Severity.ERROR
        )
        yield from _check_shape(case, saved.probabilities, saved.read_shape, geometry, labels)


def _check_shape(
    case: str,
    path: Path,
    read_shape: Callable[[], tuple[int, ...]],
    geometry: Geometry,
    labels: LabelSchema,
) -> Iterator[Problem]:
    expected = (labels.num_outputs, *geometry.shape)
    fix = "predict it again and save probabilities"
    try:
        shape = read_shape()
    except RequestError as error:
        yield _problem(case, str(path), found=str(error), expected="probabilities", fix=fix)
        return
    if shape != expected:
        names = ", ".join(labels.output_names)
        yield _problem(
            case,
            str(path),
            found=f"shape {shape}",
            expected=f"shape {expected}: {names}, on the grid of the segmentation",
            fix=f"take models of the same classes, or {fix}",
        )


def _problem(case: str, file: str, *, found: str, expected: str, fix: str) -> Problem:
    return Problem(case=case, file=file, found=found, expected=expected, fix=fix)


def _merge(
    case: str,
    models: Sequence[SavedModel],
    file: Path,
    labels: LabelSchema,
    *,
    save_probabilities: bool,
) -> None:
    members = [model.cases[case] for model in models]
    geometry = read_geometry(members[0].label_file)
    labels_ZYX = np.zeros(geometry.shape, label_dtype(output_values(labels)))
    with ExitStack() as stack:
        openers = [stack.enter_context(member.opened(file.parent)) for member in members]
        keep: Callable[[], np.ndarray] | None = None
        if save_probabilities:
            path = stack.enter_context(atomic_path(probabilities_file(file, case)))
            shape = (labels.num_outputs, *geometry.shape)
            open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
            keep = partial(open_memmap, path, mode="r+")
        for rows in _slabs(geometry.shape):
            means = _mean_of_each_class(openers, rows, keep)
            decide_labels(means, labels_ZYX[rows], labels, threshold=_THRESHOLD)
    write_label_map(file, labels_ZYX, geometry)  # last, so that a case with a label file is done


def _slabs(shape: Sequence[int]) -> Iterator[slice]:
    height = max(1, SLAB_VOXELS // prod(shape[1:]))
    for first in range(0, shape[0], height):
        yield slice(first, min(first + height, shape[0]))


def _mean_of_each_class(
    openers: Sequence[Callable[[], np.ndarray]],
    rows: slice,
    keep: Callable[[], np.ndarray] | None,
) -> Iterator[np.ndarray]:
    """Yield the mean over models, class by class; float32 (z, y, x) of these planes.

    Files are mapped anew for every slab, so that what was read of them leaves memory.
    """
    mapped = [open_() for open_ in openers]
    kept_KZYX = None if keep is None else keep()
    for channel in range(len(mapped[0])):
        mean_ZYX = np.array(mapped[0][channel, rows], np.float32)
        for probabilities_KZYX in mapped[1:]:
            mean_ZYX += probabilities_KZYX[channel, rows]
        mean_ZYX /= len(mapped)
        if not np.isfinite(mean_ZYX).all():
            raise RequestError("the probabilities hold NaN or infinity; predict it again.")
        if kept_KZYX is not None:
            kept_KZYX[channel, rows] = mean_ZYX
        yield mean_ZYX
