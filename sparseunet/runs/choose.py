"""Choose among cross-validated runs and their ensembles, on the same cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from sparseunet.artifacts import read_json
from sparseunet.data.annotated_classes import read_annotated_classes
from sparseunet.data.labels import LabelSchema
from sparseunet.data.load import load_dataset, parse_labels
from sparseunet.errors import RequestError
from sparseunet.evaluation.determine_postprocessing import (
    determine_postprocessing,
    find_not_dense,
    require_dense,
    sparse_cases,
)
from sparseunet.evaluation.dice import measure_dice
from sparseunet.evaluation.pairing import LabelPair
from sparseunet.evaluation.select_configuration import Candidate, select_configuration
from sparseunet.planning.splits import splits_from_json
from sparseunet.postprocessing import Postprocessing
from sparseunet.prediction.ensemble import ensemble
from sparseunet.runs.cross_validation import (
    CrossValidatedRun,
    IncompleteConfiguration,
    find_cross_validated,
    trained_configurations,
)
from sparseunet.workspace import (
    DATASET_JSON,
    GROUND_TRUTH,
    POSTPROCESSING_JSON,
    SPLITS_JSON,
    Workspace,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Everything that was compared, and what came out."""

    dataset_name: str
    folds: tuple[int, ...]
    runs: dict[str, CrossValidatedRun]
    """By the name that candidates call them."""
    incomplete: tuple[IncompleteConfiguration, ...]
    """Left out."""
    not_tried: tuple[Sequence[CrossValidatedRun], ...]
    """Ensembles for which probabilities are missing."""
    candidates: tuple[Candidate, ...]
    best: Candidate
    postprocessing: Postprocessing | None
    why_no_postprocessing: str
    """Where it could not be found out."""
    postprocessing_file: Path
    partly: frozenset[str]
    """Cases in which some classes only were annotated."""

    @property
    def has_postprocessing(self) -> bool:
        """Whether some step helps."""
        return self.postprocessing is not None and bool(self.postprocessing.steps)

    @property
    def num_sparse(self) -> int:
        """Validation cases whose reference has unannotated voxels."""
        return sum(self.best.dice.is_sparse)


def choose_configuration(
    workspace: Workspace,
    dataset_name: str,
    *,
    configurations: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    runs: Sequence[str] = (),
    with_ensembles: bool = True,
    num_workers: int = 1,
) -> Choice:
    """Score every cross-validated run, and every couple of them, and choose the best.

    Args:
        workspace: Where runs and ground truth lie.
        dataset_name: `DatasetXXX_Name`.
        configurations: That must all be complete; None: those of which some fold is trained.
        folds: That must be complete; None: every fold of `splits_final.json`.
        runs: Names of the only runs to look at; none means of each configuration the one that
            finished last.
        with_ensembles: Whether couples are scored too, where their probabilities are kept.
        num_workers: Cases in memory at the same time.

    Raises:
        RequestError: Nothing is complete, or not everything that was named; holds what to train.
    """
    splits_file = workspace.preprocessed_dataset(dataset_name) / SPLITS_JSON
    if not splits_file.is_file():
        raise RequestError(
            f"{dataset_name} has no folds to compare ({splits_file} does not exist). One case, or "
            "one group of cases, cannot be split; prepare any other dataset first: sparseunet "
            f"plan_and_preprocess -d {dataset_name}"
        )
    splits = splits_from_json(read_json(splits_file), source=str(splits_file))
    inputs = _read_inputs(workspace, dataset_name, num_workers)
    chosen_folds = _choose_folds(folds, len(splits), splits_file)
    found, incomplete = find_cross_validated(
        workspace,
        dataset_name,
        splits,
        folds=chosen_folds,
        configurations=configurations or trained_configurations(workspace, dataset_name),
        runs=runs,
        file_ending=inputs.file_ending,
    )
    _require_complete(found, incomplete, dataset_name, all_asked=configurations is not None)
    files = {each.name: each.label_files for each in found}
    candidates = [inputs.score(each.name, [each.name], each.label_files) for each in found]
    couples = list(combinations(found, 2)) if with_ensembles else []
    for couple in couples:
        if all(each.has_probabilities for each in couple):
            title = ensemble_name(couple)
            files[title] = _ensemble(workspace, dataset_name, couple, inputs)
            candidates.append(inputs.score(title, [each.name for each in couple], files[title]))
    best = select_configuration(candidates)
    postprocessing, why_none = _postprocess(best, files[best.name], inputs)
    return Choice(
        dataset_name=dataset_name,
        folds=chosen_folds,
        runs={each.name: each for each in found},
        incomplete=tuple(incomplete),
        not_tried=tuple(
            couple for couple in couples if not all(each.has_probabilities for each in couple)
        ),
        candidates=tuple(candidates),
        best=best,
        postprocessing=postprocessing,
        why_no_postprocessing=why_none,
        postprocessing_file=inputs.results / POSTPROCESSING_JSON,
        partly=inputs.partly,
    )


def ensemble_name(members: Sequence[CrossValidatedRun]) -> str:
    """Return how tables call the ensemble of these runs."""
    return " + ".join(each.name for each in members)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Inputs:
    """What all candidates of one dataset share."""

    results: Path
    references: Path
    """Label files as a person drew them, unannotated voxels marked."""
    partly: frozenset[str]
    """Cases in which some classes only were annotated."""
    labels: LabelSchema
    file_ending: str
    num_workers: int

    def score(self, name: str, runs: Sequence[str], files: Mapping[str, Path]) -> Candidate:
        """Score held-out segmentations."""
        (dice,) = measure_dice(
            self.pairs(files), labels=self.labels, num_workers=self.num_workers, label=name
        )
        return Candidate(name=name, members=tuple(runs), dice=dice)

    def pairs(self, files: Mapping[str, Path]) -> list[LabelPair]:
        """Pair held-out segmentations with their references.

        Raises:
            RequestError: References are missing; names all.
        """
        found = {case: self.references / f"{case}{self.file_ending}" for case in files}
        missing = [path.name for path in found.values() if not path.is_file()]
        if missing:
            raise RequestError(
                f"No {', '.join(missing)} in {self.references}; run plan_and_preprocess again."
            )
        return [
            LabelPair(name=case, reference=found[case], prediction=path)
            for case, path in files.items()
        ]


def _read_inputs(workspace: Workspace, name: str, num_workers: int) -> _Inputs:

    prepared = workspace.preprocessed_dataset(name)
    description = read_json(prepared / DATASET_JSON)
    return _Inputs(
        results=workspace.results_dataset(name),
        references=prepared / GROUND_TRUTH,
        partly=_partly_annotated(workspace, name),
        labels=parse_labels(description),
        file_ending=str(description["file_ending"]),
        num_workers=num_workers,
    )


def _partly_annotated(workspace: Workspace, name: str) -> frozenset[str]:
    """Return the cases in which some classes only were annotated; none without the raw dataset."""
    try:
        raw = workspace.raw_dataset(name)
    except RequestError:
        return frozenset()
    return frozenset(read_annotated_classes(load_dataset(raw, needs_labels=False)))


def _choose_folds(asked: Sequence[int] | None, num_folds: int, source: Path) -> tuple[int, ...]:
    folds = tuple(range(num_folds)) if asked is None else tuple(sorted(set(asked)))
    wrong = [fold for fold in folds if not 0 <= fold < num_folds]
    if wrong:
        raise RequestError(
            f"No fold {', '.join(map(str, wrong))}; expected 0 to {num_folds - 1} (from {source})."
        )
    return folds


def _require_complete(
    runs: Sequence[CrossValidatedRun],
    incomplete: Sequence[IncompleteConfiguration],
    name: str,
    *,
    all_asked: bool,
) -> None:
    """Refuse if nothing is complete, or not everything that was named.

    Raises:
        RequestError: Every missing fold, with the command to train it.
    """
    if runs and not (incomplete and all_asked):
        return
    if not incomplete:
        raise RequestError(
            f"Nothing is trained on {name} yet, fold by fold. Start with: sparseunet train {name} "
            "3d_fullres 0"
        )
    raise RequestError(
        f"Not every fold of {name} is trained and validated. Run first:\n"
        + "\n".join(map(str, incomplete))
    )


def _ensemble(
    workspace: Workspace, name: str, couple: Sequence[CrossValidatedRun], inputs: _Inputs
) -> dict[str, Path]:
    """Segment the validation cases by the mean of two runs."""
    names = [f"{each.configuration}-{each.folder.name}" for each in couple]
    return ensemble(
        [each.saved() for each in couple],
        output=workspace.ensemble_folder(name, names),
        labels=inputs.labels,
        file_ending=inputs.file_ending,
        num_workers=inputs.num_workers,
    )


def _postprocess(
    best: Candidate, files: Mapping[str, Path], inputs: _Inputs
) -> tuple[Postprocessing | None, str]:
    """Find out what cleaning helps the best candidate, or why that cannot be said."""
    partly = find_not_dense(
        list(files), provenance=None, file_ending=inputs.file_ending, partly=inputs.partly
    )
    try:
        require_dense(partly | sparse_cases(best.dice))
    except RequestError as error:
        return None, str(error)
    found = determine_postprocessing(
        inputs.pairs(files),
        labels=inputs.labels,
        file_ending=inputs.file_ending,
        num_workers=inputs.num_workers,
    )
    return found, ""
