"""Train a network on exactly the voxels that are annotated.

The same command again goes on where an interrupted training stopped, and does nothing where it had
finished. A different recipe, plan or data is a different run in a folder of its own.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseunet.artifacts import read_json
from sparseunet.cli.cascade import FirstStage, find_first_stage, pass_to_next_stage
from sparseunet.cli.environment import available_cpus, resolve_workspace
from sparseunet.cli.held_out import segment_held_out
from sparseunet.cli.recipe import (
    add_recipe_arguments,
    override_configuration,
    recipe_from_arguments,
)
from sparseunet.errors import RequestError
from sparseunet.progress import format_duration
from sparseunet.workspace import (
    CHECKPOINT_FINAL,
    DATASET_JSON,
    FORECAST_JSON,
    PROGRESS_PNG,
    RUN_JSON,
    SPLITS_JSON,
    Workspace,
    fold_folder,
)

if TYPE_CHECKING:
    from sparseunet.data.dataset import Split
    from sparseunet.planning.plan import Configuration, Plan
    from sparseunet.preprocessing.store import CaseStore
    from sparseunet.training.config import TrainingConfig
    from sparseunet.training.step import Hardware

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `train`."""
    parser.add_argument("dataset", help="id, name or path of the dataset")
    parser.add_argument("configuration", help="2d, 3d_fullres, ...")
    parser.add_argument("fold", help="0 to 4, or all: train on every case")
    parser.add_argument("-p", "--plans", default="nnUNetPlans", help="name of the plans file")
    add_recipe_arguments(parser)
    hardware = parser.add_argument_group("hardware")
    hardware.add_argument(
        "-device", "--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps"
    )
    hardware.add_argument(
        "--precision",
        default="auto",
        help="auto (measured at start), float32, bfloat16 or float16",
    )
    hardware.add_argument("--num-workers", type=int, help="processes that make batches")
    run_ = parser.add_argument_group("run")
    run_.add_argument(
        "--run", metavar="NAME", help="name of the run (default: made from its recipe)"
    )
    run_.add_argument(
        "--previous-stage-run",
        metavar="ID",
        help="3d_cascade_fullres: run of 3d_lowres to learn behind (default: the last finished)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train one fold, and validate it where it has validation cases."""
    workspace = resolve_workspace(arguments.workspace)
    request = _resolve(workspace, arguments)
    folder = fold_folder(
        workspace.run_folder(request.plan.dataset_name, arguments.configuration, request.run_id),
        request.fold,
    )
    if (folder / CHECKPOINT_FINAL).is_file():
        _require_same(folder, request)
        print(f"{folder} has finished already; nothing to do.")
    else:
        _train(request, arguments, folder)
    if request.split.val or request.configuration.next_stage is not None:
        files = segment_held_out(
            workspace,
            folder,
            request.split,
            fold=request.fold,
            device=arguments.device,
            previous_stage=None if request.first is None else request.first.held_out,
        )
        if request.configuration.next_stage is not None:
            pass_to_next_stage(workspace, request.plan, request.configuration, folder, files)
    print(f"Trained: {folder}")
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """What one call asks for, before anything is measured or trained."""

    plan: "Plan"
    configuration: "Configuration"
    dataset_json: dict[str, Any]
    store: "CaseStore"
    split: "Split"
    fold: int | str
    config: "TrainingConfig"
    time_budget_min: float | None
    identity: dict[str, Any]
    run_id: str
    first: FirstStage | None
    """The first stage that a cascade's second stage learns behind."""


def _resolve(workspace: Workspace, arguments: argparse.Namespace) -> _Request:
    from sparseunet.data.load import parse_labels
    from sparseunet.planning.nnunet_plans import budgeted_iterations, plan_from_nnunet
    from sparseunet.preprocessing.store import CaseStore
    from sparseunet.training.record import run_id, run_identity
    from sparseunet.training.sampling import resolve_shares

    dataset_name = workspace.dataset_name(arguments.dataset)
    folder = workspace.preprocessed_dataset(dataset_name)
    plans_file = workspace.plans_file(dataset_name, arguments.plans)
    content = _read_prepared(plans_file, dataset_name)
    plan = plan_from_nnunet(content, source=str(plans_file))
    if arguments.configuration not in plan.configurations:
        raise RequestError(
            f"The plan of {dataset_name} has no configuration {arguments.configuration!r}; it has: "
            f"{', '.join(plan.configurations)}."
        )
    configuration = override_configuration(plan.configurations[arguments.configuration], arguments)
    store = CaseStore(folder / configuration.data_identifier)
    splits_file = folder / SPLITS_JSON
    split = _choose_split(splits_file, store.cases, arguments.fold, dataset_name)
    planned_iterations = budgeted_iterations(content, arguments.configuration)
    dataset_json = _read_prepared(folder / DATASET_JSON, dataset_name)
    labels = parse_labels(dataset_json)
    config = recipe_from_arguments(
        arguments,
        configuration,
        planned_iterations=planned_iterations,
        labels=labels,
        scans=(store.manifest(case).restoration for case in split.train),
    )
    resolve_shares(config.patch_shares, labels)  # refuses unknown names
    identity = run_identity(
        config,
        configuration,
        data_hash=store.content_hash(),
        time_budget_min=arguments.time_budget,
    )
    first = None
    if configuration.previous_stage is not None:
        first = find_first_stage(
            workspace,
            plan,
            configuration,
            splits_file=splits_file,
            fold=arguments.fold,
            cases=(*split.train, *split.val),
            run=arguments.previous_stage_run,
        )
        identity["previous_stage"] = first.identity
    name = arguments.run or run_id(identity)
    if first is not None:  # recorded and compared, but another one in every fold of a run
        identity["previous_stage_predictions"] = first.inputs.content_hash()
    return _Request(
        plan=plan,
        configuration=configuration,
        dataset_json=dataset_json,
        store=store,
        split=split,
        fold=arguments.fold if arguments.fold == "all" else int(arguments.fold),
        config=config,
        time_budget_min=arguments.time_budget,
        identity=identity,
        run_id=name,
        first=first,
    )


def _read_prepared(path: Path, dataset_name: str) -> dict[str, Any]:
    if not path.is_file():
        raise RequestError(
            f"{path} does not exist. Prepare the dataset first: sparseunet plan_and_preprocess -d "
            f"{dataset_name}"
        )
    content: dict[str, Any] = read_json(path)
    return content


def _choose_split(splits_file: Path, cases: Sequence[str], fold: str, dataset_name: str) -> "Split":
    from sparseunet.data.dataset import Split
    from sparseunet.planning.splits import splits_from_json

    if fold == "all":
        return Split(train=tuple(cases), val=())
    splits = splits_from_json(_read_prepared(splits_file, dataset_name))
    if not fold.isdigit() or int(fold) >= len(splits):
        raise RequestError(
            f"No fold {fold!r}; expected 0 to {len(splits) - 1} (from {splits_file}) or all."
        )
    split = splits[int(fold)]
    missing = sorted({*split.train, *split.val} - set(cases))
    if missing:
        raise RequestError(
            f"{splits_file} names cases that are not preprocessed: {', '.join(missing)}. Run "
            f"sparseunet plan_and_preprocess -d {dataset_name} again."
        )
    return split


def _require_same(folder: Path, request: _Request) -> None:
    from sparseunet.training.record import read_run, require_same_run

    require_same_run(read_run(folder)[0], request.identity, folder)


def _train(request: _Request, arguments: argparse.Namespace, folder: Path) -> None:
    from sparseunet.data.load import parse_labels
    from sparseunet.networks.device import DTYPE_NAMES
    from sparseunet.report.figures import draw_training_curves
    from sparseunet.training.fit import fit
    from sparseunet.training.losses.comparison import weights_by_output
    from sparseunet.training.record import read_run, require_same_run, write_run

    labels = parse_labels(request.dataset_json)
    weights_by_output(labels, request.config.class_weights)  # refuses classes there are none of
    if (folder / RUN_JSON).is_file():
        description, configuration, config = read_run(folder)
        require_same_run(description, request.identity, folder)
        hardware = _hardware(arguments, precision=description["precision"])
        print(f"Going on with {folder}")
    else:
        hardware = _hardware(arguments, precision=arguments.precision)
        configuration, config = _fit_to_budget(request, hardware)
        write_run(
            folder,
            plan=request.plan,
            configuration=configuration,
            config=config,
            run_id=request.run_id,
            identity=request.identity,
            dataset_name=request.plan.dataset_name,
            fold=request.fold,
            cases={"train": request.split.train, "val": request.split.val},
            precision=DTYPE_NAMES[hardware.dtype],
            dataset_json=request.dataset_json,
            **({} if request.first is None else {"previous_stage": request.first.record}),
        )
    print(
        f"{request.plan.dataset_name} {configuration.name} fold {request.fold}: "
        f"{config.iterations} iterations of batch {configuration.batch_size}, patch "
        f"{'×'.join(map(str, configuration.patch_size))}, {configuration.network.architecture}, "
        f"{configuration.network.features_per_stage[0]} base features, {hardware.device}, "
        f"{DTYPE_NAMES[hardware.dtype]}\nRun folder: {folder}",
        flush=True,
    )

    _forecast(request, configuration, config, folder)

    def after_epoch(log: Sequence[dict[str, Any]]) -> None:
        draw_training_curves(log, folder / PROGRESS_PNG)
        if not sys.stdout.isatty():
            print(_epoch_line(log[-1], config.epochs), flush=True)

    fit(
        request.store,
        request.split,
        configuration=configuration,
        labels=labels,
        config=config,
        hardware=hardware,
        folder=folder,
        on_epoch=after_epoch,
        previous_stage=None if request.first is None else request.first.inputs,
    )


def _forecast(
    request: _Request, configuration: "Configuration", config: "TrainingConfig", folder: Path
) -> None:
    """Print and keep what the network will see; nothing where nothing is annotated."""
    from sparseunet.data.load import parse_labels
    from sparseunet.training.forecast import forecast_training, format_forecast, write_forecast

    forecast = forecast_training(
        request.store,
        request.split.train,
        configuration=configuration,
        labels=parse_labels(request.dataset_json),
        config=config,
    )
    if forecast is not None:
        write_forecast(folder / FORECAST_JSON, forecast)
        print("\n".join(format_forecast(forecast)), flush=True)
        for warning in forecast.warnings:
            logger.warning("%s", warning)


def _hardware(arguments: argparse.Namespace, *, precision: str) -> "Hardware":
    from sparseunet.networks.device import resolve_device, resolve_precision
    from sparseunet.training.step import Hardware

    device = resolve_device(arguments.device)
    workers = arguments.num_workers
    if workers is not None and workers < 0:
        raise RequestError(f"--num-workers must be 0 or more, found {workers}.")
    if workers is None:
        workers = 1 if device.type == "cpu" else max(1, min(12, available_cpus() - 1))
    return Hardware(device=device, dtype=resolve_precision(precision, device), num_workers=workers)


def _fit_to_budget(
    request: _Request, hardware: "Hardware"
) -> tuple["Configuration", "TrainingConfig"]:
    if request.time_budget_min is None:
        return request.configuration, request.config
    from sparseunet.data.load import parse_labels
    from sparseunet.training.time_budget import fit_into_budget

    print("Measuring this machine ...", flush=True)
    fitted = fit_into_budget(
        request.configuration,
        labels=parse_labels(request.dataset_json),
        config=request.config,
        hardware=hardware,
        budget_s=60 * request.time_budget_min,
    )
    per_epoch = min(request.config.iterations_per_epoch, max(1, fitted.iterations // 20))
    config = replace(request.config, iterations=fitted.iterations, iterations_per_epoch=per_epoch)
    return fitted.configuration, config


def _epoch_line(entry: dict[str, Any], epochs: int) -> str:
    scores = ", ".join(
        f"{name} {score:.3f}" if score is not None else f"{name} –"
        for name, score in entry["pseudo_dice"].items()
    )
    loss = entry["train_loss"]
    return (
        f"epoch {entry['epoch']}/{epochs}: loss "
        f"{'–' if loss is None else format(loss, '.3f')}, pseudo Dice {scores}, "
        f"{format_duration(entry['duration_s'])}, "
        f"{format_duration(entry['duration_s'] * (epochs - entry['epoch']))} left"
    )
