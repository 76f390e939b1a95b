"""Scores and comparisons as lines of text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparseunet.evaluation.compare import PairedComparison
    from sparseunet.evaluation.scores import Scores

_COLUMNS = {"IoU": 4, "NSD": 4, "HD": 2, "HD95": 2, "ASSD": 2, "VolumeError": 2}
"""Metrics of the table to their decimals, besides Dice."""


def format_scores(scores: "Scores") -> str:
    """Return one line per class, the foreground mean, and what stands behind the numbers."""
    from sparseunet.evaluation.scores import METRICS

    heads = [f"{name} {METRICS[name].unit}".strip() for name in _COLUMNS]
    rows: list[tuple[str, ...]] = [("class", "Dice", "95 % interval", *heads)]
    for name in scores.classes:
        dice, spread = scores.mean(name, "Dice"), scores.standard_deviation(name, "Dice")
        rows.append(
            (
                name,
                f"{dice:.4f} ± {spread:.4f}",
                _interval(scores.interval_95(name, "Dice")),
                *(f"{scores.mean(name, key):.{digits}f}" for key, digits in _COLUMNS.items()),
            )
        )
    rows.append(
        (
            "foreground mean",
            f"{scores.foreground_mean('Dice'):.4f}",
            _interval(scores.foreground_interval_95("Dice")),
            *(f"{scores.foreground_mean(key):.{digits}f}" for key, digits in _COLUMNS.items()),
        )
    )
    return "\n".join([*align(rows), *_remarks(scores)])


def format_comparison(comparisons: "Sequence[PairedComparison]") -> str:
    """Return one line per class and metric, and what a reader could mistake."""
    rows: list[tuple[str, ...]] = [
        (
            "class",
            "metric",
            "A",
            "B",
            "B − A",
            "95 % interval",
            "B better/worse/equal",
            "p",
            "p Holm",
        )
    ]
    for each in comparisons:
        mark = "" if not each.is_too_small else " *"
        rows.append(
            (
                each.class_name,
                each.metric,
                f"{each.mean_a:.4f}",
                f"{each.mean_b:.4f}",
                f"{each.mean_difference:+.4f}",
                _interval(each.interval_95),
                f"{each.num_b_better}/{each.num_b_worse}/{each.num_equal}",
                f"{each.p:.4f}",
                f"{each.p_holm:.4f}{mark}",
            )
        )
    lines = align(rows, num_left=2)
    if any(each.is_too_small for each in comparisons):
        lines.append("* fewer than 6 unequal pairs: no outcome could have reached p < .05")
    lines += [
        f"{each.class_name}, {each.metric}: in {each.num_rightly_empty} cases the reference lacks "
        "the class and one of both predicted it; the other counts as perfect"
        for each in comparisons
        if each.num_rightly_empty
    ]
    return "\n".join(lines)


def align(rows: Sequence[Sequence[str]], *, num_left: int = 1) -> list[str]:
    """Return lines with columns under each other, the first `num_left` to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < num_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _interval(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.4f}, {ends[1]:.4f}]"


def _remarks(scores: "Scores") -> list[str]:
    """Say what stands behind the numbers that a reader could mistake."""
    num_sparse = sum(case.is_sparse for case in scores.cases)
    first = (
        f"{len(scores.cases)} cases; Dice: mean ± standard deviation over cases, bootstrap "
        f"interval of the mean; NSD within {scores.tolerance_mm:g} mm"
    )
    remarks = [first]
    if num_sparse:
        remarks.append(
            f"{num_sparse} references are sparse: only annotated voxels count; volumes and "
            "distances are not estimable"
        )
    for name in scores.classes:
        results = [case.classes[name] for case in scores.cases if name in case.classes]
        one_sided = [result for result in results if result.is_one_sided]
        missed = sum(not result.num_predicted for result in one_sided)
        absent = sum(result.num_predicted == 0 == result.num_reference for result in results)
        if one_sided:
            remarks.append(
                f"{name}: missed in {missed} cases, invented in {len(one_sided) - missed} (Dice 0, "
                "distance = image diagonal)"
            )
        if scores.num_not_annotated(name):
            remarks.append(
                f"{name}: not annotated in {scores.num_not_annotated(name)} cases (nobody looked "
                "for it there; not scored)"
            )
        if absent:
            remarks.append(f"{name}: in {absent} cases in neither map (left out of the means)")
    return remarks
