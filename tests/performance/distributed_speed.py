"""Seconds per training step with several processes at equal batch, and with the batch in parts.

    python tests/performance/distributed_speed.py                          # CPU, 1 and 2 processes
    python tests/performance/distributed_speed.py --device cuda --processes 1 2 4 --batch-size 8 \
        --patch-size 128 128 128 --features 32

Each process computes with `--threads` threads, so on a CPU give the machine a core for each. The
batch is noise, and no batches are read, so this is the step alone; smallest of the repeats.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace

import torch
from both_packages import markdown_table

from sparseunet.cli.environment import launched_processes
from sparseunet.cli.several_processes import taking_part
from sparseunet.data.labels import LabelSchema
from sparseunet.networks.build import build_network
from sparseunet.planning.plan import NetworkPlan
from sparseunet.training.loader import Batch
from sparseunet.training.objective import Objective
from sparseunet.training.optimisation import new_optimizer
from sparseunet.training.processes import Processes
from sparseunet.training.recipe import Recipe
from sparseunet.training.state import TrainingState
from sparseunet.training.step import Hardware, train_step

LABELS = LabelSchema(classes={"background": 0, "a": 1, "b": 2}, regions={})
NUM_STAGES = 4


def main() -> None:
    """Print a table, or, as one of several processes, the seconds of a step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 2], help="with one process")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--patch-size", type=int, nargs=3, default=[48, 64, 64])
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--step-in-parts", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step_in_parts is not None:
        processes = launched_processes()
        with taking_part(processes):
            print(*_measure(arguments, processes))
        return
    rows = []
    runs = [(count, 1) for count in arguments.processes]
    runs += [(1, parts) for parts in arguments.parts if (1, parts) not in runs]
    for count, parts in runs:
        duration_s, peak_mib = _start(count, parts)
        rows.append(
            {
                "processes": count,
                "parts": parts,
                "seconds per step": f"{duration_s:.3f}",
                "times as fast": f"{float(rows[0]['seconds per step']) / duration_s:.2f}"
                if rows
                else "1",
                "GPU memory, MiB": round(peak_mib) if arguments.device == "cuda" else "–",
            }
        )
    print(markdown_table(rows))


def _start(count: int, parts: int) -> tuple[float, float]:
    """Return seconds of a step and MiB of GPU memory, as the first of `count` processes says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meet = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, *sys.argv, "--step-in-parts", str(parts)]
    started = [
        subprocess.Popen(
            command,
            env=os.environ | meet | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    said = [process.communicate()[0] for process in started]
    duration_s, peak_mib = map(float, said[0].split())
    return duration_s, peak_mib


def _measure(arguments: argparse.Namespace, processes: Processes) -> tuple[float, float]:
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if device.type == "cuda":
        device = torch.device("cuda", processes.local_rank)
        torch.cuda.set_device(device)
    hardware = Hardware(
        device=device,
        dtype=None if arguments.precision == "float32" else torch.bfloat16,
        num_workers=0,
        processes=processes,
        num_parts=arguments.step_in_parts,
    )
    state, objective, recipe = _state(arguments.features, hardware)
    size = (arguments.batch_size, *arguments.patch_size)
    whole = Batch(
        image_BCZYX=torch.randn(size[0], 1, *size[1:]),
        labels_BZYX=torch.randint(0, 3, size),
        weight_BZYX=torch.ones(size),
    )
    own = whole.parts(processes.count)[processes.rank]
    times_s = []
    for _ in range(arguments.repeats + 2):
        processes.wait()
        start = time.perf_counter()
        train_step(state, own, objective=objective, recipe=recipe, hardware=hardware)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times_s.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return min(times_s[2:]), peak / 2**20


def _state(num_features: int, hardware: Hardware) -> tuple[TrainingState, Objective, Recipe]:
    plan = NetworkPlan(
        architecture="plain_unet",
        features_per_stage=tuple(num_features * 2**stage for stage in range(NUM_STAGES)),
        kernel_sizes=((3, 3, 3),) * NUM_STAGES,
        strides=((1, 1, 1), *((2, 2, 2),) * (NUM_STAGES - 1)),
        encoder_depths=(2,) * NUM_STAGES,
        decoder_depths=(2,) * (NUM_STAGES - 1),
    )
    torch.manual_seed(0)
    network = build_network(plan, num_input_channels=1, num_outputs=3, deep_supervision=True)
    network = network.to(hardware.device).train()
    recipe = Recipe()
    state = TrainingState(
        network=network,
        optimizer=new_optimizer(network, recipe),
        scaler=torch.amp.GradScaler(hardware.device.type, enabled=False),
    )
    objective = Objective(labels=LABELS, strides=plan.strides, batch_dice=True)
    return state, replace(objective, total=hardware.processes.total), recipe


if __name__ == "__main__":
    main()
