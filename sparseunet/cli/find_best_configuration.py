"""Choose among cross-validated runs and ensembles of two, and say how to predict with the best.

Of each configuration the run that finished last counts, with every fold trained and validated. The
best is the one with the highest mean foreground Dice on validation cases. Ensembles of two are
tried where both kept probabilities (train --save-probabilities; the same command again makes them
for a finished fold). Where the references are dense, postprocessing is found out for the best.
Where they are sparse, only annotated voxels count and postprocessing cannot be estimated.

Writes best_configuration.json and .txt into results/DATASET, and postprocessing.json if it helps.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.artifacts import atomic_path, read_json, write_json
from sparseunet.cli.best_configuration import (
    Choice,
    describe_choice,
    ensemble_name,
    format_choice,
)
from sparseunet.cli.cross_validation import (
    CrossValidatedRun,
    IncompleteConfiguration,
    find_cross_validated,
    trained_configurations,
)
from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import add_num_workers_argument
from sparseunet.errors import RequestError
from sparseunet.workspace import (
    BEST_CONFIGURATION_JSON,
    BEST_CONFIGURATION_TXT,
    DATASET_JSON,
    GROUND_TRUTH,
    POSTPROCESSING_JSON,
    SPLITS_JSON,
    Workspace,
)

if TYPE_CHECKING:
    from sparseunet.data.labels import LabelSchema
    from sparseunet.evaluation.pairing import LabelPair
    from sparseunet.evaluation.select_configuration import Candidate
    from sparseunet.postprocessing import Postprocessing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `find_best_configuration`."""
    parser.add_argument("dataset", help="id, name or path of the dataset")
    parser.add_argument(
        "-c",
        "--configurations",
        nargs="+",
        metavar="CONFIGURATION",
        help="that must all be complete (default: those of which some fold is trained; incomplete "
        "ones are named and left out)",
    )
    parser.add_argument(
        "-f",
        "--folds",
        nargs="+",
        type=int,
        metavar="FOLD",
        help="that must be complete (default: every fold of splits_final.json)",
    )
    parser.add_argument(
        "--run",
        nargs="+",
        default=[],
        metavar="ID",
        help="look at these runs only, also several of one configuration (default: of each "
        "configuration the complete one that finished last)",
    )
    parser.add_argument(
        "--no-ensembles", "--disable_ensembling", action="store_true", help="single runs only"
    )
    add_num_workers_argument(parser)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Inputs:
    """What all candidates of one dataset share."""

    results: Path
    references: Path
    """Label files as a person drew them, unannotated voxels marked."""
    partly: frozenset[str]
    """Cases in which some classes only were annotated."""
    labels: "LabelSchema"
    file_ending: str
    num_workers: int

    def score(self, name: str, runs: Sequence[str], files: Mapping[str, Path]) -> "Candidate":
        """Score held-out segmentations."""
        from sparseunet.evaluation.dice import measure_dice
        from sparseunet.evaluation.select_configuration import Candidate

        (dice,) = measure_dice(
            self.pairs(files), labels=self.labels, num_workers=self.num_workers, label=name
        )
        return Candidate(name=name, members=tuple(runs), dice=dice)

    def pairs(self, files: Mapping[str, Path]) -> "list[LabelPair]":
        """Pair held-out segmentations with their references.

        Raises:
            RequestError: References are missing; names all.
        """
        from sparseunet.evaluation.pairing import LabelPair

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


def run(arguments: argparse.Namespace) -> int:
    """Score all candidates on the same cases, choose, and write what was found."""
    from sparseunet.evaluation.select_configuration import select_configuration
    from sparseunet.planning.splits import splits_from_json

    workspace = resolve_workspace(arguments.workspace)
    name = workspace.dataset_name(arguments.dataset)
    splits_file = workspace.preprocessed_dataset(name) / SPLITS_JSON
    splits = splits_from_json(read_json(splits_file), source=str(splits_file))
    inputs = _read_inputs(workspace, name, arguments.num_workers)
    folds = _choose_folds(arguments.folds, len(splits), splits_file)
    runs, incomplete = find_cross_validated(
        workspace,
        name,
        splits,
        folds=folds,
        configurations=arguments.configurations or trained_configurations(workspace, name),
        runs=arguments.run,
        file_ending=inputs.file_ending,
    )
    _require_complete(runs, incomplete, name, all_asked=arguments.configurations is not None)
    files = {each.name: each.label_files for each in runs}
    candidates = [inputs.score(each.name, [each.name], each.label_files) for each in runs]
    couples = [] if arguments.no_ensembles else list(combinations(runs, 2))
    for couple in couples:
        if all(each.has_probabilities for each in couple):
            title = ensemble_name(couple)
            files[title] = _ensemble(workspace, name, couple, inputs)
            candidates.append(inputs.score(title, [each.name for each in couple], files[title]))
    best = select_configuration(candidates)
    postprocessing, why_none = _postprocess(best, files[best.name], inputs)
    choice = Choice(
        dataset_name=name,
        folds=folds,
        runs={each.name: each for each in runs},
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
    _write(inputs.results, choice)
    return 0


def _read_inputs(workspace: Workspace, name: str, num_workers: int) -> _Inputs:
    from sparseunet.data.load import parse_labels

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
    from sparseunet.annotation.annotated_classes import read_annotated_classes
    from sparseunet.data.load import load_dataset

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
            "3d_fullres 0 --save-probabilities"
        )
    raise RequestError(
        f"Not every fold of {name} is trained and validated. Run first:\n"
        + "\n".join(map(str, incomplete))
    )


def _ensemble(
    workspace: Workspace, name: str, couple: Sequence[CrossValidatedRun], inputs: _Inputs
) -> dict[str, Path]:
    """Segment the validation cases by the mean of two runs."""
    from sparseunet.prediction.ensemble import ensemble

    names = [f"{each.configuration}-{each.folder.name}" for each in couple]
    return ensemble(
        [each.saved() for each in couple],
        output=workspace.ensemble_folder(name, names),
        labels=inputs.labels,
        file_ending=inputs.file_ending,
        num_workers=inputs.num_workers,
    )


def _postprocess(
    best: "Candidate", files: Mapping[str, Path], inputs: _Inputs
) -> "tuple[Postprocessing | None, str]":
    """Find out what cleaning helps the best candidate, or why that cannot be said."""
    from sparseunet.evaluation.determine_postprocessing import (
        determine_postprocessing,
        find_not_dense,
        require_dense,
        sparse_cases,
    )

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


def _write(results: Path, choice: Choice) -> None:
    from sparseunet.postprocessing import write_postprocessing

    if choice.has_postprocessing and choice.postprocessing is not None:
        write_postprocessing(choice.postprocessing_file, choice.postprocessing)
    else:  # what an earlier choice left must not be applied to this one
        choice.postprocessing_file.unlink(missing_ok=True)
    write_json(results / BEST_CONFIGURATION_JSON, describe_choice(choice))
    text = "\n".join(format_choice(choice)) + "\n"
    with atomic_path(results / BEST_CONFIGURATION_TXT) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)
    print(f"Written: {results / BEST_CONFIGURATION_JSON} and {BEST_CONFIGURATION_TXT}")
