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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.options import add_num_workers_argument, minutes
from sparseunet.errors import RequestError
from sparseunet.workspace import ANNOTATION_JSON, DATASET_JSON, INTERPOLATION_JSON, Workspace

if TYPE_CHECKING:
    from sparseunet.annotation.interpolation.fill_dataset import FilledCase, InterpolationOptions
    from sparseunet.annotation.interpolation.verdict import Verdict
    from sparseunet.data.dataset import Dataset

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
        help=f"{', '.join(INTERPOLATORS)} or {AUTO} (default: %(default)s)",
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
    from sparseunet.annotation.interpolation.fill_dataset import fill_dataset
    from sparseunet.annotation.new_dataset import appearing_folder, link_folder, link_images
    from sparseunet.artifacts import write_json
    from sparseunet.data.load import load_dataset

    _check(arguments)
    workspace = resolve_workspace(arguments.workspace)
    dataset = load_dataset(workspace.raw_dataset(arguments.dataset))
    folder = workspace.new_raw_dataset(arguments.output)
    options = _options(arguments, cache=workspace.interpolated_labels(dataset.name))
    verdict = None
    if options.method == AUTO:
        verdict = judge_and_tell(workspace, dataset, options.axis, arguments.num_workers)
        options = follow(verdict, options, dataset)
    with appearing_folder(folder) as new:
        link_images(dataset.cases, new / "imagesTr", file_ending=dataset.file_ending)
        for name in ("imagesTs", "labelsTs"):
            link_folder(dataset.folder / name, new / name)
        _, cases = fill_dataset(
            dataset, options=options, folder=new, num_workers=arguments.num_workers
        )
        _copy(dataset.folder / ANNOTATION_JSON, new)
        described = {key: item for key, item in dataset.description.items() if key != "dataset"}
        write_json(new / DATASET_JSON, described)
        content = {
            "kind": "interpolation",
            "version": 1,
            "interpolated_from": dataset.name,
            "options": {
                "method": options.method,
                "axis": options.axis,
                "until_gap_mm": options.until_gap_mm,
                "seed": options.seed,
            },
            "cases": cases,
            "verdict": verdict,
        }
        write_json(new / INTERPOLATION_JSON, content)
    print(f"{folder}: {describe(cases, options)}")
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class FilledLabels:
    """A dataset whose labels were filled before preprocessing."""

    dataset: "Dataset"
    only_3d: bool
    """Whether its labels are for 3D networks only."""


def fill_labels(
    workspace: Workspace, dataset: "Dataset", method: str, num_workers: int
) -> FilledLabels | None:
    """Fill the labels of a dataset into its preprocessed folder and say what was done.

    Args:
        workspace: Where the preprocessed dataset lies.
        dataset: The raw dataset.
        method: Of the interpolators, or `auto`.
        num_workers: Cases in memory at the same time.

    Returns:
        None if `auto` finds that interpolated labels are not expected to help.

    Raises:
        RequestError: As `fill_dataset`.
    """
    from sparseunet.annotation.interpolation.fill_dataset import (
        InterpolationOptions,
        fill_dataset,
    )

    folder = workspace.interpolated_labels(dataset.name)
    options = InterpolationOptions(method=method, device=_device(method, AUTO), cache=folder)
    if method == AUTO:
        verdict = judge_and_tell(workspace, dataset, None, num_workers)
        if verdict is None or not verdict.use_3d:
            print(f"{dataset.name}: preprocessed with the annotated slices only")
            return None
        options = follow(verdict, options, dataset)
    filled, cases = fill_dataset(dataset, options=options, folder=folder, num_workers=num_workers)
    print(f"{dataset.name}: {describe(cases, options)}")
    return FilledLabels(dataset=filled, only_3d=method == AUTO)


def _device(method: str, asked_for: str) -> str:
    """Return the device for a method; those that work from labels alone need none, and no torch."""
    from sparseunet.annotation.interpolation.fill_dataset import FROM_LABELS

    if method in (AUTO, *FROM_LABELS):
        return "cpu"
    from sparseunet.networks.device import resolve_device

    return str(resolve_device(asked_for))


def _options(arguments: argparse.Namespace, *, cache: Path) -> "InterpolationOptions":
    """Return what the options of `interpolate` ask for; the method may be `auto`."""
    from sparseunet.annotation.interpolation.fill_dataset import InterpolationOptions

    minutes = arguments.time_budget
    return InterpolationOptions(
        method=arguments.method,
        axis=None if arguments.axis == AUTO else int(arguments.axis),
        until_gap_mm=arguments.until_gap,
        seed=arguments.seed,
        time_budget_s=None if minutes is None else 60 * minutes,
        device=_device(arguments.method, arguments.device),
        cache=cache,
    )


def judge_and_tell(
    workspace: Workspace, dataset: "Dataset", axis: int | None, num_workers: int
) -> "Verdict | None":
    """Judge a dataset, print the verdict, and keep it where the plan report finds it."""
    from sparseunet.annotation.interpolation.fill_dataset import judge_dataset
    from sparseunet.annotation.interpolation.verdict import (
        hash_labels,
        verdict_lines,
        write_verdict,
    )

    verdict = judge_dataset(dataset, axis=axis, num_workers=num_workers)
    path = workspace.preprocessed_dataset(dataset.name) / INTERPOLATION_JSON
    if verdict is None:
        path.unlink(missing_ok=True)
    else:
        verdict = replace(verdict, labels_hash=hash_labels(dataset))
        write_verdict(path, verdict)
        print(f"{dataset.name}: is interpolation worth it?")
        print("\n".join(verdict_lines(verdict)))
    return verdict


def follow(
    verdict: "Verdict | None", options: "InterpolationOptions", dataset: "Dataset"
) -> "InterpolationOptions":
    """Return the options with the verdict's method and, unless one was given, its widest gap.

    Raises:
        RequestError: The verdict is not to interpolate, or there is none.
    """
    instead = "Train on the annotated slices as they are, or name a --method to fill them anyway."
    if verdict is None:
        raise RequestError(
            f"{dataset.name}: no case has two completely annotated slices and a gap, so nothing "
            f"says whether interpolation helps. {instead}"
        )
    if not verdict.use_3d:
        raise RequestError(
            f"{dataset.name}: interpolated labels are not expected to help. {verdict.why_3d} "
            f"{instead}"
        )
    until_gap_mm = options.until_gap_mm or verdict.until_gap_mm
    return replace(options, method=verdict.method, until_gap_mm=until_gap_mm)


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


def _copy(file: Path, folder: Path) -> None:
    if file.is_file():
        (folder / file.name).write_bytes(file.read_bytes())
