"""Microseconds to choose the patches of a batch among 200 cases; prints a Markdown table.

    python tests/performance/patch_places.py [--repeats N]

Choosing happens in the processes that make batches, before anything is read. Of `--repeats` rounds
of 200 batches the fastest counts.
"""

import argparse
import timeit

import numpy as np

from sparseunet.training.sampling import CaseSummary, PatchSampler, PatchShare

SHAPE, NUM_CASES, NUM_VOXELS = (120, 256, 256), 200, 10_000
SHARES = (PatchShare(name="rare", weight=30, values=(2,)), PatchShare(name="rest", weight=70))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    print("| cases | patches | µs per batch | with shares and weighted cases |")
    print("| --- | --- | --- | --- |")
    for step in (1, 9):
        cases = [make_case(number, step=step) for number in range(NUM_CASES)]
        for patch_size, batch_size in (((64, 128, 128), 2), ((1, 256, 256), 12)):
            options = {"patch_size": patch_size, "batch_size": batch_size, "foreground_share": 0.33}
            times = [
                measure(PatchSampler(cases, **options), repeats),
                measure(
                    PatchSampler(cases, **options, shares=SHARES, case_weighting="sqrt_slices"),
                    repeats,
                ),
            ]
            kind = "dense" if step == 1 else f"every {step}th slice"
            size = "×".join(map(str, patch_size))
            print(f"| {kind} | {batch_size} of {size} | {times[0]:.0f} | {times[1]:.0f} |")


def make_case(number: int, *, step: int) -> CaseSummary:
    rng = np.random.default_rng(number)
    slices = np.arange(number % step, SHAPE[0], step)
    voxels = np.stack(
        [
            np.sort(rng.choice(slices, NUM_VOXELS)),
            *(rng.integers(0, size, NUM_VOXELS) for size in SHAPE[1:]),
        ],
        axis=1,
    ).astype(np.int32)
    return CaseSummary(
        name=f"case_{number}",
        shape=SHAPE,
        is_dense=step == 1,
        class_voxels={1: voxels[::3]} | ({2: voxels[-50:]} if number % 20 == 0 else {}),
        annotated_voxels=voxels,
        annotated_slices=slices,
    )


def measure(sampler: PatchSampler, repeats: int) -> float:
    """Return microseconds per batch, the start of the generator of its step included."""
    rounds = timeit.repeat(
        lambda: sampler.places(np.random.default_rng([0, 0, 1])), number=200, repeat=repeats
    )
    return min(rounds) / 200 * 1e6


if __name__ == "__main__":
    main()
