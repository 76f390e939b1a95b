"""One training as a run with a folder and a record of its own."""

from pathlib import Path
from typing import Any

from sparseunet.data.dataset import Split
from sparseunet.data.load import parse_labels
from sparseunet.networks.device import DTYPE_NAMES
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.preprocessing.store import CaseStore
from sparseunet.training.config import TrainingConfig
from sparseunet.training.fit import fit
from sparseunet.training.record import run_id, run_identity, write_run
from sparseunet.training.step import Hardware
from sparseunet.workspace import fold_folder


def train_on_all_cases(
    store: CaseStore,
    *,
    plan: Plan,
    configuration: Configuration,
    dataset_json: dict[str, Any],
    config: TrainingConfig,
    hardware: Hardware,
    results: Path,
) -> Path:
    """Train on every case and return the folder of the run, `results/run-.../`.

    Args:
        store: Preprocessed cases.
        plan: The dataset's plan, recorded with the run.
        configuration: Network, patch and batch, overrides applied.
        dataset_json: The description of the dataset.
        config: The recipe.
        hardware: Device, precision and workers.
        results: Folder of the runs of this dataset and configuration.
    """
    split = Split(train=store.cases, val=())
    data_hash = store.content_hash()
    identity = run_identity(config, configuration, data_hash=data_hash, time_budget_min=None)
    run_folder = results / run_id(identity)
    folder = fold_folder(run_folder, "all")
    write_run(
        folder,
        plan=plan,
        configuration=configuration,
        config=config,
        run_id=run_folder.name,
        identity=identity,
        dataset_name=plan.dataset_name,
        fold="all",
        cases={"train": split.train, "val": split.val},
        precision=DTYPE_NAMES[hardware.dtype],
        dataset_json=dataset_json,
    )
    fit(
        store,
        split,
        configuration=configuration,
        labels=parse_labels(dataset_json),
        config=config,
        hardware=hardware,
        folder=folder,
    )
    return run_folder
