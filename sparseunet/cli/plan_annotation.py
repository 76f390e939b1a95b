"""Choose which slices of which scans to annotate, within a budget.

Needs scans, no labels: a raw dataset (-d) or any folder of scans (-i). Prints ways to spend the
budget side by side, with what published experiments let one expect, and writes the work list.
With --after RUN a trained network says where it is unsure; a share of the slices is spread evenly
all the same, because nothing beats choosing without the network reliably.
"""

import argparse
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from sparseunet.annotation.spending import AXES, SpendingOptions, parse_axis
from sparseunet.cli.environment import resolve_workspace
from sparseunet.cli.flags import FlagNames, add_flags, flag_of, given_values
from sparseunet.cli.options import add_num_workers_argument, positive_integer, seconds
from sparseunet.errors import RequestError

if TYPE_CHECKING:
    from sparseunet.annotation.annotation_plan import AnnotationPlan
    from sparseunet.annotation.cost import CostModel
    from sparseunet.data.dataset import Dataset

_RANDOM_SHARE = 1 / 3
_SPELLING = FlagNames(
    flags={
        "num_volumes": ("--volumes",),
        "volume_choice": ("--choose-volumes",),
        "time_budget_s": ("--time-budget",),
        "device": ("-device", "--device"),
    },
    metavars={
        "num_volumes": "N",
        "volume_choice": "RULE",
        "time_budget_s": "TIME",
        "device": "DEVICE",
        "cache": "FOLDER",
        "weights": "FILE",
    },
    readers={"time_budget_s": seconds},
)

_CAVEAT = (
    "No ranking beats random choice that knows the foreground reliably (nnActive, arXiv "
    "2511.19183): compare what the two kinds taught before the next round."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `plan_annotation`."""
    from sparseunet.annotation.selection import DEFAULT_SELECTOR, SELECTORS

    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-d", "--dataset", metavar="DATASET", help="id, name or path of a dataset")
    what.add_argument(
        "-i", "--input", type=Path, metavar="FOLDER", help="folder of scans without dataset.json"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the plan to write (JSON)"
    )
    parser.add_argument(
        "--budget",
        required=True,
        metavar="AMOUNT",
        help="how much may be annotated: 400slices, 10%%, 90min, 6h",
    )
    parser.add_argument(
        "--per-case", action="store_true", help="the budget is for each scan, not for all together"
    )
    parser.add_argument(
        "--selector",
        default=DEFAULT_SELECTOR,
        metavar="NAME",
        help=f"how slices are chosen: {', '.join(SELECTORS)}, or package.module:function "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--axis",
        default="auto",
        choices=tuple(map(str, AXES)),
        help="slices lie across axis 0, 1 or 2 of (z, y, x), the one of the largest median "
        "spacing (auto), all three, or another from scan to scan where pixels are not too long "
        "(alternate) (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="same seed, same plan (default: 0)"
    )
    _add_spending_arguments(parser)
    _add_round_arguments(parser)
    effort = parser.add_argument_group("effort of selectors that learn, and of --after")
    names = ("time_budget_s", "device", "cache", "weights")
    add_flags(effort, SpendingOptions, names, _SPELLING)
    add_num_workers_argument(parser, "threads")


def _add_spending_arguments(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how the budget is spent")
    add_flags(how, SpendingOptions, ("num_volumes", "volume_choice", "dimensions"), _SPELLING)
    how.add_argument(
        "--times",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="annotation.json files with measured minutes to fit the cost to (default: the "
        "dataset's own)",
    )
    how.add_argument(
        "--minutes-per-slice",
        type=float,
        metavar="MINUTES",
        help="what one slice takes, if nothing was measured",
    )


def _add_round_arguments(parser: argparse.ArgumentParser) -> None:
    after = parser.add_argument_group("next round")
    after.add_argument(
        "--after",
        type=Path,
        metavar="RUN_FOLDER",
        help="rank the slices that are not annotated yet by this network's uncertainty",
    )
    after.add_argument(
        "--round",
        type=positive_integer,
        default=1,
        metavar="N",
        help="later rounds follow the network more closely (default: %(default)s)",
    )
    after.add_argument(
        "--random-share",
        type=float,
        default=_RANDOM_SHARE,
        metavar="SHARE",
        help="of the slices of a next round, spread evenly to compare with (default: a third)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Plan, print the alternatives and write the plan."""
    from sparseunet.annotation.annotation_plan import write_annotation_plan
    from sparseunet.annotation.make_annotation_plan import make_annotation_plan

    if arguments.output.exists():
        raise RequestError(
            f"{arguments.output} exists already and is not overwritten; somebody may be working "
            "through it. Choose another name or remove it."
        )
    _refuse_without_effect(arguments)
    dataset = _load(arguments)
    cost = _cost(arguments, dataset)
    if arguments.after is None:
        plan = make_annotation_plan(
            dataset,
            budget=_budget(arguments),
            selector=arguments.selector,
            axis=parse_axis(arguments.axis),
            seed=arguments.seed,
            options=_options(arguments, cost),
        )
        text = describe_plan(plan, cost)
    else:
        plan = _plan_next_round(arguments, dataset, cost)
        text = _describe_round(plan)
    write_annotation_plan(arguments.output, plan)
    print(text)
    print(f"Written: {arguments.output}")
    return 0


def _refuse_without_effect(arguments: argparse.Namespace) -> None:
    from sparseunet.annotation.selection import DEFAULT_SELECTOR

    defaults = SpendingOptions()
    first_round = {
        "selector": DEFAULT_SELECTOR,
        "num_volumes": defaults.num_volumes,
        "volume_choice": defaults.volume_choice,
    }
    next_round = {"round": 1, "random_share": _RANDOM_SHARE}
    unused = next_round if arguments.after is None else first_round
    changed = [
        flag_of(name, _SPELLING)
        for name, default in unused.items()
        if getattr(arguments, name) not in (None, default)
    ]
    if changed:
        when = "without" if arguments.after is None else "with"
        raise RequestError(f"{', '.join(changed)} has no effect {when} --after; leave it out.")


def _options(arguments: argparse.Namespace, cost: "CostModel") -> SpendingOptions:
    given = given_values(arguments, SpendingOptions)
    if "num_volumes" in given:
        given["num_volumes"] = _num_volumes(given["num_volumes"])
    return SpendingOptions(**given, cost=cost)


def _plan_next_round(
    arguments: argparse.Namespace, dataset: "Dataset", cost: "CostModel"
) -> "AnnotationPlan":
    from sparseunet.annotation.budget import parse_budget
    from sparseunet.annotation.next_round import RoundOptions
    from sparseunet.runs.find import allowed_functions
    from sparseunet.runs.next_round import plan_after

    return plan_after(
        arguments.after,
        dataset,
        budget=parse_budget(_budget(arguments)),
        axis=parse_axis(arguments.axis),
        cost=cost,
        options=RoundOptions(
            number=arguments.round, random_share=arguments.random_share, seed=arguments.seed
        ),
        device=arguments.device or "cpu",
        functions=allowed_functions(resolve_workspace(arguments.workspace), arguments.after),
    )


def describe_plan(plan: "AnnotationPlan", cost: "CostModel") -> str:
    """Return what a person needs to judge a plan: alternatives, evidence, cost, where to start."""
    from sparseunet.annotation.evidence import DISAGREEMENTS, describe_evidence
    from sparseunet.annotation.selection import WHERE_SLICES_LIE

    about = plan.provenance
    axes = " and ".join("zyx"[axis] for axis in about["axes"])
    dimensions = about["dimensions"]
    num_scans = len({case.case for case in plan.cases})
    lines = [
        f"{plan.dataset}: {about['num_scans']} scans, {about['num_slices']} slices across {axes}",
        f"Budget {plan.budget}, for {dimensions}D networks. Ways to spend it:",
        "",
        *_table(about["alternatives"], about["chosen_alternative"]),
        "",
        "expected: share of the performance (IoU) of annotating everything",
        *map(_item, (*describe_evidence(dimensions), *DISAGREEMENTS)),
        fill(f"minutes: {cost.describe()}", 96, subsequent_indent="  "),
        "",
    ]
    minutes = f"about {plan.expected_minutes:.0f} min"
    lines.append(f"{plan.num_slices} slices in {num_scans} scans by {plan.selector}, {minutes}")
    if plan.selector in WHERE_SLICES_LIE:
        lines.append(fill(WHERE_SLICES_LIE[plan.selector], 96))
    if plan.cases:
        first = min(plan.cases, key=lambda case: case.ranks[0])
        where = f"{first.case}, {'zyx'[first.axis]} = {first.slices[0]} (counted from 0)"
        lines.append(f"start with {where}: {first.reasons[0]}")
    return "\n".join(lines)


def _item(text: str) -> str:
    return fill(text, 96, initial_indent="- ", subsequent_indent="  ")


def _table(alternatives: list[dict[str, Any]], chosen: int) -> list[str]:
    rows = [("", "scans", "slices", "per scan", "density", "minutes", "expected", "lowest-highest")]
    for number, one in enumerate(alternatives):
        sign = "~" if one["extrapolated"] else ""
        rows.append(
            (
                ">" if number == chosen else " " if one["enough_per_volume"] else "!",
                str(one["num_volumes"]),
                str(one["num_slices"]),
                f"{one['num_slices'] / one['num_volumes']:.1f}",
                f"{one['density']:.1%}",
                f"{one['minutes']:.0f}",
                f"{sign}{one['expected_share']:.0%}",
                f"{one['lowest_share']:.0%}-{one['highest_share']:.0%}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    legend = ["> chosen"]
    if any(row[0] == "!" for row in rows):
        legend.append("! fewer slices per scan than the minimum")
    if any(one["extrapolated"] for one in alternatives):
        legend.append("~ the evidence ends before this")
    return [*lines, "   ".join(legend)]


def _load(arguments: argparse.Namespace) -> "Dataset":
    from sparseunet.data.load import load_dataset, load_scan_folder

    if arguments.input is not None:
        return load_scan_folder(arguments.input)
    folder = resolve_workspace(arguments.workspace).raw_dataset(arguments.dataset)
    return load_dataset(folder, needs_labels=False)


def _budget(arguments: argparse.Namespace) -> str:
    return f"{arguments.budget} per case" if arguments.per_case else arguments.budget


def _num_volumes(text: str) -> Any:
    if text in ("auto", "selector"):
        return text
    try:
        return int(text)
    except ValueError:
        raise RequestError(
            f"--volumes {text!r} is not understood; expected a number, auto or selector."
        ) from None


def _cost(arguments: argparse.Namespace, dataset: "Dataset") -> "CostModel":
    """Return the prices: from measured minutes if there are any, else as the user says."""
    from sparseunet.annotation.cost import fit_cost
    from sparseunet.data.annotation_record import read_annotation_records
    from sparseunet.workspace import ANNOTATION_JSON

    own = dataset.folder / ANNOTATION_JSON
    files = arguments.times or ([own] if own.is_file() else [])
    records = [record for file in files for record in read_annotation_records(file).cases.values()]
    cost = fit_cost(records)
    if arguments.minutes_per_slice is None:
        return cost
    if cost.num_records:
        raise RequestError(
            f"--minutes-per-slice is for when nothing was measured, but {cost.num_records} cases "
            f"have measured minutes ({', '.join(map(str, files))}). Leave it out."
        )
    return cost.with_minutes_per_slice(arguments.minutes_per_slice)


def _describe_round(plan: "AnnotationPlan") -> str:
    """Return how ranked and random slices compare."""
    about = plan.provenance["next_round"]
    means = [
        f"{about[f'num_{kind}']} {kind} slices: mean entropy {about[f'mean_entropy_{kind}']:.3g}"
        for kind in ("ranked", "random")
        if about[f"num_{kind}"]
    ]
    minutes = f"about {plan.expected_minutes:.0f} min"
    lines = [
        f"{plan.dataset}: next round, {plan.num_slices} slices, {minutes}",
        *means,
        f"all slices that are left: mean entropy {about['mean_entropy_left']:.3g}",
        _CAVEAT,
    ]
    return "\n".join(lines)
