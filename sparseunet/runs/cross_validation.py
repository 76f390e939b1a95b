"""Cross-validated runs: their held-out segmentations, and what is missing of them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseunet.artifacts import hash_file, read_json
from sparseunet.runs.find import FinishedRun, finished_runs
from sparseunet.runs.record import has_record, read_record
from sparseunet.workspace import (
    CHECKPOINT_FINAL,
    PREDICTION_JSON,
    Workspace,
    fold_folder,
    held_out_folder,
    probabilities_file,
)

if TYPE_CHECKING:
    from sparseunet.data.dataset import Split
    from sparseunet.prediction.saved_probabilities import SavedModel

_ORDER = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
"""Simpler ones first: of equals the first is chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossValidatedRun:
    """A run of which every fold has segmented its validation cases with the weights it has now."""

    folder: Path
    folds: tuple[int, ...]
    plans_name: str
    label_files: dict[str, Path]
    """Held-out segmentation of every case."""
    has_probabilities: bool
    """Whether the probabilities of all these lie beside them."""

    @property
    def configuration(self) -> str:
        """`2d`, `3d_fullres`, ..."""
        return self.folder.parent.name

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.configuration} {self.folder.name}"

    def saved(self) -> "SavedModel":
        """Return the held-out probabilities."""
        from sparseunet.prediction.saved_probabilities import SavedCase, SavedModel

        return SavedModel(
            name=str(self.folder),
            cases={
                case: SavedCase(label_file=path, probabilities=probabilities_file(path, case))
                for case, path in self.label_files.items()
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class IncompleteConfiguration:
    """A configuration of which no run is cross-validated, and how to get there."""

    configuration: str
    closest: str | None
    """Name of the run that lacks least."""
    lacks: Mapping[int, str]
    """Fold to what is wrong with it."""
    command: str
    """Without the fold."""

    def __str__(self) -> str:
        lines = [
            f"  {self.command.format(fold=fold)}    # {reason}"
            for fold, reason in self.lacks.items()
        ]
        if self.closest is None:
            return "\n".join([f"{self.configuration}:", *lines])
        head = f"{self.configuration}, with the flags of {self.closest}:"
        return "\n".join([head, *lines])


def find_cross_validated(
    workspace: Workspace,
    dataset_name: str,
    splits: "Sequence[Split]",
    *,
    folds: Sequence[int],
    configurations: Sequence[str],
    runs: Sequence[str],
    file_ending: str,
) -> tuple[list[CrossValidatedRun], list[IncompleteConfiguration]]:
    """Return the complete runs, simpler configurations first, and the configurations without any.

    Of each configuration the run that finished last is taken; with `runs` all of these names.

    Args:
        workspace: Where results lie.
        dataset_name: `DatasetXXX_Name`.
        splits: Which cases a fold has to have validated on.
        folds: That must be complete.
        configurations: To look at.
        runs: Names of the only runs to look at; none means all.
        file_ending: Of segmentations, with the dot.
    """
    by_configuration: dict[str, list[FinishedRun]] = defaultdict(list)
    for run in finished_runs(workspace.results_dataset(dataset_name)):
        if not runs or run.folder.name in runs:
            by_configuration[run.folder.parent.name].append(run)
    complete, incomplete = [], []
    for configuration in sorted(configurations, key=_rank):
        found = by_configuration[configuration]
        lacks = {
            run.folder: {
                fold: reason
                for fold in folds
                if (reason := _why_not(run.folder, fold, splits[fold], file_ending))
            }
            for run in found
        }
        whole = [run for run in found if not lacks[run.folder]]
        whole.sort(key=lambda run: (run.finished_at_s(folds), run.folder), reverse=True)
        if whole:
            chosen = whole if runs else whole[:1]
            complete += [_collect(run.folder, folds, splits, file_ending) for run in chosen]
            continue
        closest = min(lacks, key=lambda folder: len(lacks[folder]), default=None)
        plans = "" if closest is None else _plans_flag(closest, folds)
        incomplete.append(
            IncompleteConfiguration(
                configuration=configuration,
                closest=None if closest is None else closest.name,
                lacks=dict.fromkeys(folds, "not trained") if closest is None else lacks[closest],
                command=f"sparseunet train {dataset_name} {configuration} {{fold}}{plans}",
            )
        )
    return complete, incomplete


def trained_configurations(workspace: Workspace, dataset_name: str) -> list[str]:
    """Return the configurations of which some numbered fold is trained."""
    return sorted(
        {
            run.folder.parent.name
            for run in finished_runs(workspace.results_dataset(dataset_name))
            if any(isinstance(fold, int) for fold in run.folds)
        },
        key=_rank,
    )


def _rank(configuration: str) -> tuple[int, str]:
    place = _ORDER.index(configuration) if configuration in _ORDER else len(_ORDER)
    return place, configuration


def _why_not(run: Path, fold: int, split: "Split", file_ending: str) -> str | None:
    """Return what a fold lacks; None if it has all it should have."""
    folder = fold_folder(run, fold)
    if not (folder / CHECKPOINT_FINAL).is_file():
        return "not trained to the end" if has_record(folder) else "not trained"
    trained = read_record(folder).split
    if trained is None or (set(trained.train), set(trained.val)) != (
        set(split.train),
        set(split.val),
    ):
        return "trained on another split; train a new run, under another name"
    output = held_out_folder(folder)
    missing = [case for case in split.val if not (output / f"{case}{file_ending}").is_file()]
    if missing:
        return f"not validated on {len(missing)} of {len(split.val)} cases"
    weights = [weight["sha256"] for weight in _prediction(output).get("weights", [])]
    if weights != [hash_file(folder / CHECKPOINT_FINAL)]:
        return "validated with other weights"
    return None


def _collect(
    run: Path, folds: Sequence[int], splits: "Sequence[Split]", file_ending: str
) -> CrossValidatedRun:
    files, has_probabilities = {}, True
    for fold in folds:
        output = held_out_folder(fold_folder(run, fold))
        options = _prediction(output).get("options", {})
        of_fold = {case: output / f"{case}{file_ending}" for case in splits[fold].val}
        has_probabilities &= bool(options.get("save_probabilities")) and all(
            probabilities_file(path, case).is_file() for case, path in of_fold.items()
        )
        files.update(of_fold)
    return CrossValidatedRun(
        folder=run,
        folds=tuple(folds),
        plans_name=_plans_name(run, folds),
        label_files=dict(sorted(files.items())),
        has_probabilities=has_probabilities,
    )


def _prediction(output: Path) -> dict[str, Any]:
    path = output / PREDICTION_JSON
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _plans_name(run: Path, folds: Sequence[int]) -> str:
    described = [folder for fold in folds if has_record(folder := fold_folder(run, fold))]
    return read_record(described[0]).plan.plans_name if described else "nnUNetPlans"


def _plans_flag(run: Path, folds: Sequence[int]) -> str:
    name = _plans_name(run, folds)
    return "" if name == "nnUNetPlans" else f" -p {name}"
