"""What a completed dataset holds, and how far its labels can be believed."""

from collections.abc import Sequence
from typing import Any

from sparseunet.data.labels import LabelSchema
from sparseunet.evaluation.per_slice import parts_to_json
from sparseunet.self_training.completed_case import ClassCounts, CompletedCase

_MEANINGS = {
    "confidence": "probability of the class that won, as the network states it; not calibrated",
    "agreement": "the model's labels against manual ones, before these were put back; 'seen in "
    "training': the model learned from these very labels, which says nothing about new voxels",
}


def completion_to_json(cases: Sequence[CompletedCase], labels: LabelSchema) -> dict[str, Any]:
    """Return the sums over all cases, the agreement, and what was done to each case.

    Per class: voxels by who labelled them, the mean confidence of the pseudo-labels (None without
    any), and in how many cases there are manual and pseudo-labels of it. Agreement is given apart
    for cases that the model was trained on, cases that it was not, and unknown ones.
    """
    names = list(cases[0].classes)
    return {
        "definitions": _MEANINGS,
        "num_cases": len(cases),
        "classes": {
            name: {
                **_describe([case.classes[name] for case in cases]),
                "num_cases_manual": sum(case.classes[name].manual > 0 for case in cases),
                "num_cases_pseudo": sum(case.classes[name].pseudo > 0 for case in cases),
            }
            for name in names
        },
        "num_left_unannotated": {
            "below_min_confidence": sum(case.num_unsure for case in cases),
            "class_not_looked_for": sum(case.num_outside_annotated_classes for case in cases),
        },
        "agreement": {
            kind: _agreement([case for case in cases if case.exposure == kind], labels)
            for kind in sorted({case.exposure for case in cases})
        },
        "cases": [
            {
                "case": case.case,
                "folds": case.folds,
                "model": case.exposure,
                "classes": {name: _describe([counts]) for name, counts in case.classes.items()},
                "below_min_confidence": case.num_unsure,
                "class_not_looked_for": case.num_outside_annotated_classes,
                "Dice_on_manual_voxels": {
                    name: overlap.dice
                    for name, overlap in case.agreement.by_source.get("manual", {}).items()
                },
            }
            for case in cases
        ],
    }


def completion_rows(content: dict[str, Any]) -> list[list[str]]:
    """Return the sums as a table for a person: a header and a row per class."""
    rows = [["class", "manual voxels", "interpolated", "pseudo", "mean confidence", "cases"]]
    for name, each in content["classes"].items():
        mean = each["mean_confidence"]
        rows.append(
            [
                name,
                *(str(each[f"{source}_voxels"]) for source in ("manual", "interpolated", "pseudo")),
                "–" if mean is None else f"{mean:.3f}",
                str(each["num_cases_pseudo"]),
            ]
        )
    return rows


def completion_remarks(content: dict[str, Any]) -> list[str]:
    """Return what stands behind the table, in sentences."""
    lines = ["Confidence is the probability of the class that won, which is not calibrated."]
    left = content["num_left_unannotated"]
    if left["below_min_confidence"]:
        lines.append(f"{left['below_min_confidence']} voxels were not sure enough to be labelled.")
    if left["class_not_looked_for"]:
        lines.append(
            f"{left['class_not_looked_for']} voxels got a class that was not looked for in their "
            "case; they stay unannotated."
        )
    for kind, found in content["agreement"].items():
        if not found["num_slices"]:
            lines.append(f"{found['num_cases']} cases ({kind}) have no manual label to compare.")
            continue
        scores = ", ".join(
            f"{name} {value['pooled_Dice']:.4f} (mean of slices "
            f"{found['mean_slice_dice'][name]:.4f})"
            for name, value in found["pooled"].items()
        )
        lines.append(
            f"Dice with manual voxels, {kind}, {found['num_cases']} cases, {found['num_slices']} "
            f"annotated slices: {scores}"
        )
    return lines


def _describe(counts: Sequence[ClassCounts]) -> dict[str, Any]:
    num_pseudo = sum(each.pseudo for each in counts)
    total = sum(each.confidence_sum for each in counts)
    return {
        "manual_voxels": sum(each.manual for each in counts),
        "interpolated_voxels": sum(each.interpolated for each in counts),
        "pseudo_voxels": num_pseudo,
        "mean_confidence": total / num_pseudo if num_pseudo else None,
    }


def _agreement(cases: Sequence[CompletedCase], labels: LabelSchema) -> dict[str, Any]:
    parts = parts_to_json([case.agreement for case in cases], class_names=list(labels.foreground))
    return {
        "num_cases": len(cases),
        "num_slices": parts["num_slices"],
        "mean_slice_dice": parts["mean_slice_dice"],
        "num_slices_with_class": parts["num_slices_with_class"],
        "pooled": parts["by_source"].get("manual", {}),
    }
