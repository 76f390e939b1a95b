"""Tiny trainings in several processes, which end as the command line would.

    python training_together.py '[{"data": "DATA", "run": "RUN", "batch_size": 3}]'

is one of the processes; what `torchrun` would set in the environment says which.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from tiny_training import CPU, LABELS, make_configuration, make_recipe, train_tiny

from sparseunet.cli.environment import launched_processes
from sparseunet.cli.several_processes import taking_part
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import SparseUNetError
from sparseunet.networks.build import build_network
from sparseunet.preprocessing.store import CaseStore
from sparseunet.training.interruption import TrainingInterruptedError, stop_on_signals
from sparseunet.training.loader import Batch
from sparseunet.training.objective import Objective
from sparseunet.training.optimisation import new_optimizer
from sparseunet.training.processes import ALONE
from sparseunet.training.state import TrainingState
from sparseunet.training.step import train_step

REGIONS = LabelSchema(
    classes={"background": 0}, regions={"box": (1,), "same": (1,)}, regions_class_order=(1, 1)
)
OVERFLOWS_AT = 1


def start_together(trainings, *, count=2):
    """Start processes for trainings one after another; each at the head of a group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            [sys.executable, __file__, json.dumps(trainings)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for rank in range(count)
    ]


def train_one(training, processes=ALONE, **more):
    """Train as the options say; `data` and `run` are folders."""
    given = dict(training)
    store, run = CaseStore(Path(given.pop("data"))), Path(given.pop("run"))
    hardware = replace(
        CPU,
        processes=processes,
        num_parts=given.pop("num_parts", 1),
        num_workers=given.pop("num_workers", 0),
    )
    return train_tiny(
        store,
        run,
        recipe=make_recipe(**({"iterations": 6} | given.pop("recipe", {}))),
        hardware=hardware,
        val=store.cases[:1],
        labels=REGIONS if given.pop("regions", False) else LABELS,
        **given,
        **more,
    )


def overflow_once(processes):
    """Do three steps in float16, the second with a sample that overflows in the last process.

    Returns:
        The scale of the loss, and the weights.
    """
    torch.manual_seed(0)
    plan, recipe = make_configuration().network, make_recipe()
    network = build_network(plan, num_input_channels=1, num_outputs=2, deep_supervision=True)
    state = TrainingState(
        network=network,
        optimizer=new_optimizer(network, recipe),
        scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10),
    )
    objective = Objective(
        labels=LABELS, strides=plan.strides, batch_dice=True, total=processes.total
    )
    hardware = replace(CPU, dtype=torch.float16, processes=processes)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        image = torch.randn(2, 1, 8, 16, 16, generator=generator)
        if step == OVERFLOWS_AT:
            image[1] *= torch.inf
        whole = Batch(
            image_BCZYX=image,
            labels_BZYX=torch.randint(0, 2, (2, 8, 16, 16), generator=generator),
            weight_BZYX=torch.ones(2, 8, 16, 16),
        )
        own = whole.parts(processes.count)[processes.rank]
        train_step(state, own, objective=objective, recipe=recipe, hardware=hardware)
    return state.scaler.get_scale(), network.state_dict()


def stop_in_last_process(training, processes):
    """Train until the last process alone has heard a signal, after so many steps."""
    steps = iter(range(training.pop("stop_after")))

    def stop_signal():
        heard = next(steps, None) is None and processes.rank == processes.count - 1
        return signal.SIGTERM if heard else None

    with contextlib.suppress(TrainingInterruptedError):
        train_one(training, processes, stop_signal=stop_signal)


def main(text):
    try:
        processes = launched_processes()
        with taking_part(processes), stop_on_signals(ends_at_second=False) as stop_signal:
            for training in json.loads(text):
                if "overflow" in training:
                    path = f"{training['overflow']}{processes.rank}.pt"
                    torch.save(overflow_once(processes), path)
                    continue
                if "stop_after" in training:
                    stop_in_last_process(training, processes)
                    continue
                train_one(training, processes, stop_signal=stop_signal)
                print(f"trained {training['run']}", flush=True)
    except SparseUNetError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
