"""Everything that a training depends on, settled before anything is measured or trained."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseunet.artifacts import hash_file
from sparseunet.data.dataset import Split
from sparseunet.planning.plan import Configuration
from sparseunet.preprocessing.prepare import Prepared
from sparseunet.preprocessing.store import CaseStore
from sparseunet.runs.cascade import FirstStage, find_first_stage
from sparseunet.runs.find import resolve_weights
from sparseunet.runs.record import run_id, run_identity
from sparseunet.runs.run import Run
from sparseunet.runs.settings import Overrides, override_configuration, settle_recipe
from sparseunet.training.recipe import Recipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What a training begins with, and what it is called.

    Attributes:
        run: Name of the run; None makes one from recipe, plan and data.
        time_budget_min: Minutes that it may take; None for the recipe's length.
        pretrained_weights: A checkpoint or a run, by path or by name; None for random weights.
        previous_stage_run: Second stage of a cascade: name of the first stage's run; None for the
            one that finished last.
    """

    run: str | None = None
    time_budget_min: float | None = None
    pretrained_weights: str | Path | Run | None = None
    previous_stage_run: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRequest:
    """One fold of a run as it is asked for, before anything is measured or trained.

    Attributes:
        prepared: The dataset.
        store: Its preprocessed cases for this configuration.
        configuration: Network, patch and batch, overrides applied.
        recipe: How to train, nothing left open.
        split: Cases of the fold.
        fold: 0, 1, ... or `all`.
        run_id: Name of the run.
        identity: What makes two runs the same run.
        time_budget_min: Minutes that a training may take; None: as many steps as the recipe says.
        first: The first stage that a cascade's second stage learns behind.
        pretrained: Checkpoint to start from.
    """

    prepared: Prepared
    store: CaseStore
    configuration: Configuration
    recipe: Recipe
    split: Split
    fold: int | str
    run_id: str
    identity: dict[str, Any]
    time_budget_min: float | None = None
    first: FirstStage | None = None
    pretrained: Path | None = None

    @property
    def run(self) -> Run:
        """The run, whether it is there yet or not."""
        folder = self.prepared.workspace.run_folder(
            self.prepared.name, self.configuration.name, self.run_id
        )
        return Run(folder=folder, fold=self.fold)


def resolve_request(
    prepared: Prepared,
    configuration: str,
    fold: int | str,
    *,
    recipe: Recipe | Mapping[str, Any] | None = None,
    overrides: Overrides | None = None,
    start: Start | None = None,
) -> TrainingRequest:
    """Settle everything that a training depends on, and with it the name of its run.

    Raises:
        RequestError: Something is not there, or does not fit.
    """
    overrides, start = overrides or Overrides(), start or Start()
    planned = override_configuration(prepared.configuration(configuration), overrides)
    store = prepared.store(planned)
    fold = int(fold) if str(fold).isdigit() else fold
    split = prepared.split(fold, store.cases)
    settled, notice = settle_recipe(
        recipe,
        planned,
        preset=overrides.preset,
        planned_iterations=prepared.planned_iterations.get(configuration),
        time_chooses_length=start.time_budget_min is not None,
        labels=prepared.labels,
        scans=(store.manifest(case).restoration for case in split.train),
    )
    if notice is not None:
        logger.info("%s", notice)
    pretrained = _find_weights(prepared, start.pretrained_weights, fold)
    identity = run_identity(
        settled,
        planned,
        data_hash=store.content_hash(),
        time_budget_min=start.time_budget_min,
        pretrained_hash=None if pretrained is None else hash_file(pretrained),
    )
    first = None
    if planned.previous_stage is not None:
        first = find_first_stage(
            prepared,
            planned,
            fold=fold,
            cases=(*split.train, *split.val),
            run=start.previous_stage_run,
        )
        identity["previous_stage"] = first.identity
    name = start.run or run_id(identity)
    if first is not None:  # recorded and compared, but another one in every fold of a run
        identity["previous_stage_predictions"] = first.inputs.content_hash()
    return TrainingRequest(
        prepared=prepared,
        store=store,
        configuration=planned,
        recipe=settled,
        split=split,
        fold=fold,
        run_id=name,
        identity=identity,
        time_budget_min=start.time_budget_min,
        first=first,
        pretrained=pretrained,
    )


def _find_weights(
    prepared: Prepared, given: str | Path | Run | None, fold: int | str
) -> Path | None:
    if given is None:
        return None
    text = str(given.fold_folder if isinstance(given, Run) else given)
    return resolve_weights(prepared.workspace, text, fold=str(fold))
