"""Train a network on exactly the voxels that are annotated.

The same command again goes on where an interrupted training stopped, and does nothing where it had
finished. A different recipe, plan or data is a different run in a folder of its own.

Ctrl-C (exit code 130) and SIGTERM (143) end the training after the running step, with a checkpoint;
a second one ends it at once.

Several GPUs, or processes on a CPU, share every batch and give what one gives:
torchrun --standalone --nproc-per-node 2 -m -- sparseunet train DATASET CONFIGURATION FOLD
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparseunet.cli.environment import (
    available_cpus,
    has_thread_count,
    launched_processes,
    resolve_workspace,
)
from sparseunet.cli.recipe import add_recipe_arguments, given_recipe
from sparseunet.cli.several_processes import taking_part
from sparseunet.workspace import PROGRESS_PNG

if TYPE_CHECKING:
    from sparseunet.runs.request import TrainingRequest
    from sparseunet.runs.run import Run
    from sparseunet.training.processes import Processes


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
        help="auto (by the processor), float32, bfloat16 or float16",
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
        help="pass each batch in so many parts, for less memory; same result, slower (default: 1)",
    )
    hardware.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=10.0,
        metavar="MINUTES",
        help="least time between two checkpoints (default: 10; 0: one after every epoch)",
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
    from sparseunet.preprocessing.prepare import load_prepared
    from sparseunet.runs.request import Start, resolve_request
    from sparseunet.runs.settings import Overrides
    from sparseunet.runs.train import validate

    processes = launched_processes()
    with taking_part(processes):
        request = resolve_request(
            load_prepared(
                resolve_workspace(arguments.workspace),
                arguments.dataset,
                plans_name=arguments.plans,
            ),
            arguments.configuration,
            arguments.fold,
            recipe=given_recipe(arguments),
            overrides=Overrides(
                preset=arguments.preset,
                architecture=arguments.architecture,
                patch_size=arguments.patch_size,
                batch_size=arguments.batch_size,
                base_features=arguments.base_features,
            ),
            start=Start(
                run=arguments.run,
                time_budget_min=arguments.time_budget,
                pretrained_weights=arguments.pretrained_weights,
                previous_stage_run=arguments.previous_stage_run,
            ),
        )
        _train(request, arguments, processes)
    if not processes.is_first:
        return 0
    validate(request, device=arguments.device, save_probabilities=arguments.save_probabilities)
    print(f"Trained: {request.run.fold_folder}")
    return 0


def _train(
    request: "TrainingRequest", arguments: argparse.Namespace, processes: "Processes"
) -> None:
    """Train until a signal comes; the error then holds the command to go on."""
    from sparseunet.report.figures import draw_training_curves
    from sparseunet.runs.hardware import HardwareOptions
    from sparseunet.runs.train import TrainingOptions, train_request
    from sparseunet.training.interruption import TrainingInterruptedError, stop_on_signals

    def draw(run: "Run", log: Sequence[dict[str, Any]]) -> None:
        draw_training_curves(log, run.fold_folder / PROGRESS_PNG)

    hardware = HardwareOptions(
        device=arguments.device,
        precision=arguments.precision,
        num_workers=arguments.num_workers,
        num_processors=available_cpus(),
        sets_threads=not has_thread_count(),
        compile=arguments.compile,
        accumulate=arguments.accumulate,
    )
    with stop_on_signals(ends_at_second=processes.count == 1) as stop_signal:
        options = TrainingOptions(
            checkpoint_minutes=arguments.checkpoint_minutes,
            on_epoch=draw,
            stop_signal=stop_signal,
            tensorboard=arguments.tensorboard,
            wandb=arguments.wandb,
            processes=processes,
        )
        try:
            train_request(request, hardware=hardware, options=options)
        except TrainingInterruptedError as error:
            same = " the same torchrun, or one process with" * (processes.count > 1)
            raise TrainingInterruptedError(
                f"{error}; go on with{same}: {arguments.command_line}",
                signal_number=error.signal_number,
            ) from None
