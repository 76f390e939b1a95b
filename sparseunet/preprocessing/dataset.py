"""Preprocess all cases of a dataset for some configurations."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

from sparseunet.artifacts import hash_content, hash_file, remove_unfinished
from sparseunet.data.annotation import Annotation
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.grids import compare_grids
from sparseunet.data.io import read_image
from sparseunet.data.labels import LabelSchema
from sparseunet.data.provenance import read_case_annotation
from sparseunet.errors import DatasetError, Problem, RequestError, Severity
from sparseunet.named_functions import is_path
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.preprocessing.annotated_outputs import annotated_outputs, require_only_annotated
from sparseunet.preprocessing.blas import one_blas_thread
from sparseunet.preprocessing.case import crop_image, preprocess_annotation, preprocess_image
from sparseunet.preprocessing.manifest import (
    STORE_VERSION,
    Manifest,
    has_all_files,
    read_manifest,
    remove_case,
)
from sparseunet.preprocessing.normalise import require_normalizations, uses_statistics
from sparseunet.preprocessing.store import CaseStore
from sparseunet.preprocessing.write import write_annotation, write_case
from sparseunet.progress import track
from sparseunet.workers import WorkerDiedError, map_in_processes

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
    num_partly_annotated_cases: int
    """Cases in which not every class was looked for."""


def preprocess_dataset(
    dataset: Dataset,
    *,
    plan: Plan,
    configurations: Sequence[Configuration],
    folder: Path,
    num_workers: int,
    annotated_classes: Mapping[str, Sequence[str]] | None = None,
) -> list[PreprocessingSummary]:
    """Write every training case for some configurations, skipping what is up to date.

    A case is read once for all configurations. If only its label file has changed, its image is
    neither read nor resampled again. Cases that are in the folder but no longer in the dataset are
    removed. One caller at a time may write to a folder.

    Args:
        dataset: The raw dataset; unlabelled cases are stored without annotation.
        plan: Transpose and intensity statistics.
        configurations: Some of the plan's.
        folder: Gets a `CaseStore` per configuration, named by its `data_identifier`.
        num_workers: Cases in memory at the same time, one per process; at least 1.
        annotated_classes: By case the classes that were looked for, where those were not all.

    Returns:
        Per configuration counts over all cases, those that were skipped included.

    Raises:
        DatasetError: Every problem of every case that failed; the other cases are done.
        RequestError: A normalisation is a function that cannot be imported.
    """
    names = {case.name for case in dataset.cases}
    targets = []
    remove_unfinished(folder)
    for configuration in configurations:
        require_normalizations(configuration.normalization)
        target = _Target.of(configuration, plan=plan, labels=dataset.labels, folder=folder)
        targets.append(target)
        for name in set(CaseStore(target.folder).cases) - names:
            logger.warning("%s is not in %s; removed from %s", name, dataset.name, target.folder)
            remove_case(target.folder, name)
    work = partial(_preprocess_one, labels=dataset.labels, plan=plan, targets=targets)
    some = annotated_classes or {}
    items = [(case, some.get(case.name)) for case in dataset.cases]
    results = map_in_processes(work, items, num_workers=num_workers)
    label = "preprocess " + ", ".join(configuration.name for configuration in configurations)
    outcomes: list[list[_Outcome]] = []
    problems: list[Problem] = []
    for case, result in zip(
        dataset.cases, track(results, total=len(dataset.cases), label=label), strict=True
    ):
        if isinstance(result, WorkerDiedError):
            problems.append(_problem(case, f"that the process working on it {result}"))
        elif isinstance(result, tuple):
            problems += result
        else:
            outcomes.append(result)
    remove_unfinished(folder)  # again: workers of a killed run may have outlived it for a moment
    if problems:
        raise DatasetError(problems)
    return [
        _summarise(configuration.name, [case[at] for case in outcomes])
        for at, configuration in enumerate(configurations)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Target:
    """One configuration, where its cases go, and what they depend on beside their files."""

    configuration: Configuration
    folder: Path
    image_settings: str
    annotation_settings: str

    @classmethod
    def of(
        cls, configuration: Configuration, *, plan: Plan, labels: LabelSchema, folder: Path
    ) -> "_Target":
        """Return the target of a configuration, with hashes of the settings its arrays depend on.

        The intensities of the dataset enter only for channels whose normalisation may use them, so
        that labels that change leave the images of other channels as they are.
        """
        by_channel = zip(configuration.normalization, plan.intensities, strict=False)
        image_settings = hash_content(
            [
                _RULES_VERSION,
                STORE_VERSION,
                plan.transpose_forward,
                configuration.dimensions,
                configuration.spacing_mm,
                configuration.normalization,
                configuration.use_mask_for_norm,
                [
                    intensities
                    for scheme, intensities in by_channel
                    if uses_statistics(scheme) or is_path(scheme)
                ],
            ]
        )
        return cls(
            configuration=configuration,
            folder=folder / configuration.data_identifier,
            image_settings=image_settings,
            annotation_settings=hash_content([image_settings, labels]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    manifest: Manifest
    unchanged: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """What is stored of a case for one configuration, and what should be."""

    image_input_hash: str
    annotation_input_hash: str
    manifest: Manifest | None
    """None if the image is out of date or anything is missing."""

    @property
    def is_current(self) -> bool:
        return (
            self.manifest is not None
            and self.manifest.annotation_input_hash == self.annotation_input_hash
        )


def _preprocess_one(
    item: tuple[Case, Sequence[str] | None],
    *,
    labels: LabelSchema,
    plan: Plan,
    targets: Sequence[_Target],
) -> list[_Outcome] | tuple[Problem, ...]:
    """Return one outcome per target, or what is wrong with the case."""
    case, classes = item
    outputs = None if classes is None else annotated_outputs(labels, classes)
    try:
        with one_blas_thread():
            return _preprocess_files(case, labels, plan, targets, outputs)
    except DatasetError as error:
        return tuple(replace(problem, case=problem.case or case.name) for problem in error.problems)
    except (RequestError, ValueError, OSError, MemoryError) as error:
        return (_problem(case, str(error) or type(error).__name__),)


def _preprocess_files(
    case: Case,
    labels: LabelSchema,
    plan: Plan,
    targets: Sequence[_Target],
    outputs: tuple[bool, ...] | None,
) -> list[_Outcome]:
    """Preprocess one case for every target configuration; what is up to date is left alone.

    The image is read only if a target lacks it. Where only the annotation has changed, the image
    arrays stay and the annotation is written again.

    Returns:
        One outcome per target, in their order.
    """
    states = _states(case, targets, outputs)
    manifests = [state.manifest for state in states]
    if all(state.is_current for state in states):
        return [_Outcome(manifest=item, unchanged=True) for item in manifests if item is not None]
    cropped = None
    known = next((item.restoration.geometry for item in manifests if item is not None), None)
    if None in manifests:
        image = read_image(case.images)
        known = image.geometry
        cropped = crop_image(image, transpose_forward=plan.transpose_forward)
    assert known is not None
    annotation = _read_annotation(case, labels, known)
    if annotation is not None and outputs is not None:
        require_only_annotated(case, annotation, labels, outputs)
    slices_before = _count_slices(annotation, plan.transpose_forward)
    outcomes = []
    for target, state in zip(targets, states, strict=True):
        if state.manifest is not None and state.is_current:
            outcomes.append(_Outcome(manifest=state.manifest, unchanged=True))
        elif state.manifest is not None:
            resampled = None
            if annotation is not None:
                resampled = preprocess_annotation(annotation, state.manifest.restoration)
            manifest = write_annotation(
                target.folder,
                state.manifest,
                resampled,
                patch_size=target.configuration.patch_size,
                annotation_input_hash=state.annotation_input_hash,
                annotated_slices_before=slices_before,
                annotated_outputs=outputs,
            )
            outcomes.append(_Outcome(manifest=manifest, unchanged=False))
        else:
            assert cropped is not None
            preprocessed = preprocess_image(
                case.name, cropped, plan=plan, configuration=target.configuration
            )
            if annotation is not None:
                resampled = preprocess_annotation(annotation, preprocessed.restoration)
                preprocessed = replace(preprocessed, annotation=resampled)
            manifest = write_case(
                target.folder,
                preprocessed,
                patch_size=target.configuration.patch_size,
                image_input_hash=state.image_input_hash,
                annotation_input_hash=state.annotation_input_hash,
                annotated_slices_before=slices_before,
                annotated_outputs=outputs,
            )
            outcomes.append(_Outcome(manifest=manifest, unchanged=False))
    return outcomes


def _states(
    case: Case, targets: Sequence[_Target], outputs: tuple[bool, ...] | None
) -> list[_State]:
    image_files = [hash_file(path) for path in case.images]
    label_files = [[path.parent.name, hash_file(path)] for path in case.label_files]
    # Where every class was looked for, the hash is what it was before there were other cases.
    some_classes = [] if outputs is None else [outputs]
    states = []
    for target in targets:
        image_input_hash = hash_content([target.image_settings, image_files])
        states.append(
            _State(
                image_input_hash=image_input_hash,
                annotation_input_hash=hash_content(
                    [target.annotation_settings, image_input_hash, label_files, *some_classes]
                ),
                manifest=_up_to_date(target.folder, case.name, image_input_hash),
            )
        )
    return states


def _up_to_date(folder: Path, name: str, image_input_hash: str) -> Manifest | None:
    try:
        manifest = read_manifest(folder, name)
    except RequestError:
        return None
    fits = manifest.image_input_hash == image_input_hash and has_all_files(folder, manifest)
    return manifest if fits else None


def _read_annotation(case: Case, labels: LabelSchema, expected: Geometry) -> Annotation | None:
    if case.label is None:
        return None
    annotation, geometry = read_case_annotation(case, labels)
    differences = compare_grids(
        geometry,
        expected,
        case=case.name,
        file=str(case.label),
        reference_file=case.images[0].name,
    )
    if any(problem.severity is Severity.ERROR for problem in differences):
        raise DatasetError(differences)
    return annotation


def _count_slices(
    annotation: Annotation | None, axes: tuple[int, int, int]
) -> tuple[int, int, int]:
    if annotation is None:
        return 0, 0, 0
    z, y, x = (len(annotation.annotated_slices(axis)) for axis in axes)
    return z, y, x


def _problem(case: Case, found: str) -> Problem:
    return Problem(
        case=case.name,
        file=str(case.images[0]),
        found=found,
        expected="a case that fits the plan and the memory",
        fix="mend the case, use fewer workers, or take it out of the dataset and plan again",
        setting="num_workers",
    )


def _summarise(configuration: str, outcomes: list[_Outcome]) -> PreprocessingSummary:
    manifests = [outcome.manifest for outcome in outcomes]
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
        num_partly_annotated_cases=sum(item.annotated_outputs is not None for item in manifests),
        annotated_slices_before=(before[0], before[1], before[2]),
        annotated_slices_after=(after[0], after[1], after[2]),
        annotated_share=num_annotated / num_voxels if num_voxels else 0.0,
    )
