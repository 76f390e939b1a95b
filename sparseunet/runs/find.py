"""Find trained runs in a workspace."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparseunet.errors import RequestError
from sparseunet.workspace import (
    CHECKPOINT_BEST,
    CHECKPOINT_FINAL,
    RUN_JSON,
    Workspace,
    fold_folder,
    folds_of,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedRun:
    """One run with at least one fold that was trained to the end."""

    folder: Path
    folds: tuple[int | str, ...]
    """Finished folds, numbers first, sorted."""

    def finished_at_s(self, folds: Sequence[int | str]) -> float:
        """Return when the last of these folds finished, in seconds since 1970."""
        files = [fold_folder(self.folder, fold) / CHECKPOINT_FINAL for fold in folds]
        return max(file.stat().st_mtime for file in files)

    def __str__(self) -> str:
        return f"{self.folder.parent.name} run {self.folder.name} folds {_join(self.folds)}"


def find_run(
    workspace: Workspace,
    dataset_name: str,
    configuration: str,
    folds: Sequence[int | str] = (),
    *,
    run: str | None = None,
) -> Path:
    """Return the folder of the run that finished last among those with all of `folds` finished.

    Args:
        workspace: Where results lie.
        dataset_name: `DatasetXXX_Name`.
        configuration: `2d`, `3d_fullres`, ...
        folds: Folds that must be there; none means at least one, whichever.
        run: Name of the run to take, instead of the last one.

    Raises:
        RequestError: There is no such run; lists what is trained.
    """
    return find_runs(workspace, dataset_name, configuration, folds, run=run)[0]


def find_runs(
    workspace: Workspace,
    dataset_name: str,
    configuration: str,
    folds: Sequence[int | str] = (),
    *,
    run: str | None = None,
) -> list[Path]:
    """Return every run that `find_run` chooses from, the one that finished last first."""
    everything = finished_runs(workspace.results_dataset(dataset_name))
    fitting = [
        candidate
        for candidate in everything
        if candidate.folder.parent.name == configuration
        and run in (None, candidate.folder.name)
        and set(folds) <= set(candidate.folds)
    ]
    if not fitting:
        asked = f"{configuration}" + (f" run {run}" if run else "")
        asked += f" folds {_join(folds)}" if folds else ""
        there = "\n".join(f"  {candidate}" for candidate in everything) or "  nothing"
        raise RequestError(
            f"No finished training of {dataset_name} {asked} in {workspace.results}. Trained to "
            f"the end there:\n{there}\nTrain it with: sparseunet train {dataset_name} "
            f"{configuration} {folds[0] if folds else 0}"
        )
    fitting.sort(
        key=lambda candidate: (candidate.finished_at_s(folds or candidate.folds), candidate.folder),
        reverse=True,
    )
    return [candidate.folder for candidate in fitting]


def finished_runs(results: Path) -> list[FinishedRun]:
    """Return the runs of a dataset, given its results, that finished at least one fold; sorted."""
    folders = sorted({path.parent.parent for path in results.glob(f"*/*/*/{CHECKPOINT_FINAL}")})
    return [FinishedRun(folder=folder, folds=finished_folds(folder)) for folder in folders]


def finished_folds(run_folder: Path) -> tuple[int | str, ...]:
    """Return the folds of a run that were trained to the end: numbers sorted, then `all`."""
    return folds_of(run_folder, CHECKPOINT_FINAL)


def default_folds(run_folder: Path) -> tuple[int | str, ...]:
    """Return what to predict with when nobody says: `all` if trained, else every number.

    Raises:
        RequestError: No fold of the run has finished.
    """
    folds = finished_folds(run_folder)
    if not folds:
        raise RequestError(
            f"{run_folder} holds no fold that was trained to the end (no "
            f"{fold_folder(Path(), 0)}/{CHECKPOINT_FINAL}, ...)."
        )
    return ("all",) if "all" in folds else folds


def allowed_functions(
    workspace: Workspace, place: Path, named: Collection[str] = ()
) -> Collection[str] | None:
    """Return the functions of the user's that a model may name: any (None) in a run of the user's.

    That is a run below the folder of results; what lies anywhere else may come from a stranger, and
    only the functions that were `named` are imported for it.
    """
    own = place.is_dir() and place.resolve().is_relative_to(workspace.results.resolve())
    return None if own else named


def parse_fold(text: str) -> int | str:
    """Return a fold as the number it is, or as the word it is (`all`)."""
    return int(text) if text.isdigit() else text


def all_folds(workspace: Workspace, dataset_name: str | None = None) -> list[Path]:
    """Return the folder of every fold of every run, finished or not, sorted."""
    return sorted(
        path.parent for path in workspace.results.glob(f"{dataset_name or '*'}/*/*/*/{RUN_JSON}")
    )


def resolve_run(workspace: Workspace, text: str) -> Path:
    """Return the folder of a run given by its path, the path of a fold, or its name.

    Raises:
        RequestError: There is none, or several have the name.
    """
    path = Path(text)
    if path.is_dir():
        if (path / RUN_JSON).is_file():
            return path.resolve().parent
        if next(path.glob(f"*/{RUN_JSON}"), None) is not None:
            return path.resolve()
    found = sorted({fold.parent for fold in all_folds(workspace) if fold.parent.name == text})
    if len(found) == 1:
        return found[0]
    if found:
        listed = "\n".join(f"  {folder}" for folder in found)
        raise RequestError(f"Several runs are called {text}; give the path of one:\n{listed}")
    raise RequestError(
        f"No run {text!r}: neither a folder that holds one nor a name in {workspace.results}. "
        "`sparseunet runs` lists them."
    )


def resolve_weights(workspace: Workspace, text: str, *, fold: str) -> Path:
    """Return the checkpoint given by its path, or a run's: its final weights, else its best.

    Args:
        workspace: Where runs are looked for by name.
        text: File of a checkpoint, folder of a fold, folder or name of a run.
        fold: Which fold of a run is taken if it has several: this one, else `all`.

    Raises:
        RequestError: No such file or run, it has no weights yet, or the fold is not clear.
    """
    if Path(text).is_file():
        return Path(text)
    is_fold = (Path(text) / RUN_JSON).is_file()
    run = resolve_run(workspace, text)
    folds = [Path(text)] if is_fold else [path.parent for path in sorted(run.glob(f"*/{RUN_JSON}"))]
    if len(folds) > 1:
        names = (fold_folder(run, fold), fold_folder(run, "all"))
        folds = [folder for folder in names if folder in folds][:1] or folds
    if len(folds) > 1:
        there = ", ".join(folder.name for folder in folds)
        raise RequestError(f"{run} has several folds ({there}); give the folder of one of them.")
    for name in (CHECKPOINT_FINAL, CHECKPOINT_BEST):
        if (folds[0] / name).is_file():
            return folds[0] / name
    raise RequestError(f"{folds[0]} holds no weights yet; train it to the end first.")


def _join(folds: Sequence[int | str]) -> str:
    return ", ".join(map(str, folds))
