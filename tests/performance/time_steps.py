"""Time steps of sparseunet's network, loss and optimiser, as in_nnunet/time_steps.py does.

Arguments: REQUEST OUTPUT, two JSON files; the request also holds the precision.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import torch
from torch import nn

from sparseunet.data.load import parse_labels
from sparseunet.networks.build import build_network, num_input_channels
from sparseunet.networks.device import PRECISIONS, autocast, keep_freed_memory
from sparseunet.planning.nnunet_plans import plan_from_nnunet
from sparseunet.training.objective import Objective
from sparseunet.training.optimisation import new_optimizer
from sparseunet.training.recipe import Recipe


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("request", type=Path)
    parser.add_argument("answer", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    request = json.loads(arguments.request.read_text())
    keep_freed_memory()
    device = torch.device(request["device"])
    torch.set_num_threads(request["threads"])
    plan = plan_from_nnunet(request["plans"], source=str(arguments.request))
    configuration = plan.configurations[request["configuration"]]
    labels = parse_labels(request["dataset_json"])
    recipe = Recipe()
    channels = num_input_channels(configuration, labels)
    network = build_network(
        configuration.network,
        num_input_channels=channels,
        num_outputs=labels.num_outputs,
        deep_supervision=True,
    ).to(device)
    objective = Objective(
        labels=labels,
        strides=configuration.network.strides,
        batch_dice=configuration.batch_dice,
    )
    optimizer = new_optimizer(network, recipe)
    dtype = PRECISIONS[request["precision"]]
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)

    size = configuration.batch_size, *configuration.patch_size
    random = torch.Generator().manual_seed(0)
    image = torch.randn(size[0], channels, *size[1:], generator=random).to(device)
    target = torch.randint(max(labels.values) + 1, size, generator=random).to(device)
    weight = torch.ones(size, device=device)

    def step() -> list[float]:
        marks = [_now(device)]
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, dtype):
            outputs = network(image)
        loss = objective.loss(outputs, target, weight)
        marks.append(_now(device))
        scaler.scale(loss).backward()
        marks.append(_now(device))
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_norm)
        scaler.step(optimizer)
        scaler.update()
        marks.append(_now(device))
        return [after - before for before, after in itertools.pairwise(marks)]

    times = [step() for _ in range(request["warm_up"] + request["steps"])]
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None
    answer = {"times_s": times[request["warm_up"] :], "memory_mib": memory}
    arguments.answer.write_text(json.dumps(answer))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
