"""Time of a loss with its backward pass, and of the counts, on one thread.

    python tests/performance/loss_step.py
    PYTHONPATH=OTHER_CHECKOUT python tests/performance/loss_step.py    # before and after

The batch is two patches of 40 × 56 × 40 (the hippocampus) with three classes and four levels, one
slice in eight annotated. Processor time, smallest of the repeats.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from sparseunet.data.labels import LabelSchema
from sparseunet.training.objective import Objective

SHAPE = (40, 56, 40)
STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
SCHEMAS = {
    "classes": LabelSchema(classes={"background": 0, "a": 1, "b": 2}, regions={}),
    "regions": LabelSchema(
        classes={"background": 0},
        regions={"whole": (1, 2), "core": (2,), "rest": (1,)},
        regions_class_order=(1, 2, 3),
    ),
}


def main() -> None:
    """Print one line per kind of labels, precision and loss."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    labels_map = torch.randint(0, 3, (2, *SHAPE), generator=generator)
    weight = torch.zeros(2, *SHAPE)
    weight[:, ::8] = 1
    known = torch.tensor([[True, True, False], [True, True, True]])
    for kind, schema in SCHEMAS.items():
        for dtype in (torch.float32, torch.bfloat16):
            outputs = _outputs(dtype, generator)
            for name, objective in _objectives(schema).items():
                step = partial(_step, objective, outputs, labels_map, weight)
                line = f"{kind} {dtype} {name}: {_smallest_ms(step, repeats):.1f} ms"
                if name == "dice_ce":
                    counts = partial(objective.counts, outputs, labels_map, weight)
                    line += f", counts {_smallest_ms(counts, repeats):.1f} ms"
                    if hasattr(objective, "compare"):
                        step = partial(step, known)
                        line += f", with partial labels {_smallest_ms(step, repeats):.1f} ms"
                print(line, flush=True)


def _objectives(schema: LabelSchema) -> dict[str, Objective]:
    default = Objective(labels=schema, strides=STRIDES, batch_dice=True)
    try:
        from sparseunet.training.losses import LOSSES, load_loss
    except ImportError:  # a checkout before losses had names
        return {"dice_ce": default}
    return {
        name: Objective(labels=schema, strides=STRIDES, batch_dice=True, compare=load_loss(name))
        for name in LOSSES
    }


def _outputs(dtype: torch.dtype, generator: torch.Generator) -> list[Tensor]:
    return [
        torch.randn(2, 3, *(length // factor for length in SHAPE), generator=generator)
        .to(dtype)
        .requires_grad_()
        for factor in (1, 2, 4, 8)
    ]


def _step(objective: Objective, outputs: Sequence[Tensor], *known: Tensor) -> None:
    for output in outputs:
        output.grad = None
    objective.loss(outputs, *known).backward()


def _smallest_ms(work: Callable[[], object], repeats: int) -> float:
    times_s = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times_s.append(time.process_time() - start)
    return 1000 * min(times_s)


if __name__ == "__main__":
    main()
