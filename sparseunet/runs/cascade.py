"""How the two stages of a cascade find each other's files.

Every fold of the first stage segments the cases that it did not train on (the fold `all`: every
case). The second stage learns from these segmentations: a numbered fold from those of all numbered
folds, so that no network is asked about a case it knows, and the fold `all` from those of `all`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparseunet.artifacts import hash_content
from sparseunet.errors import RequestError, name_some
from sparseunet.machine import processors
from sparseunet.planning.plan import Configuration
from sparseunet.prediction.record import is_outdated
from sparseunet.preprocessing.prepare import Prepared
from sparseunet.preprocessing.previous_stage import PreviousStage, update_previous_stage
from sparseunet.runs.find import FinishedRun, finished_runs
from sparseunet.runs.load import load_trained_model
from sparseunet.runs.record import read_record
from sparseunet.workspace import SPLITS_JSON, fold_folder, held_out_folder, next_stage_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstStage:
    """What the second stage of a cascade learns behind."""

    record: dict[str, str]
    """Configuration and name of the run, for `run.json`."""
    identity: str
    """SHA-256 of what makes the run of the first stage what it is."""
    inputs: PreviousStage
    """Segmentations of all cases on the grid of the second stage."""
    held_out: Path
    """Folder of the label files by the same fold of the first stage."""


def pass_to_next_stage(
    prepared: Prepared,
    configuration: Configuration,
    folder: Path,
    files: Mapping[str, Path],
) -> None:
    """Store a fold's segmentations where and how the training of the next stage reads them.

    Cases that are not preprocessed for the next stage are named and left out; its training catches
    up on them.
    """
    following = prepared.plan.configurations.get(str(configuration.next_stage))
    if following is None:
        return
    store = prepared.store(following)
    ready = {case: path for case, path in files.items() if case in set(store.cases)}
    target = next_stage_folder(folder, following.name)
    written = update_previous_stage(
        target,
        ready,
        store=store,
        patch_size=following.patch_size,
        num_workers=processors(),
    )
    if written:
        logger.info(f"Segmentations of {len(ready)} cases for {following.name}: {target}")
    if len(ready) < len(files):
        logger.info(
            f"{_names(sorted(files.keys() - ready.keys()))} not preprocessed for {following.name} "
            f"yet: sparseunet preprocess -d {prepared.name} -c {following.name}"
        )


def find_first_stage(
    prepared: Prepared,
    configuration: Configuration,
    *,
    fold: int | str,
    cases: Sequence[str],
    run: str | None,
) -> FirstStage:
    """Find the run of the first stage and bring its segmentations to the second stage's grid.

    Of the runs of the same plans with segmentations of all cases the one that finished last is
    taken.

    Args:
        prepared: The dataset.
        configuration: The second stage.
        fold: Of the second stage.
        cases: The fold's cases, all preprocessed.
        run: Name of the run to take.

    Raises:
        RequestError: No run has segmented all cases; says which cases, and what to train.
    """
    if not cases:
        raise RequestError(
            f"No case is preprocessed for {configuration.name}. Run sparseunet preprocess -d "
            f"{prepared.name} -c {configuration.name}"
        )
    folds, ending = _asking_folds(prepared, fold, cases), prepared.file_ending
    found = _choose_run(prepared, configuration, folds, run=run)
    store = prepared.store(configuration)
    folders = {}
    for number in sorted(set(folds.values()), key=str):
        own = fold_folder(found.folder, number)
        target = next_stage_folder(own, configuration.name)
        names = [case for case in cases if folds[case] == number]
        update_previous_stage(
            target,
            {case: held_out_folder(own) / f"{case}{ending}" for case in names},
            store=store,
            patch_size=prepared.plan.configurations[configuration.name].patch_size,
            num_workers=processors(),
        )
        folders.update(dict.fromkeys(names, target))
    same = fold_folder(found.folder, fold)
    record = read_record(fold_folder(found.folder, folds[cases[0]]))
    return FirstStage(
        record={
            "configuration": str(configuration.previous_stage),
            "run_id": found.folder.name,
        },
        identity=hash_content(record.identity),
        inputs=PreviousStage(folders=folders),
        held_out=held_out_folder(same),
    )


def _asking_folds(
    prepared: Prepared, fold: int | str, cases: Sequence[str]
) -> dict[str, int | str]:
    """Return by case which fold of the first stage is asked about it.

    Raises:
        RequestError: Some cases are validated by no fold, so no network does not know them.
    """
    if fold == "all":
        return dict.fromkeys(cases, "all")
    splits = prepared.splits()
    own_first = sorted(range(len(splits)), key=lambda number: number != int(fold))
    folds: dict[str, int | str] = {}
    for number in own_first:
        for case in splits[number].val:
            folds.setdefault(case, number)
    unasked = [case for case in cases if case not in folds]
    if unasked:
        raise RequestError(
            f"{_names(unasked)} validated by no fold of {prepared.folder / SPLITS_JSON}, so the "
            "first stage cannot segment them without having trained on them. Train on fold all, or "
            "put every case into the val list of one fold."
        )
    return {case: folds[case] for case in cases}


def _choose_run(
    prepared: Prepared,
    configuration: Configuration,
    folds: Mapping[str, int | str],
    *,
    run: str | None,
) -> FinishedRun:
    """Return the run of the first stage that has segmented every case, the last finished first.

    Raises:
        RequestError: No run has; names what is missing of the one that lacks least.
    """
    plans_name, ending = prepared.plan.plans_name, prepared.file_ending
    runs = [
        candidate
        for candidate in finished_runs(prepared.workspace.results_dataset(prepared.name))
        if candidate.folder.parent.name == configuration.previous_stage
        and run in (None, candidate.folder.name)
        and _plans_name(candidate) == plans_name
    ]
    missing = {candidate: _missing(candidate, folds, ending=ending) for candidate in runs}
    complete = [candidate for candidate in runs if not missing[candidate]]
    if complete:
        needed = sorted(set(folds.values()), key=str)
        complete.sort(key=lambda candidate: candidate.finished_at_s(needed), reverse=True)
        if len(complete) > 1:
            others = ", ".join(candidate.folder.name for candidate in complete[1:])
            logger.info(
                f"Took run {complete[0].folder.name} of {configuration.previous_stage}, which "
                f"finished last; others: {others}"
            )
        return complete[0]
    closest = min(runs, key=lambda candidate: len(missing[candidate]), default=None)
    cases = sorted(folds) if closest is None else missing[closest]
    commands = [
        f"  sparseunet train {prepared.name} {configuration.previous_stage} {number}"
        + ("" if plans_name == "nnUNetPlans" else f" -p {plans_name}")
        for number in sorted({folds[case] for case in cases}, key=str)
    ]
    where = f"any run{'' if run is None else f' {run}'}" if closest is None else f"{closest}"
    flags = "" if closest is None else f", with the flags of {closest.folder.name}"
    raise RequestError(
        f"{configuration.name} learns behind {configuration.previous_stage}, and {len(cases)} of "
        f"{len(folds)} cases are not segmented by {where}: {name_some(cases)}. Run first{flags}:\n"
        + "\n".join(commands)
    )


def _plans_name(run: FinishedRun) -> str:
    return read_record(fold_folder(run.folder, run.folds[0])).plan.plans_name


def _missing(run: FinishedRun, folds: Mapping[str, int | str], *, ending: str) -> list[str]:
    """Return the cases that the run has not segmented with the weights that it has now."""
    usable = set()
    for number in set(folds.values()) & set(run.folds):
        model = load_trained_model(run.folder, [number])
        if not is_outdated(model, held_out_folder(fold_folder(run.folder, number))):
            usable.add(number)
    return sorted(
        case
        for case, number in folds.items()
        if number not in usable
        or not (held_out_folder(fold_folder(run.folder, number)) / f"{case}{ending}").is_file()
    )


def _names(cases: Sequence[str]) -> str:
    return f"{name_some(cases)} {'is' if len(cases) == 1 else 'are'}"
