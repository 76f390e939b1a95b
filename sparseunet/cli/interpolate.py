"""Fill the labels between annotated slices of a raw dataset.

Writes a new raw dataset: the same images, labels with the gaps filled, and beside them
provenanceTr (0 not annotated, 1 drawn by a person, 2 interpolated) and confidenceTr (percent), all
on the grid of the label files. What a person drew stays as it is. Only slices in which every voxel
is annotated are interpolated from. --method auto hides annotated slices to see how well they can be
restored, chooses method and widest gap by that, and refuses (exit code 2) where interpolated labels
are not expected to help training.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import add_num_workers_argument, minutes
from sparseunet.errors import RequestError

if TYPE_CHECKING:
    from sparseunet.annotation.interpolation.fill_dataset import FilledCase, InterpolationOptions

AUTO = "auto"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `interpolate`."""
    from sparseunet.annotation.interpolation import INTERPOLATORS

    parser.add_argument(
        "-d", "--dataset", required=True, metavar="DATASET", help="id, name or path of the dataset"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="NAME",
        help="name (DatasetXXX_Name) or path of the new raw dataset",
    )
    parser.add_argument(
        "--method",
        default=AUTO,
        metavar="NAME",
        help=f"{', '.join(INTERPOLATORS)}, {AUTO}, or package.module:function (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--until-gap",
        type=float,
        metavar="MM",
        help="leave gaps alone whose two annotated slices lie farther apart, and fill beyond the "
        "first and the last half as far (default: fill all; with auto what is worth filling)",
    )
    parser.add_argument(
        "--axis",
        choices=(AUTO, "0", "1", "2"),
        default=AUTO,
        help="the annotated slices lie across axis 0, 1 or 2 of (z, y, x); auto: in each case the "
        "axis with the largest share of completely annotated slices (default: %(default)s)",
    )
    parser.add_argument(
        "--time-budget",
        type=minutes,
        metavar="TIME",
        help="how long a method that learns may train (default: the method's own)",
    )
    parser.add_argument(
        "-device",
        "--device",
        default=AUTO,
        metavar="NAME",
        help="where a method that learns works: auto, cpu, cuda or mps (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="for methods that learn (default: 0)"
    )
    add_num_workers_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the new dataset and say what was filled."""
    from sparseunet.annotation.interpolation.interpolate_dataset import interpolate_dataset
    from sparseunet.data.load import load_dataset

    _check(arguments)
    workspace = resolve_workspace(arguments.workspace)
    dataset = load_dataset(workspace.raw_dataset(arguments.dataset))
    folder = workspace.new_raw_dataset(arguments.output)
    cases, options = interpolate_dataset(
        dataset,
        workspace=workspace,
        folder=folder,
        options=_options(arguments, cache=workspace.interpolated_labels(dataset.name)),
        num_workers=arguments.num_workers,
    )
    print(f"{folder}: {describe(cases, options)}")
    return 0


def _options(arguments: argparse.Namespace, *, cache: Path) -> "InterpolationOptions":
    """Return what the options of `interpolate` ask for; the method may be `auto`."""
    from sparseunet.annotation.interpolation.fill_dataset import InterpolationOptions
    from sparseunet.annotation.interpolation.interpolate_dataset import method_device

    minutes = arguments.time_budget
    return InterpolationOptions(
        method=arguments.method,
        axis=None if arguments.axis == AUTO else int(arguments.axis),
        until_gap_mm=arguments.until_gap,
        seed=arguments.seed,
        time_budget_s=None if minutes is None else 60 * minutes,
        device=method_device(arguments.method, arguments.device),
        cache=cache,
    )


def describe(cases: "Sequence[FilledCase]", options: "InterpolationOptions") -> str:
    """Return in a line what was filled."""
    import numpy as np

    filled = [case for case in cases if case.num_filled_voxels]
    axes = Counter("zyx"[case.axis] for case in filled if case.axis is not None)
    confidence = np.average(
        [case.mean_confidence or 0.0 for case in filled],
        weights=[case.num_filled_voxels for case in filled],
    )
    left = len(cases) - len(filled)
    return (
        f"{options.method} filled {sum(case.num_filled_slices for case in filled)} slices in "
        f"{len(filled)} cases (across {', '.join(f'{axis}: {n}' for axis, n in axes.items())}), "
        f"{sum(case.num_annotated_slices for case in filled)} of "
        f"{sum(case.num_slices for case in filled)} were annotated; mean confidence "
        f"{confidence:.1%}; {left} cases had nothing to fill"
    )


def _check(arguments: argparse.Namespace) -> None:
    problems = []
    if arguments.num_workers < 1:
        problems.append(f"--num-workers must be 1 or more, found {arguments.num_workers}")
    if arguments.until_gap is not None and not arguments.until_gap > 0:
        problems.append(f"--until-gap must be above 0 mm, found {arguments.until_gap:g}")
    if arguments.time_budget is not None and not arguments.time_budget > 0:
        problems.append(f"--time-budget must be above 0 minutes, found {arguments.time_budget:g}")
    if problems:
        raise RequestError("; ".join(problems) + ".")
