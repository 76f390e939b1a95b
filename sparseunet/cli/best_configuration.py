"""What `find_best_configuration` found, as a table, as JSON and as the commands to run."""

import shlex
from typing import TYPE_CHECKING, Any

from sparseunet.cli.score_tables import align

if TYPE_CHECKING:
    from sparseunet.evaluation.select_configuration import Candidate
    from sparseunet.runs.choose import Choice

_KIND = "sparseunet.best_configuration"
_VERSION = 1
_PREDICTIONS = "PREDICTIONS"


def commands_to_run(choice: "Choice") -> list[str]:
    """Return what to type to segment new scans with the best candidate."""
    members = [choice.runs[name] for name in choice.best.members]
    outputs = [_PREDICTIONS]
    if len(members) > 1:
        outputs = [f"{_PREDICTIONS}_{number}" for number in range(1, len(members) + 1)]
    commands = []
    for member, output in zip(members, outputs, strict=True):
        words = ["sparseunet", "predict", "-i", "FOLDER_OF_SCANS", "-o", output]
        words += ["-d", choice.dataset_name, "-c", member.configuration]
        words += ["--run", member.folder.name, "-f", *map(str, choice.folds)]
        commands.append(shlex.join(words + ["--save-probabilities"] * (len(members) > 1)))
    if len(members) > 1:
        words = ["sparseunet", "ensemble", "-i", *outputs, "-o", _PREDICTIONS]
        commands.append(shlex.join(words))
    if choice.has_postprocessing:
        words = ["sparseunet", "apply_postprocessing", "-i", _PREDICTIONS, "-o", "CLEANED"]
        commands.append(shlex.join([*words, "-pp", str(choice.postprocessing_file)]))
    return commands


def format_choice(choice: "Choice") -> list[str]:
    """Return the lines of the table, what a reader could mistake, and the commands."""
    from sparseunet.cli.determine_postprocessing import format_trials

    num_cases, folds = len(choice.best.dice.cases), " ".join(map(str, choice.folds))
    lines = [
        f"{choice.dataset_name}: mean Dice on {num_cases} validation cases of folds {folds}",
        *_table(choice),
        "",
        f"Best: {choice.best.name}",
        *_remarks(choice),
        "",
    ]
    if choice.postprocessing is None:
        lines += [choice.why_no_postprocessing]
    else:
        lines += format_trials(choice.postprocessing)
        if not choice.has_postprocessing:
            lines.append("No postprocessing helps.")
    return [*lines, "", "To segment new scans:", *(f"  {line}" for line in commands_to_run(choice))]


def describe_choice(choice: "Choice") -> dict[str, Any]:
    """Return the content of `best_configuration.json`."""
    from sparseunet.evaluation.select_configuration import lead_of
    from sparseunet.runs.choose import ensemble_name

    def describe(candidate: "Candidate") -> dict[str, Any]:
        lead, interval = lead_of(choice.best, candidate)
        return {
            "name": candidate.name,
            "members": [
                {
                    "configuration": choice.runs[name].configuration,
                    "run": choice.runs[name].folder.name,
                    "plans": choice.runs[name].plans_name,
                }
                for name in candidate.members
            ],
            "foreground_mean_dice": candidate.dice.foreground_mean,
            "dice": dict(
                zip(candidate.dice.classes, candidate.dice.class_means.tolist(), strict=True)
            ),
            "behind_best": lead,
            "behind_best_interval_95": interval,
        }

    return {
        "kind": _KIND,
        "version": _VERSION,
        "dataset_name": choice.dataset_name,
        "folds": choice.folds,
        "num_cases": len(choice.best.dice.cases),
        "num_sparse_references": choice.num_sparse,
        "num_partly_annotated": len(choice.partly.intersection(choice.best.dice.cases)),
        "candidates": [describe(candidate) for candidate in choice.candidates],
        "best": describe(choice.best),
        "postprocessing": str(choice.postprocessing_file) if choice.has_postprocessing else None,
        "why_no_postprocessing": choice.why_no_postprocessing or None,
        "incomplete": [each.configuration for each in choice.incomplete],
        "not_tried": [ensemble_name(couple) for couple in choice.not_tried],
        "commands": commands_to_run(choice),
    }


def _table(choice: "Choice") -> list[str]:
    from sparseunet.evaluation.select_configuration import lead_of

    classes = choice.best.dice.classes
    rows: list[tuple[str, ...]] = [
        ("", "Dice", *classes, "behind the best, per case", "95 % interval")
    ]
    ranked = sorted(choice.candidates, key=lambda each: -each.dice.foreground_mean)
    for candidate in ranked:
        lead, (low, high) = lead_of(choice.best, candidate)
        means = (f"{mean:.4f}" for mean in candidate.dice.class_means)
        behind = (f"{lead:.4f}", f"[{low:.4f}, {high:.4f}]")
        if candidate is choice.best:
            behind = ("", "")
        rows.append((candidate.name, f"{candidate.dice.foreground_mean:.4f}", *means, *behind))
    return align(rows)


def _remarks(choice: "Choice") -> list[str]:
    from sparseunet.runs.choose import ensemble_name

    dice, lines = choice.best.dice, []
    num_cases = len(dice.cases)
    if choice.num_sparse:
        lines.append(
            f"WARNING: {choice.num_sparse} of {num_cases} references are sparse. Scores count "
            "annotated voxels only; what a model does between annotated slices is not in them, and "
            "so not in this choice. Keep some densely annotated cases apart to compare on."
        )
    partly = choice.partly.intersection(dice.cases)
    if partly:
        lines.append(
            f"WARNING: in {len(partly)} cases some classes were not annotated; they count there as "
            "if they were absent."
        )
    absent = [name for name, occurs in zip(dice.classes, dice.occurs, strict=True) if not occurs]
    if absent:
        lines.append(f"In no reference, and left out of the mean: {', '.join(absent)}.")
    if len(choice.candidates) > 1:
        lines.append(
            "An interval that holds 0 shows no difference. The best of several is rated a little "
            "too high, as it was chosen on the cases that rate it."
        )
    for couple in choice.not_tried:
        lacking = [each.name for each in couple if not each.has_probabilities]
        lines.append(
            f"Not tried: {ensemble_name(couple)}; no probabilities of {', '.join(lacking)}. Its "
            "training commands again with --save-probabilities make them."
        )
    if choice.incomplete:
        lines += ["Left out, as not every fold is trained and validated:"]
        lines += [line for each in choice.incomplete for line in str(each).splitlines()]
    return lines
