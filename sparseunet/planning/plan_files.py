"""The files that planning reads and writes: fingerprint, label density, plans, report."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseunet.errors import RequestError
from sparseunet.workspace import FINGERPRINT_JSON, Workspace, plan_report_file

if TYPE_CHECKING:
    from sparseunet.data.dataset import Dataset
    from sparseunet.data.density import LabelDensity
    from sparseunet.fingerprint.fingerprint import Fingerprint
    from sparseunet.planning.plan import Plan

logger = logging.getLogger(__name__)

FOREGROUND_SHARE = 0.33
"""Share of each batch that must hold a class, in nnU-Net 2.8.1 and unless a recipe says more."""


def read_fingerprint(workspace: Workspace, dataset: "Dataset") -> "Fingerprint":
    """Read the stored fingerprint of a dataset.

    Raises:
        RequestError: There is none, or it is of another number of cases.
    """
    from sparseunet.artifacts import read_json
    from sparseunet.fingerprint.fingerprint import fingerprint_from_json

    path = workspace.preprocessed_dataset(dataset.name) / FINGERPRINT_JSON
    if not path.is_file():
        raise RequestError(
            f"{path} does not exist; run sparseunet extract_fingerprint -d {dataset.name} first."
        )
    fingerprint = fingerprint_from_json(read_json(path), source=str(path))
    if len(fingerprint.spacings_mm) != len(dataset.cases):
        raise RequestError(
            f"{path} is of {len(fingerprint.spacings_mm)} cases, the dataset has "
            f"{len(dataset.cases)}; run sparseunet extract_fingerprint -d {dataset.name} again."
        )
    return fingerprint


def stored_fingerprint(workspace: Workspace, dataset: "Dataset") -> "Fingerprint | None":
    """Read the stored fingerprint of a dataset, or return None if there is none."""
    path = workspace.preprocessed_dataset(dataset.name) / FINGERPRINT_JSON
    return read_fingerprint(workspace, dataset) if path.is_file() else None


def read_densities(workspace: Workspace, dataset: "Dataset") -> "tuple[LabelDensity, ...] | None":
    """Read what is annotated in each case; None, with a warning if it is of other cases.

    Raises:
        RequestError: The file is there but does not hold label densities.
    """
    from sparseunet.data.density import read_label_densities

    path = workspace.label_density_file(dataset.name)
    if not path.is_file():
        return None
    densities = read_label_densities(path)
    names = {case.name for case in dataset.cases}
    if {case.name for case in densities} != names:
        logger.warning(
            "%s is of other cases than the dataset has and is not used; run sparseunet "
            "extract_fingerprint -d %s again.",
            path,
            dataset.name,
        )
        return None
    return densities


def read_plan(path: Path | str) -> "Plan":
    """Read a plans file, of sparseunet or of nnU-Net.

    Raises:
        RequestError: It is missing, or holds no plan.
    """
    from sparseunet.artifacts import read_json
    from sparseunet.planning.nnunet_plans import plan_from_nnunet

    path = Path(path)
    if not path.is_file():
        raise RequestError(f"There is no plans file {path}.")
    return plan_from_nnunet(read_json(path), source=str(path))


def write_plan(path: Path | str, plan: "Plan", fingerprint: "Fingerprint | None" = None) -> "Plan":
    """Write a plan as a plans file and return what it now says, with the plan's reasons.

    Configurations that a person added to the file are kept, all others are replaced.

    Args:
        path: The file, e.g. `preprocessed/DATASET/nnUNetPlans.json`.
        plan: What to write.
        fingerprint: What the plan was made from; None leaves out what the file says of it.
    """
    from dataclasses import replace

    from sparseunet.planning.nnunet_plans import plan_to_nnunet

    ours = {**({} if fingerprint is None else _origin(fingerprint)), **_adaptations(plan)}
    written = write_plan_content(Path(path), plan_to_nnunet(plan, sparseunet=ours))
    return replace(written, reasons=plan.reasons)


def _origin(fingerprint: "Fingerprint") -> dict[str, Any]:
    """Return what a plans file says of the fingerprint behind it."""
    from sparseunet.artifacts import hash_content
    from sparseunet.fingerprint.fingerprint import fingerprint_to_json

    return {
        "intensity_source": fingerprint.intensity_source,
        "num_foreground_voxels": fingerprint.num_foreground_voxels,
        "num_foreground_cases": fingerprint.num_foreground_cases,
        "fingerprint_hash": hash_content(fingerprint_to_json(fingerprint)),
    }


def write_plan_content(path: Path, content: dict[str, Any]) -> "Plan":
    """Write a plans file and return what it now says.

    Configurations that a person added to the file are kept, all others are replaced.
    """
    from sparseunet.artifacts import hash_content, read_json, write_json
    from sparseunet.planning.nnunet_plans import plan_from_nnunet

    before = read_json(path) if path.is_file() else {}
    kept = _added_by_hand(before)
    content["configurations"].update(kept)
    written = plan_from_nnunet(content, source=str(path))
    if kept:
        logger.warning("%s: kept the configurations %s.", path, ", ".join(kept))
    if before and hash_content(before) != hash_content(content):
        logger.warning("%s: replaced; it held another plan.", path)
    write_json(path, content)
    return written


def write_report(
    plans_file: Path,
    plan: "Plan",
    *,
    dataset_json: Mapping[str, Any],
    fingerprint: "Fingerprint | None",
    densities: "tuple[LabelDensity, ...] | None",
    more: str = "",
) -> None:
    """Write the report and `more` beside the plans file; log what it says about labels."""
    from sparseunet.artifacts import atomic_path
    from sparseunet.planning.plan_report import format_report, label_sentences, report_plan

    report = report_plan(
        plan,
        dataset_json=dataset_json,
        fingerprint=fingerprint,
        densities=densities,
        foreground_share=FOREGROUND_SHARE,
    )
    path = plan_report_file(plans_file)
    with atomic_path(path) as temporary:
        temporary.write_text(format_report(report) + more, encoding="utf-8")
    for warning in report.warnings:
        logger.warning("%s: %s", plan.dataset_name, warning)
    for sentence in label_sentences(report):
        logger.info("%s", sentence)
    logger.info("Why each number is what it is: %s", path)


def _adaptations(plan: "Plan") -> dict[str, Any]:
    """Return what only this package knows about a plan that was not made by nnU-Net's rules."""
    reasons = plan.reasons
    found: dict[str, Any] = {}
    if reasons is not None and reasons.slabs is not None:
        found["sparse_aware"] = {
            name: {"max_depth": slab.max_depth, "planned_patch_size": slab.planned_patch}
            for name, slab in reasons.slabs.items()
        }
    if reasons is not None and reasons.times:
        first = next(iter(reasons.times.values()))
        found["time_budget"] = {
            "minutes": first.minutes,
            "device": first.device,
            "precision": first.precision,
            "iterations": {name: time.iterations for name, time in reasons.times.items()},
            "step_s": {name: time.step_s for name, time in reasons.times.items()},
        }
    return found


def _added_by_hand(before: Any) -> dict[str, Any]:
    """Return the configurations of a plans file that no planner makes."""
    from sparseunet.planning.make_plan import PLANNED_CONFIGURATIONS

    configurations = before.get("configurations", {}) if isinstance(before, dict) else {}
    return {
        name: configuration
        for name, configuration in configurations.items()
        if name not in PLANNED_CONFIGURATIONS
    }
