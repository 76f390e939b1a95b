"""A plan explained to a person: why each number is what it is, and what to watch out for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparseunet.data.density import LabelDensity
from sparseunet.fingerprint.fingerprint import Fingerprint
from sparseunet.planning import plan_sentences as say
from sparseunet.planning.label_density import (
    BatchContent,
    DensitySummary,
    Recommendation,
    expected_batch,
    recommend_configuration,
    summarise_label_density,
)
from sparseunet.planning.plan import Plan
from sparseunet.planning.plan_warnings import find_warnings

NO_DENSITY = (
    "How densely the cases are annotated is not known (no label_density.json), so neither the "
    "content of a batch nor 2D or 3D can be judged."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanReport:
    """What there is to say about a plan."""

    plan: Plan
    general: tuple[str, ...]
    """Sentences on what all configurations share."""
    configurations: dict[str, tuple[str, ...]]
    """Sentences per configuration."""
    density: DensitySummary | None
    """None if it is not known what is annotated."""
    batches: dict[str, BatchContent]
    """Per configuration; empty if it is not known what is annotated, or nothing is."""
    recommendation: Recommendation | None
    warnings: tuple[str, ...]


def report_plan(
    plan: Plan,
    *,
    dataset_json: Mapping[str, Any],
    fingerprint: Fingerprint | None,
    densities: Sequence[LabelDensity] | None,
    foreground_share: float,
) -> PlanReport:
    """Put a plan into words.

    Args:
        plan: With its `reasons`; without them (read from a file) only its numbers are described.
        dataset_json: Channel names and labels.
        fingerprint: What the plan was made from; None if unknown.
        densities: What is annotated in each case; None if unknown.
        foreground_share: Share of each batch that must hold a class (see the training recipe).
    """
    batches: dict[str, BatchContent] = {}
    summary = recommendation = None
    if densities is not None:
        summary = summarise_label_density(densities)
        for name, configuration in plan.configurations.items():
            content = expected_batch(
                configuration,
                densities,
                transpose_forward=plan.transpose_forward,
                foreground_share=foreground_share,
            )
            if content is not None:
                batches[name] = content
        recommendation = recommend_configuration(plan, summary, batches=batches)
    return PlanReport(
        plan=plan,
        general=_general(plan, dataset_json, fingerprint),
        configurations=_configurations(plan),
        density=summary,
        batches=batches,
        recommendation=recommendation,
        warnings=tuple(
            find_warnings(
                plan,
                fingerprint=fingerprint,
                labels=dataset_json.get("labels", {}),
                densities=densities,
            )
        ),
    )


def format_report(report: PlanReport) -> str:
    """Return the report as Markdown."""
    plan = report.plan
    lines = [f"# Plan {plan.plans_name} of {plan.dataset_name}", ""]
    lines += [f"Planner {plan.planner}. Sizes are voxels along the plan's axes.", ""]
    lines += ["## Warnings", "", *_bullets(report.warnings or ("None.",))]
    lines += ["## What all networks share", "", *_bullets(report.general)]
    for name, sentences in report.configurations.items():
        lines += [f"## {name}", "", *_bullets(sentences)]
    lines += ["## Labels", "", *_labels(report)]
    return "\n".join(lines).rstrip() + "\n"


def label_sentences(report: PlanReport) -> list[str]:
    """Say how densely is annotated and which configuration to train first."""
    summary = report.density
    if summary is None or report.recommendation is None:
        return [NO_DENSITY]
    if not summary.num_annotated_cases:
        found = f"None of {summary.num_cases} cases has any annotation."
    elif summary.is_dense:
        found = f"{summary.num_annotated_cases} of {summary.num_cases} cases are densely annotated."
    else:
        found = (
            f"{summary.num_annotated_cases} of {summary.num_cases} cases are annotated, "
            f"{summary.num_dense_cases} of them densely; the median annotated case has "
            f"{summary.density:.0%} of its slices across {say.AXES[summary.axis]} annotated, and "
            f"{summary.voxel_share:.2%} of all voxels are."
        )
    choice = report.recommendation
    advice = f"Train {choice.configuration} first" if choice.configuration else "2D or 3D"
    return [found, f"{advice}: {choice.reason}"]


def _labels(report: PlanReport) -> list[str]:
    lines = _bullets(label_sentences(report))
    if not report.batches:
        return lines
    head = (
        "| configuration | annotated slices per patch | per batch | annotated voxels per batch | "
    )
    lines += [f"{head}share | patches that must hold a class |", "| --- |" + " --- |" * 5]
    for name, content in report.batches.items():
        batch = report.plan.configurations[name].batch_size
        lines.append(
            f"| {name} | {content.slices_per_patch:.3g} | {content.slices_per_batch:.3g} | "
            f"{content.voxels_per_batch:,.0f} | {content.share:.1%} | "
            f"{content.forced_patches} of {batch} |"
        )
    return [*lines, "", "Means over the annotated cases, before augmentation.", ""]


def _general(
    plan: Plan, dataset_json: Mapping[str, Any], fingerprint: Fingerprint | None
) -> tuple[str, ...]:
    """Return the sentences of the report that concern all configurations."""
    names = dataset_json.get("channel_names", dataset_json.get("modality", {}))
    channels = [str(names[key]) for key in sorted(names, key=int)]
    reasons = plan.reasons
    sentences = []
    if reasons is None:
        sentences.append(
            "These plans were taken over as they are; the report of the plans they come from says "
            "which rules made them."
        )
    else:
        sentences.append(say.spacing_sentence(reasons))
    sentences.append(say.transpose_sentence(plan))
    sentences += say.normalization_sentences(plan, reasons, fingerprint, channels)
    if reasons is not None:
        sentences += [say.memory_sentence(reasons), say.low_resolution_sentence(reasons)]
        sentences += [
            f"{name} is left out: its images are too small to be pooled."
            for name in reasons.left_out
        ]
        if reasons.slabs == {}:
            sentences.append(
                "Planning for sparse labels changed nothing: a tenth of each 3D patch is annotated "
                "already."
            )
    return tuple(sentences)


def _configurations(plan: Plan) -> dict[str, tuple[str, ...]]:
    described = {}
    for name, configuration in plan.configurations.items():
        sentences = [
            say.grid_sentence(configuration, plan),
            say.patch_sentence(configuration, plan),
            say.batch_sentence(configuration, plan),
            say.network_sentence(configuration, plan),
            say.batch_dice_sentence(configuration),
        ]
        if configuration.previous_stage is not None:
            refined = f"Refines the result of {configuration.previous_stage} with this network."
            sentences.insert(0, refined)
        described[name] = tuple(sentences)
    return described


def _bullets(sentences: Sequence[str]) -> list[str]:
    return [*(f"- {sentence}" for sentence in sentences), ""]
