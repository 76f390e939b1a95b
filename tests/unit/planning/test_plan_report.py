"""A plan in words: sentences agree with the numbers, and warnings appear when they should."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sparseunet.data.density import LabelDensity
from sparseunet.fingerprint.fingerprint import (
    Fingerprint,
    IntensityProperties,
    fingerprint_from_json,
)
from sparseunet.planning.make_plan import make_plan
from sparseunet.planning.nnunet_plans import plan_from_nnunet, plan_to_nnunet
from sparseunet.planning.plan_report import format_report, label_sentences, report_plan
from sparseunet.planning.plan_sentences import times
from sparseunet.planning.plan_warnings import FEW_FOREGROUND_VOXELS

INTENSITIES = IntensityProperties(
    mean=100, median=90, std=20, min=0, max=400, percentile_00_5=10, percentile_99_5=300
)
DESCRIPTION = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "organ": 1, "vessel": 2, "either": [1, 2], "ignore": 3},
    "numTraining": 40,
    "file_ending": ".nii.gz",
}


def _fingerprint(**changes) -> Fingerprint:
    plain = Fingerprint(
        spacings_mm=((1.0, 1.0, 1.0),) * 40,
        shapes_after_crop=((128, 128, 128),) * 40,
        median_relative_size_after_cropping=1.0,
        intensities=(INTENSITIES,),
        num_foreground_voxels=50_000,
        num_foreground_cases=40,
    )
    return replace(plain, **changes)


def _density(number: int, *, values=(0, 1, 2), orientation="LPS") -> LabelDensity:
    return LabelDensity(
        name=f"case_{number}",
        shape=(128, 128, 128),
        annotated_slices=(6, 128, 128),
        annotated_voxels=6 * 128 * 128,
        class_voxels=dict.fromkeys(values, 50),
        orientation=orientation,
    )


def _report(fingerprint=None, densities=None, description=None, **options):
    fingerprint, description = fingerprint or _fingerprint(), description or DESCRIPTION
    plan = make_plan(
        fingerprint, dataset_json=description, dataset_name="Dataset001_Any", **options
    )
    return report_plan(
        plan,
        dataset_json=description,
        fingerprint=fingerprint,
        densities=densities,
        foreground_share=0.33,
    )


def _warned(report, word: str) -> bool:
    return any(word in warning for warning in report.warnings)


def test_an_unremarkable_dataset_gets_no_warning_and_every_number_a_sentence():
    report = _report(densities=[_density(number) for number in range(40)])
    assert report.warnings == ()
    text = format_report(report)
    for configuration in report.plan.configurations.values():
        assert f"Patch {times(configuration.patch_size)}" in text
        assert f"Batch {configuration.batch_size}" in text
        assert f"{len(configuration.network.strides)} stages" in text
    for needed in (
        "Target spacing 1 x 1 x 1 mm",
        "50,000 annotated",
        "Memory target 8 GB",
        "10 to",
    ):
        assert needed in text
    assert "| 3d_fullres | 6 | 12 | 196,608 | 4.7% | 1 of 2 |" in text
    assert "Train 2d first" in text


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"spacings_mm": ((1.0, 1.0, 1.0),) * 39 + ((1.0, 2.0, 1.0),)}, "Rare spacing"),
        ({"intensity_source": "body", "num_foreground_voxels": 12}, "Body fallback"),
        ({"num_foreground_voxels": FEW_FOREGROUND_VOXELS - 1}, "Few voxels"),
        (
            {
                "spacings_mm": ((4.0, 1.0, 1.0),) * 40,
                "shapes_after_crop": ((128, 128, 128),) * 40,
            },
            "anisotropic",
        ),
    ],
)
def test_what_the_fingerprint_holds_is_warned_of_and_only_then(change, word):
    assert _warned(_report(_fingerprint(**change)), word)
    assert not _warned(_report(), word)


def test_a_rare_spacing_names_its_case():
    fingerprint = _fingerprint(spacings_mm=((1.0, 1.0, 1.0),) * 39 + ((0.4, 1.0, 1.0),))
    (warning,) = _report(fingerprint, [_density(number) for number in range(40)]).warnings
    assert "1 of 40" in warning
    assert "case_39 (0.4 x 1 x 1 mm)" in warning


def test_statistics_that_are_not_used_are_not_warned_of():
    description = {**DESCRIPTION, "channel_names": {"0": "T1"}}
    report = _report(_fingerprint(intensity_source="body"), description=description)
    assert not _warned(report, "Body fallback")


def test_classes_that_are_missing_or_rare_are_named():
    cases = [_density(number, values=(0, 1) if number else (0, 1, 2)) for number in range(40)]
    report = _report(densities=cases)
    (warning,) = report.warnings
    assert warning.startswith("Class vessel is annotated in 1 of 40")
    nowhere = [_density(number, values=(0,)) for number in range(40)]
    missing = " ".join(_report(densities=nowhere).warnings)
    assert all(f"Class {name} is annotated in no case" in missing for name in ("organ", "either"))
    assert "background" not in missing
    assert "ignore" not in missing


def test_mixed_orientations_are_counted():
    cases = [_density(number, orientation="RAS" if number else "LPS") for number in range(40)]
    assert _warned(_report(densities=cases), "RAS in 39, LPS in 1")


def test_a_batch_limited_by_a_small_dataset_is_warned_of():
    few = {**DESCRIPTION, "numTraining": 1}
    assert _warned(_report(description=few), "small dataset")


def test_a_patch_that_covers_little_without_a_cascade_is_warned_of():
    spacing_mm, shape = (2.0, 1.0, 1.0), (100, 220, 220)
    fingerprint = _fingerprint(spacings_mm=(spacing_mm,) * 40, shapes_after_crop=(shape,) * 40)
    report = _report(fingerprint, gpu_memory_gb=3.5, plans_name="small")
    assert report.plan.reasons.low_resolution.outcome == "too_similar"
    assert _warned(report, "has only")


def test_only_the_axes_that_are_resampled_count_for_rare_spacings():
    shapes = ((1, 200, 160),) * 40
    plain = ((999.0, 1.0, 1.0),) * 39
    for odd, expected in (((1.0, 1.0, 1.0), False), ((999.0, 1.0, 2.0), True)):
        fingerprint = _fingerprint(spacings_mm=(*plain, odd), shapes_after_crop=shapes)
        assert _warned(_report(fingerprint), "Rare spacing") == expected


def test_without_any_annotation_nothing_is_recommended():
    empty = replace(_density(0), annotated_voxels=0, annotated_slices=(0, 0, 0), class_voxels={})
    found, advice = label_sentences(_report(densities=[empty] * 40))
    assert found == "None of 40 cases has any annotation."
    assert "No case is annotated yet" in advice


def test_without_label_density_the_report_says_so():
    report = _report()
    assert report.recommendation is None
    assert "not known" in label_sentences(report)[0]
    assert "not known" in format_report(report)


def test_a_plan_that_was_read_is_described_without_inventing_rules():
    plan = _report().plan
    read = plan_from_nnunet(plan_to_nnunet(plan))
    assert read.reasons is None
    report = report_plan(
        read,
        dataset_json=DESCRIPTION,
        fingerprint=_fingerprint(num_foreground_voxels=3),
        densities=None,
        foreground_share=0.33,
    )
    text = format_report(report)
    assert "taken over as they are" in text
    assert "the statistics come with the plan" in text
    assert "Memory target" not in text
    assert not _warned(report, "Few voxels")


def test_sentences_of_all_reference_plans_agree_with_the_plan(data_root):
    """Whatever branch fired, the sentence about it can be said and matches the plan."""
    outcomes, rules = set(), set()
    for folder in sorted((data_root.parent / "reference" / "planner_cases").iterdir()):
        if not folder.is_dir():
            continue
        fingerprint, description = _read(folder)
        report = _report(fingerprint, description=description)
        reasons, configurations = report.plan.reasons, report.plan.configurations
        text = format_report(report)
        rules.add(reasons.spacing.rule)
        if reasons.low_resolution is None:
            assert "No 3D networks" in text
            continue
        outcomes.add(reasons.low_resolution.outcome)
        made = reasons.low_resolution.outcome == "made"
        assert ("3d_lowres" in configurations) == made
        assert ("3d_lowres and 3d_cascade_fullres exist" in text) == made
        for name, item in configurations.items():
            assert reasons.networks[name].batch.batch_size == item.batch_size
            first = reasons.networks[name].first_patch == item.patch_size
            assert (reasons.networks[name].num_cuts == 0) == first
    assert outcomes >= {"made", "not_needed"}
    assert rules >= {"median", "sharp"}


def _read(folder: Path):
    content = json.loads((folder / "fingerprint.json").read_text())
    return fingerprint_from_json(content), json.loads((folder / "dataset.json").read_text())
