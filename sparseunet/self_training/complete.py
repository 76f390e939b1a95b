"""Dense labels for a sparsely labelled dataset, from a model; what a person drew stays."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sparseunet.annotation.new_dataset import (
    appearing_folder,
    describe_with_ignore,
    ignore_value,
    link_folder,
    link_images,
)
from sparseunet.artifacts import hash_file, read_json, remove_unfinished, write_json
from sparseunet.data.annotated_classes import read_annotated_classes
from sparseunet.data.dataset import Case, Dataset
from sparseunet.errors import DatasetError, Problem, RequestError
from sparseunet.networks.trained_model import TrainedModel
from sparseunet.prediction.both_stages import predict_both_stages
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.predict import predict
from sparseunet.progress import track
from sparseunet.runs.exchange.find_models import FoundModel
from sparseunet.runs.load import load_found_model, load_previous_stage
from sparseunet.self_training.completed_case import (
    CompletedCase,
    FillingRules,
    PredictedFiles,
    complete_case,
    read_kept_annotation,
)
from sparseunet.self_training.completion_report import completion_to_json
from sparseunet.self_training.teachers import (
    Fold,
    LearnedFrom,
    assign_folds,
    exposure,
    training_cases,
)
from sparseunet.workspace import (
    ANNOTATION_JSON,
    COMPLETION_JSON,
    CONFIDENCE,
    CONFIDENCE_MAP,
    DATASET_JSON,
    PROVENANCE,
    REQUEST_JSON,
    SPLITS_JSON,
    completing_predictions,
    uncertainty_file,
    unfinished_completion,
)

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionOptions:
    """How to complete a dataset; by what is the model."""

    rules: FillingRules
    out_of_fold: bool = False
    """Whether each case is labelled by the folds that were not trained on it, instead of by all."""
    prediction: PredictionOptions
    """Its workers also are the cases that are put together at a time."""


def complete_dataset(
    dataset: Dataset,
    found: FoundModel,
    *,
    folds: Sequence[Fold],
    folder: Path,
    options: CompletionOptions,
    splits: Path | None = None,
) -> dict[str, Any]:
    """Write a raw dataset in which a model labels every unannotated voxel of the training cases.

    Manual voxels stay as they are, interpolated ones too unless the rules say otherwise; labels by
    an earlier model are replaced. Cases without any label are labelled throughout. `provenanceTr`
    and `confidenceTr` say who labelled each voxel and how probable the model held its label. In a
    case in which only some classes were looked for, other classes are not filled in.

    The folder appears whole or not at all. Until then predictions lie in a hidden folder beside it,
    and the same call goes on with them after an interruption.

    Args:
        dataset: Labels may be missing altogether (`load_dataset` with `needs_labels=False`).
        found: The model, from `open_models`.
        folds: Of the model.
        folder: The new dataset; must not exist.
        options: How.
        splits: Folds of the source dataset to keep, if it has any.

    Returns:
        The content of `completion.json` in the new dataset, see `completion_to_json`.

    Raises:
        RequestError: Model and dataset do not fit, there is nothing to label, a case was trained on
            by every fold although it must not be, or an unfinished completion by another model
            lies there.
        DatasetError: Every problem of every case, before anything is predicted.
    """
    model = load_found_model(found, folds)
    learned_from = training_cases(found.folder, folds)
    annotated_classes = read_annotated_classes(dataset)
    _require_fit(dataset, model)
    _require_open_voxels(dataset, options)
    names = [case.name for case in dataset.cases]
    assigned = assign_folds(names, learned_from, out_of_fold=options.out_of_fold)
    unfinished = unfinished_completion(folder)
    about = _describe_request(dataset, model, options)
    _require_same_request(unfinished, about)
    remove_unfinished(unfinished)
    predicted: dict[str, PredictedFiles] = {}
    for group, members in assigned.items():
        output = completing_predictions(unfinished, group)
        _predict(dataset, found, group, members, output=output, options=options)
        predicted |= _locate(dataset, group, members, output, learned_from)
    new = unfinished / folder.name
    shutil.rmtree(new, ignore_errors=True)  # put together, but not moved when it was stopped
    with appearing_folder(new) as growing:
        cases = _write(
            dataset, predicted, growing, options=options, annotated_classes=annotated_classes
        )
        if splits is not None:
            shutil.copyfile(splits, growing / SPLITS_JSON)
        content = {
            "kind": "completion",
            "version": 1,
            "completed_from": dataset.name,
            "model": _describe_model(model, folds),
            "options": {**_plain_rules(options), "mirror": options.prediction.mirror},
            **completion_to_json(cases, dataset.labels),
        }
        write_json(growing / COMPLETION_JSON, content)
    new.rename(folder)
    shutil.rmtree(unfinished)
    return content


def _require_fit(dataset: Dataset, model: TrainedModel) -> None:
    problems = []
    if len(dataset.channel_names) != len(model.plan.intensities):
        problems.append(
            f"the model was trained on {len(model.plan.intensities)} channels, {dataset.name} has "
            f"{len(dataset.channel_names)} ({', '.join(dataset.channel_names)})"
        )
    ours, theirs = (
        {"background": (0,), **labels.foreground} for labels in (dataset.labels, model.labels)
    )
    if ours != theirs or dataset.labels.has_regions != model.labels.has_regions:
        problems.append(f"the model knows the classes {theirs}, {dataset.name} has {ours}")
    if problems:
        raise RequestError(
            f"{model.origin or model.run_folder} cannot label {dataset.name}: "
            f"{'; '.join(problems)}. Take a model that was trained on such data."
        )


def _require_open_voxels(dataset: Dataset, options: CompletionOptions) -> None:
    """Read the labels of every case before hours are spent on predicting.

    Raises:
        RequestError: There are no cases, or every voxel has a label that stands.
        DatasetError: Every problem of every case.
    """

    def has_open_voxels(case: Case) -> bool:
        return not read_kept_annotation(case, dataset.labels, options.rules)[0].is_dense

    opened = _for_each(dataset.cases, has_open_voxels, options=options, label="Reading labels")
    if not any(opened):
        raise RequestError(
            f"Nothing can be completed in {dataset.name}: every voxel of its {len(opened)} cases "
            "has a label. Voxels that nobody annotated hold the ignore value that dataset.json "
            "declares."
        )


def _predict(
    dataset: Dataset,
    found: FoundModel,
    folds: Sequence[Fold],
    names: Sequence[str],
    *,
    output: Path,
    options: CompletionOptions,
) -> None:
    """Segment the cases that are not segmented yet."""
    model = load_found_model(found, folds)
    stages: Callable[..., list[Path]] = partial(predict, model)
    if model.configuration.previous_stage is not None:
        stages = partial(predict_both_stages, load_previous_stage(model, folds), model)
    stages(
        [replace(dataset.case(name), label=None) for name in names],
        output=output,
        file_ending=dataset.file_ending,
        options=replace(options.prediction, confidence=True),
        existing="skip",
    )


def _locate(
    dataset: Dataset,
    folds: tuple[Fold, ...],
    names: Sequence[str],
    output: Path,
    learned_from: LearnedFrom,
) -> dict[str, PredictedFiles]:
    found = {}
    for name in names:
        file = output / f"{name}{dataset.file_ending}"
        found[name] = PredictedFiles(
            labels=file,
            confidence=uncertainty_file(file, name, CONFIDENCE_MAP),
            folds=folds,
            exposure=exposure(name, folds, learned_from),
        )
    return found


def _write(
    dataset: Dataset,
    predicted: Mapping[str, PredictedFiles],
    new: Path,
    *,
    options: CompletionOptions,
    annotated_classes: Mapping[str, Sequence[str]],
) -> list[CompletedCase]:
    """Put the new dataset together, all but what is said about it."""
    link_images(dataset.cases, new / "imagesTr", file_ending=dataset.file_ending)
    for name in ("imagesTs", "labelsTs"):
        link_folder(dataset.folder / name, new / name)
    if (dataset.folder / ANNOTATION_JSON).is_file():
        shutil.copyfile(dataset.folder / ANNOTATION_JSON, new / ANNOTATION_JSON)
    ignore = ignore_value(dataset.labels)
    description = describe_with_ignore(dataset, ignore) | {"numTraining": len(dataset.cases)}
    write_json(new / DATASET_JSON, description)

    def complete(case: Case) -> CompletedCase:
        name = f"{case.name}{dataset.file_ending}"
        files = replace(
            case,
            label=new / "labelsTr" / name,
            provenance=new / PROVENANCE / name,
            confidence=new / CONFIDENCE / name,
        )
        return complete_case(
            case,
            predicted[case.name],
            files,
            labels=dataset.labels,
            ignore=ignore,
            rules=options.rules,
            annotated_classes=annotated_classes.get(case.name),
        )

    return _for_each(dataset.cases, complete, options=options, label="Completing")


def _for_each(
    cases: Sequence[Case],
    work: Callable[[Case], Result],
    *,
    options: CompletionOptions,
    label: str,
) -> list[Result]:
    """Work on every case in threads, and raise the problems of all together."""
    problems: list[Problem] = []

    def attempt(case: Case) -> list[Result]:
        try:
            return [work(case)]
        except DatasetError as error:
            problems.extend(replace(item, case=item.case or case.name) for item in error.problems)
            return []

    with ThreadPoolExecutor(options.prediction.num_workers) as pool:
        done = list(track(pool.map(attempt, cases), total=len(cases), label=label))
    if problems:
        raise DatasetError(sorted(problems, key=lambda problem: problem.case))
    return [result for results in done for result in results]


def _describe_request(
    dataset: Dataset, model: TrainedModel, options: CompletionOptions
) -> dict[str, Any]:
    """Return what predictions of an interrupted completion must have in common with ours."""
    return {
        "dataset": str(dataset.folder),
        "model": str(model.origin or model.run_folder),
        "weights": [hash_file(path) for path in model.checkpoints],
        "mirror": options.prediction.mirror,
        "step": options.prediction.step,
    }


def _require_same_request(unfinished: Path, about: dict[str, Any]) -> None:
    """Refuse to mix the predictions of two requests; note ours if there are none yet."""
    path = unfinished / REQUEST_JSON
    if not path.is_file():
        write_json(path, about)
        return
    before = read_json(path)
    different = [name for name in about if before.get(name) != about[name]]
    if different:
        raise RequestError(
            f"{unfinished} holds an unfinished completion with another {', '.join(different)} "
            f"({before.get('dataset')} by {before.get('model')}). Give the same command as then to "
            "go on with it, choose another name for the new dataset, or remove that folder."
        )


def _describe_model(model: TrainedModel, folds: Sequence[Fold]) -> dict[str, Any]:
    return {
        "dataset": model.plan.dataset_name,
        "configuration": model.configuration.name,
        "run_id": model.run_id,
        "folder": str(model.origin or model.run_folder),
        "folds": list(folds),
        "weights_sha256": [hash_file(path) for path in model.checkpoints],
    }


def _plain_rules(options: CompletionOptions) -> dict[str, Any]:
    return {
        "min_confidence": options.rules.min_confidence,
        "replace_interpolated": options.rules.replace_interpolated,
        "out_of_fold": options.out_of_fold,
    }
