"""One training as a run with a folder and a record of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sparseunet.data.dataset import Split
from sparseunet.data.load import parse_labels
from sparseunet.networks.device import DTYPE_NAMES, PRECISIONS
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.preprocessing.store import CaseStore
from sparseunet.training.fit import fit
from sparseunet.training.recipe import Recipe
from sparseunet.training.record import (
    read_run,
    require_same_run,
    run_id,
    run_identity,
    write_run,
)
from sparseunet.training.step import Hardware
from sparseunet.workspace import RUN_JSON, fold_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """What a run is to be, before anything is measured or trained."""

    plan: Plan
    configuration: Configuration
    """Network, patch and batch, overrides applied."""
    dataset_json: dict[str, Any]
    split: Split
    fold: int | str
    recipe: Recipe
    identity: dict[str, Any]
    """See `run_identity`."""
    run_id: str
    others: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of `run.json`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run with its record: what is trained, and where."""

    folder: Path
    """Of one fold."""
    configuration: Configuration
    recipe: Recipe
    hardware: Hardware
    is_new: bool


def open_run(
    folder: Path,
    request: RunRequest,
    *,
    hardware: Callable[[str | None], Hardware],
    fitted: Callable[[Hardware], tuple[Configuration, Recipe]] | None = None,
) -> Run:
    """Return the run that `folder` holds as it was recorded, or record it as a new one.

    Args:
        folder: Of the fold.
        request: What is asked for.
        hardware: Gives the hardware for the precision that was recorded (None: a new run).
        fitted: Changes network, batch and length of a new run to what this machine can do.

    Raises:
        RequestError: The folder holds a run of another recipe, plan or data.
    """
    if (folder / RUN_JSON).is_file():
        description, configuration, recipe = read_run(folder)
        require_same_run(description, request.identity, folder)
        recorded = hardware(description["precision"])
        return Run(
            folder=folder,
            configuration=configuration,
            recipe=recipe,
            hardware=recorded,
            is_new=False,
        )
    chosen = hardware(None)
    configuration, recipe = request.configuration, request.recipe
    if fitted is not None:
        configuration, recipe = fitted(chosen)
    write_run(
        folder,
        plan=request.plan,
        configuration=configuration,
        recipe=recipe,
        run_id=request.run_id,
        identity=request.identity,
        dataset_name=request.plan.dataset_name,
        fold=request.fold,
        cases={"train": request.split.train, "val": request.split.val},
        precision=DTYPE_NAMES[chosen.dtype],
        dataset_json=request.dataset_json,
        **request.others,
    )
    return Run(
        folder=folder, configuration=configuration, recipe=recipe, hardware=chosen, is_new=True
    )


def train_on_all_cases(
    store: CaseStore,
    *,
    plan: Plan,
    configuration: Configuration,
    dataset_json: dict[str, Any],
    recipe: Recipe,
    hardware: Hardware,
    results: Path,
) -> Path:
    """Train on every case and return the folder of the run, `results/run-.../`.

    A run that was interrupted goes on.

    Args:
        store: Preprocessed cases.
        plan: The dataset's plan, recorded with the run.
        configuration: Network, patch and batch, overrides applied.
        dataset_json: The description of the dataset.
        recipe: How to train.
        hardware: Device, precision and workers. A run that goes on keeps its precision.
        results: Folder of the runs of this dataset and configuration.
    """
    split = Split(train=store.cases, val=())
    data_hash = store.content_hash()
    identity = run_identity(recipe, configuration, data_hash=data_hash, time_budget_min=None)
    run_folder = results / run_id(identity)
    request = RunRequest(
        plan=plan,
        configuration=configuration,
        dataset_json=dataset_json,
        split=split,
        fold="all",
        recipe=recipe,
        identity=identity,
        run_id=run_folder.name,
    )

    def with_precision(recorded: str | None) -> Hardware:
        return hardware if recorded is None else replace(hardware, dtype=PRECISIONS[recorded])

    run = open_run(fold_folder(run_folder, "all"), request, hardware=with_precision)
    fit(
        store,
        split,
        configuration=run.configuration,
        labels=parse_labels(dataset_json),
        recipe=run.recipe,
        hardware=run.hardware,
        folder=run.folder,
    )
    return run_folder
