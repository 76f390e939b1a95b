"""Time steps of nnU-Net's own network, loss and optimiser. Runs in nnU-Net's environment.

Arguments: REQUEST OUTPUT, two JSON files. The request holds plans, dataset_json, configuration,
device, threads and steps. The data are random; no preprocessed dataset is needed. What a step does
is what nnUNetTrainer.train_step does, timed in three parts.
"""

import itertools
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    device = torch.device(request["device"])
    torch.set_num_threads(request["threads"])
    plans = {**request["plans"], "continue_training": False}  # as nnUNetv2_train adds it
    description = request["dataset_json"]
    trainer = nnUNetTrainer(plans, request["configuration"], "all", description, device)
    trainer._set_batch_size_and_oversample()
    channels = determine_num_input_channels(
        trainer.plans_manager, trainer.configuration_manager, description
    )
    classes = trainer.label_manager.num_segmentation_heads
    trainer.network = trainer.build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, channels, classes, True
    ).to(device)
    if trainer._do_i_compile():
        trainer.network = torch.compile(trainer.network)
    trainer.optimizer, _ = trainer.configure_optimizers()
    trainer.loss = trainer._build_loss()

    size = trainer.configuration_manager.patch_size
    random = torch.Generator().manual_seed(0)
    image = torch.randn(trainer.batch_size, channels, *size, generator=random).to(device)
    targets = [
        torch.randint(
            classes,
            (trainer.batch_size, 1, *(round(n * s) for n, s in zip(size, scale, strict=True))),
            generator=random,
            dtype=torch.int16,
        ).to(device)
        for scale in trainer._get_deep_supervision_scales()
    ]
    times = [_step(trainer, image, targets) for _ in range(request["warm_up"] + request["steps"])]
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None
    answer = {"times_s": times[request["warm_up"] :], "memory_mib": memory}
    Path(sys.argv[2]).write_text(json.dumps(answer))


def _step(trainer: nnUNetTrainer, image: torch.Tensor, targets: list) -> list[float]:
    cuda = trainer.device.type == "cuda"
    marks = [_now(cuda)]
    trainer.optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cuda") if cuda else nullcontext():
        loss = trainer.loss(trainer.network(image), targets)
    marks.append(_now(cuda))
    scaler = trainer.grad_scaler
    (loss if scaler is None else scaler.scale(loss)).backward()
    marks.append(_now(cuda))
    if scaler is not None:
        scaler.unscale_(trainer.optimizer)
    torch.nn.utils.clip_grad_norm_(trainer.network.parameters(), 12)
    if scaler is None:
        trainer.optimizer.step()
    else:
        scaler.step(trainer.optimizer)
        scaler.update()
    marks.append(_now(cuda))
    return [after - before for before, after in itertools.pairwise(marks)]


def _now(cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
