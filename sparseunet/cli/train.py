"""Train a network on exactly the voxels that are annotated.

The same command again goes on where an interrupted training stopped, and does nothing where it had
finished. A different recipe, plan or data is a different run in a folder of its own.

Ctrl-C (exit code 130) and SIGTERM (143) end the training after the running step, with a checkpoint;
a second one ends it at once.

Several GPUs, or processes on a CPU, share every batch and give what one gives:
torchrun --standalone --nproc-per-node 2 -m -- sparseunet train DATASET CONFIGURATION FOLD
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseunet.artifacts import hash_file, read_json
from sparseunet.cli.cascade import find_first_stage, pass_to_next_stage
from sparseunet.cli.environment import launched_processes, resolve_workspace
from sparseunet.cli.held_out import segment_held_out
from sparseunet.cli.recipe import (
    add_recipe_arguments,
    override_configuration,
    recipe_from_arguments,
)
from sparseunet.cli.runs import resolve_weights
from sparseunet.cli.several_processes import leave_at_once, taking_part
from sparseunet.cli.train_fold import TrainingRequest, train_fold
from sparseunet.errors import RequestError
from sparseunet.workspace import (
    CHECKPOINT_FINAL,
    DATASET_JSON,
    SPLITS_JSON,
    Workspace,
    fold_folder,
)

if TYPE_CHECKING:
    from sparseunet.data.dataset import Split


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
    hardware.add_argument(
        "--compile",
        action="store_true",
        help="let torch compile the network: a minute or more at the start, worth it on GPUs",
    )
    hardware.add_argument(
        "--accumulate",
        type=int,
        default=1,
        metavar="PARTS",
        help="pass each batch in so many parts, for less memory; same result, slower (default 1)",
    )
    hardware.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=10.0,
        metavar="MINUTES",
        help="least time between two checkpoints (default 10; 0: one after every epoch)",
    )
    run_ = parser.add_argument_group("run")
    run_.add_argument(
        "--run", metavar="NAME", help="name of the run (default: made from its recipe)"
    )
    run_.add_argument(
        "--previous-stage-run",
        metavar="ID",
        help="3d_cascade_fullres: run of 3d_lowres to learn behind (default: the last finished)",
    )
    run_.add_argument(
        "-pretrained_weights",
        "--pretrained-weights",
        metavar="FILE_OR_RUN",
        help="start from a checkpoint, or from a run (folder or name): all weights but the heads",
    )
    run_.add_argument(
        "--save-probabilities",
        "--npz",
        action="store_true",
        help="keep the probabilities of validation cases, for ensembles (find_best_configuration)",
    )
    run_.add_argument(
        "--tensorboard", action="store_true", help="write curves for TensorBoard as well"
    )
    run_.add_argument(
        "--wandb", metavar="PROJECT", help="send curves to a project of Weights & Biases as well"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train one fold, and validate it where it has validation cases."""
    processes = launched_processes()
    with taking_part(processes):
        _check(arguments)
        workspace = resolve_workspace(arguments.workspace)
        request = _resolve(workspace, arguments)
        asked = request.run
        folder = fold_folder(
            workspace.run_folder(asked.plan.dataset_name, arguments.configuration, asked.run_id),
            asked.fold,
        )
        if (folder / CHECKPOINT_FINAL).is_file():
            _require_same(folder, request)
            print(f"{folder} has finished already; nothing to do.")
        else:
            train_fold(request, arguments, folder, processes=processes)
    if not processes.is_first:
        leave_at_once()
    if asked.split.val or asked.configuration.next_stage is not None:
        files = segment_held_out(
            workspace,
            folder,
            asked.split,
            fold=asked.fold,
            device=arguments.device,
            previous_stage=None if request.first is None else request.first.held_out,
            save_probabilities=arguments.save_probabilities,
        )
        if asked.configuration.next_stage is not None:
            pass_to_next_stage(workspace, asked.plan, asked.configuration, folder, files)
    print(f"Trained: {folder}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.num_workers is not None and arguments.num_workers < 0:
        raise RequestError(f"--num-workers must be 0 or more, found {arguments.num_workers}.")
    if not 0 <= arguments.checkpoint_minutes < math.inf:
        raise RequestError(
            f"--checkpoint-minutes must be 0 or more, found {arguments.checkpoint_minutes}."
        )


def _resolve(workspace: Workspace, arguments: argparse.Namespace) -> TrainingRequest:
    from sparseunet.data.load import parse_labels
    from sparseunet.planning.nnunet_plans import budgeted_iterations, plan_from_nnunet
    from sparseunet.preprocessing.store import CaseStore
    from sparseunet.training.losses.comparison import weights_by_output
    from sparseunet.training.record import run_id, run_identity
    from sparseunet.training.run import RunRequest
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
    recipe = recipe_from_arguments(
        arguments,
        configuration,
        planned_iterations=planned_iterations,
        labels=labels,
        scans=(store.manifest(case).restoration for case in split.train),
    )
    resolve_shares(recipe.patch_shares, labels)  # these two refuse unknown names
    weights_by_output(labels, recipe.class_weights)
    pretrained = _pretrained(workspace, arguments)
    identity = run_identity(
        recipe,
        configuration,
        data_hash=store.content_hash(),
        time_budget_min=arguments.time_budget,
        pretrained_hash=None if pretrained is None else hash_file(pretrained),
    )
    others: dict[str, Any] = {} if pretrained is None else {"pretrained_weights": str(pretrained)}
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
        others["previous_stage"] = first.record
    name = arguments.run or run_id(identity)
    if first is not None:  # recorded and compared, but another one in every fold of a run
        identity["previous_stage_predictions"] = first.inputs.content_hash()
    return TrainingRequest(
        run=RunRequest(
            plan=plan,
            configuration=configuration,
            dataset_json=dataset_json,
            split=split,
            fold=arguments.fold if arguments.fold == "all" else int(arguments.fold),
            recipe=recipe,
            identity=identity,
            run_id=name,
            others=others,
        ),
        store=store,
        time_budget_min=arguments.time_budget,
        first=first,
        pretrained=pretrained,
    )


def _pretrained(workspace: Workspace, arguments: argparse.Namespace) -> Path | None:
    if arguments.pretrained_weights is None:
        return None
    return resolve_weights(workspace, arguments.pretrained_weights, fold=arguments.fold)


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


def _require_same(folder: Path, request: TrainingRequest) -> None:
    from sparseunet.training.record import read_run, require_same_run

    require_same_run(read_run(folder)[0], request.run.identity, folder)
