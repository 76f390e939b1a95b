"""Preprocess all cases of a dataset for one configuration."""

import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from sparseunet.artifacts import hash_content, hash_file
from sparseunet.data.annotation import Annotation
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.grids import compare_grids
from sparseunet.data.image import Image
from sparseunet.data.io import read_annotation, read_image
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, Problem, RequestError, Severity
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.preprocessing.blas import one_blas_thread
from sparseunet.preprocessing.case import preprocess_case
from sparseunet.preprocessing.manifest import STORE_VERSION, Manifest
from sparseunet.preprocessing.store import (
    CaseStore,
    has_all_files,
    read_manifest,
    remove_case,
    write_case,
)
from sparseunet.progress import track

logger = logging.getLogger(__name__)

_RULES_VERSION = 1
"""Raised when the same input gives other arrays than before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessingSummary:
    """What preprocessing did. Axes are the plan's transposed axes."""

    configuration: str
    num_cases: int
    num_unchanged: int
    """Cases that were there already, made from the same files with the same settings."""
    num_annotated_cases: int
    num_dense_cases: int
    annotated_slices_before: tuple[int, int, int]
    """Per axis the number of annotated slices of all cases in their files."""
    annotated_slices_after: tuple[int, int, int]
    """The same on the network's grid."""
    annotated_share: float
    """Annotated voxels of all voxels, on the network's grid; 0 without labels."""


def preprocess_dataset(
    dataset: Dataset,
    *,
    plan: Plan,
    configuration: Configuration,
    folder: Path,
    num_workers: int,
) -> PreprocessingSummary:
    """Write every training case to `folder`, skipping those that are up to date.

    Threads share the work; at most `num_workers + 1` cases are in memory. Cases that are in the
    folder but no longer in the dataset are removed. One process at a time may write to a folder.

    Args:
        dataset: The raw dataset; unlabelled cases are stored without annotation.
        plan: Transpose and intensity statistics.
        configuration: One of the plan's.
        folder: A `CaseStore`.
        num_workers: Number of threads, at least 1.

    Returns:
        Counts over all cases, those that were skipped included.

    Raises:
        DatasetError: Every problem of every case that failed; the other cases are done.
    """
    settings = _settings_hash(plan, configuration, dataset.labels)
    for leftover in folder.glob(".writing-*"):  # of a run that was killed
        shutil.rmtree(leftover)
    known = {case.name for case in dataset.cases}
    for name in set(CaseStore(folder).cases) - known:
        logger.warning("%s is no longer in %s and is removed from %s", name, dataset.name, folder)
        remove_case(folder, name)

    def work(case: Case) -> _Outcome:
        return _preprocess_one(
            case, dataset.labels, plan, configuration, folder=folder, settings=settings
        )

    with one_blas_thread():
        outcomes = list(
            track(
                _in_order(work, dataset.cases, num_workers=num_workers),
                total=len(dataset.cases),
                label=f"preprocess {configuration.name}",
            )
        )
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    if problems:
        raise DatasetError(problems)
    return _summarise(configuration.name, outcomes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    manifest: Manifest | None = None
    unchanged: bool = False
    problems: tuple[Problem, ...] = ()


def _preprocess_one(
    case: Case,
    labels: LabelSchema,
    plan: Plan,
    configuration: Configuration,
    *,
    folder: Path,
    settings: str,
) -> _Outcome:
    try:
        input_hash = _input_hash(case, settings)
        stored = _up_to_date(folder, case.name, input_hash)
        if stored is not None:
            return _Outcome(manifest=stored, unchanged=True)
        image, annotation = _read(case, labels)
        preprocessed = preprocess_case(
            case.name, image, annotation, plan=plan, configuration=configuration
        )
        manifest = write_case(
            folder,
            preprocessed,
            patch_size=configuration.patch_size,
            input_hash=input_hash,
            annotated_slices_before=_count_slices(annotation, plan.transpose_forward),
        )
    except DatasetError as error:
        named = (replace(problem, case=problem.case or case.name) for problem in error.problems)
        return _Outcome(problems=tuple(named))
    except (RequestError, ValueError, OSError, MemoryError) as error:
        return _Outcome(problems=(_problem(case, error),))
    return _Outcome(manifest=manifest)


def _read(case: Case, labels: LabelSchema) -> tuple[Image, Annotation | None]:
    image = read_image(case.images)
    if case.label is None:
        return image, None
    annotation, geometry = read_annotation(case.label, labels)
    differences = compare_grids(
        geometry,
        image.geometry,
        case=case.name,
        file=str(case.label),
        reference_file=case.images[0].name,
    )
    if any(problem.severity is Severity.ERROR for problem in differences):
        raise DatasetError(differences)
    return image, annotation


def _settings_hash(plan: Plan, configuration: Configuration, labels: LabelSchema) -> str:
    """Hash everything but the files that the arrays depend on."""
    return hash_content(
        [
            _RULES_VERSION,
            STORE_VERSION,
            plan.transpose_forward,
            plan.intensities,
            configuration.dimensions,
            configuration.spacing_mm,
            configuration.normalization,
            configuration.use_mask_for_norm,
            labels,
        ]
    )


def _input_hash(case: Case, settings: str) -> str:
    files = [*case.images, *([] if case.label is None else [case.label])]
    return hash_content([settings, [hash_file(path) for path in files], case.label is None])


def _up_to_date(folder: Path, name: str, input_hash: str) -> Manifest | None:
    try:
        manifest = read_manifest(folder, name)
    except RequestError:
        return None
    fits = manifest.input_hash == input_hash and has_all_files(folder, manifest)
    return manifest if fits else None


def _count_slices(
    annotation: Annotation | None, axes: tuple[int, int, int]
) -> tuple[int, int, int]:
    if annotation is None:
        return 0, 0, 0
    z, y, x = (len(annotation.annotated_slices(axis)) for axis in axes)
    return z, y, x


def _problem(case: Case, error: Exception) -> Problem:
    return Problem(
        severity=Severity.ERROR,
        case=case.name,
        file=str(case.images[0]),
        found=str(error) or type(error).__name__,
        expected="a case that fits the plan",
        fix="mend the case, or take it out of the dataset and plan again",
    )


def _in_order(
    work: Callable[[Case], _Outcome], cases: Iterable[Case], *, num_workers: int
) -> Iterator[_Outcome]:
    """Yield the outcomes in the order of the cases, with a bounded number of them in flight."""
    executor = ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="preprocess")
    pending: deque[Future[_Outcome]] = deque()
    try:
        for case in cases:
            pending.append(executor.submit(work, case))
            if len(pending) > num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def _summarise(configuration: str, outcomes: list[_Outcome]) -> PreprocessingSummary:
    manifests = [outcome.manifest for outcome in outcomes if outcome.manifest is not None]
    before = [sum(item.annotated_slices_before[axis] for item in manifests) for axis in range(3)]
    after = [sum(len(item.annotated_slices[axis]) for item in manifests) for axis in range(3)]
    num_voxels = sum(prod(item.shape) for item in manifests)
    num_annotated = sum(item.num_annotated_voxels for item in manifests)
    return PreprocessingSummary(
        configuration=configuration,
        num_cases=len(manifests),
        num_unchanged=sum(outcome.unchanged for outcome in outcomes),
        num_annotated_cases=sum(item.num_annotated_voxels > 0 for item in manifests),
        num_dense_cases=sum(item.is_dense for item in manifests),
        annotated_slices_before=(before[0], before[1], before[2]),
        annotated_slices_after=(after[0], after[1], after[2]),
        annotated_share=num_annotated / num_voxels if num_voxels else 0.0,
    )
