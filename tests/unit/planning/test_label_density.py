"""What sparse labels mean for a plan: content of a batch, 2D or 3D, shallower patches."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseunet.data.density import LabelDensity
from sparseunet.errors import RequestError
from sparseunet.fingerprint.fingerprint import Fingerprint, IntensityProperties
from sparseunet.planning.label_density import (
    chance_of_another,
    expected_batch,
    recommend_configuration,
    summarise_label_density,
)
from sparseunet.planning.make_plan import make_plan
from sparseunet.planning.memory import count_feature_map_elements
from sparseunet.planning.planners import PLANNERS
from sparseunet.planning.sparse_aware import adapt_to_sparse_labels, deepest_patch
from sparseunet.planning.topology import choose_topology
from sparseunet.training.sampling import CaseSummary, PatchSampler

INTENSITIES = IntensityProperties(
    mean=100, median=90, std=20, min=0, max=400, percentile_00_5=10, percentile_99_5=300
)
SHARE = 0.33


def _plan(*, shape=(128, 128, 128), spacing_mm=(1.0, 1.0, 1.0), cases=100, **options):
    fingerprint = Fingerprint(
        spacings_mm=(spacing_mm,) * 3,
        shapes_after_crop=(shape,) * 3,
        median_relative_size_after_cropping=1.0,
        intensities=(INTENSITIES,),
    )
    description = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    return make_plan(
        fingerprint, dataset_json=description, dataset_name="Dataset001_Any", **options
    )


def _case(annotated: int, *, shape=(128, 128, 128), axis: int = 0, filled=1.0) -> LabelDensity:
    slices = list(shape)
    slices[axis] = annotated
    voxels = round(annotated * prod(shape) // shape[axis] * filled)
    return LabelDensity(
        name="case",
        shape=shape,
        annotated_slices=tuple(slices) if annotated else (0, 0, 0),
        annotated_voxels=voxels,
        class_voxels={0: voxels} if voxels else {},
    )


def _recommend(plan, cases):
    batches = {
        name: expected_batch(
            item, cases, transpose_forward=plan.transpose_forward, foreground_share=SHARE
        )
        for name, item in plan.configurations.items()
    }
    found = {name: item for name, item in batches.items() if item is not None}
    return recommend_configuration(plan, summarise_label_density(cases), batches=found)


@pytest.mark.parametrize(("axis", "patch_size"), [(0, (12, 16, 16)), (1, (12, 16, 16))])
def test_the_expected_content_of_a_batch_is_what_sampling_draws(axis, patch_size):
    """Patches drawn as training draws them hold the annotated slices and voxels foretold."""
    shape, annotated, rng = (40, 30, 20), 6, np.random.default_rng(0)
    plan = _plan(shape=shape)
    configuration = replace(
        plan.configurations["3d_fullres"], patch_size=patch_size, batch_size=3, median_shape=shape
    )
    crossed, voxels = [], []
    for number in range(1200):
        chosen = np.sort(rng.choice(shape[axis], annotated, replace=False))
        annotated_ZYX = np.zeros(shape, bool)
        annotated_ZYX[(slice(None),) * axis + (chosen,)] = True
        summary = CaseSummary(
            name=str(number),
            shape=shape,
            is_dense=False,
            class_voxels={},
            annotated_voxels=np.argwhere(annotated_ZYX)[::7],
            annotated_slices=np.arange(shape[0]) if axis else chosen,
            slice_axis=axis,
        )
        sampler = PatchSampler([summary], patch_size=patch_size, batch_size=3, foreground_share=0.0)
        for place in sampler.places(rng):
            box = tuple(
                slice(max(0, start), start + size)
                for start, size in zip(place.start, patch_size, strict=True)
            )
            inside = annotated_ZYX[box]
            others = tuple(other for other in range(3) if other != axis)
            crossed.append(int(inside.any(axis=others).sum()))
            voxels.append(int(inside.sum()))
    found = expected_batch(
        configuration,
        [_case(annotated, shape=shape, axis=axis)],
        transpose_forward=(0, 1, 2),
        foreground_share=SHARE,
    )
    assert found.slices_per_patch == pytest.approx(np.mean(crossed), rel=0.05)
    assert found.voxels_per_batch == pytest.approx(3 * np.mean(voxels), rel=0.05)
    assert found.slices_per_batch == 3 * found.slices_per_patch
    assert found.forced_patches == 1


def test_a_dense_case_annotates_all_of_the_patch_inside_the_image():
    plan = _plan()
    found = expected_batch(
        plan.configurations["3d_fullres"],
        [_case(128)],
        transpose_forward=(0, 1, 2),
        foreground_share=SHARE,
    )
    assert found.share == pytest.approx(1)


def test_a_2d_patch_is_one_annotated_slice():
    plan = _plan()
    found = expected_batch(
        plan.configurations["2d"], [_case(6)], transpose_forward=(0, 1, 2), foreground_share=SHARE
    )
    assert found.slices_per_patch == 1
    assert found.share == pytest.approx(1)


def test_a_case_without_annotation_is_not_drawn():
    item = _plan().configurations["3d_fullres"]
    options = {"transpose_forward": (0, 1, 2), "foreground_share": SHARE}
    assert expected_batch(item, [_case(0)], **options) is None
    alone = expected_batch(item, [_case(6)], **options)
    assert expected_batch(item, [_case(0), _case(6)], **options) == alone


def test_every_annotated_slice_survives_a_coarser_grid():
    fine = chance_of_another(annotated_slices=5, num_slices=100, grid_slices=100)
    coarse = chance_of_another(annotated_slices=5, num_slices=100, grid_slices=20)
    assert (fine, coarse) == (pytest.approx(4 / 99), pytest.approx(4 / 19))
    assert chance_of_another(annotated_slices=1, num_slices=1, grid_slices=1) == 0


def test_the_summary_finds_the_axis_and_leaves_unannotated_cases_out_of_the_medians():
    found = summarise_label_density([_case(12, axis=1), _case(12, axis=1), _case(0), _case(128)])
    assert (found.axis, found.num_cases, found.num_annotated_cases, found.num_dense_cases) == (
        1,
        4,
        3,
        1,
    )
    assert found.density == pytest.approx(12 / 128)
    assert found.has_complete_slices
    nothing = summarise_label_density([])
    assert (nothing.num_annotated_cases, nothing.voxel_share, nothing.is_dense) == (0, 0, True)


@pytest.mark.parametrize(
    ("case", "expected", "reason"),
    [
        (_case(6), "2d", "5% of its slices annotated (6 of 128)"),
        (_case(13), "3d_fullres", "from 10 % on"),
        (_case(6, axis=1), "3d_fullres", "lie across y"),
        (_case(6, filled=0.05), None, "scribbles (5.0%"),
        (_case(128), None, "dense"),
        (_case(0), None, "No case is annotated"),
    ],
)
def test_2d_or_3d_follows_from_the_labels_and_is_explained(case, expected, reason):
    found = _recommend(_plan(), [case] * 3)
    assert found.configuration == expected
    assert reason in found.reason


def test_images_of_one_slice_leave_no_choice():
    flat = _plan(shape=(1, 200, 160), spacing_mm=(999.0, 1.0, 1.0))
    assert _recommend(flat, [_case(1, shape=(1, 200, 160))]).configuration == "2d"


@settings(max_examples=200)
@given(st.floats(0, 0.0999))
def test_the_deepest_patch_is_the_last_one_of_which_a_tenth_is_annotated(chance):
    depth = deepest_patch(chance)
    assert depth is not None
    assert depth >= 10

    def share(slices: int) -> float:
        return chance + (1 - chance) / slices

    assert share(depth) >= 0.1 - 1e-6
    assert share(depth + 1) < 0.1 + 1e-6


def test_from_a_tenth_on_there_is_no_limit():
    assert deepest_patch(0.1) is None
    assert deepest_patch(1.0) is None


@pytest.mark.parametrize("planner", PLANNERS)
def test_sparse_labels_make_3d_patches_shallower_and_batches_larger_at_the_same_cost(planner):
    plan, cases = _plan(planner=planner), [_case(6)] * 3
    adapted = adapt_to_sparse_labels(plan, cases)
    before, after = (item.configurations["3d_fullres"] for item in (plan, adapted))
    assert after.patch_size[0] < before.patch_size[0]
    assert after.patch_size[1:] == before.patch_size[1:]
    assert after.batch_size > before.batch_size
    assert (after.spacing_mm, after.data_identifier) == (before.spacing_mm, before.data_identifier)
    topology = choose_topology(after.spacing_mm, after.patch_size)
    assert topology.patch_size == after.patch_size
    assert after.network.strides == topology.strides
    rules = PLANNERS[planner]
    costs = [
        item.batch_size * count_feature_map_elements(item.network, item.patch_size, num_outputs=2)
        for item in (before, after)
    ]
    assert costs[1] <= 1.1 * max(costs[0], 2 * rules.reference_cost[3])
    options = {"transpose_forward": (0, 1, 2), "foreground_share": SHARE}
    shares = [expected_batch(item, cases, **options).share for item in (before, after)]
    assert shares[1] >= 0.1 > shares[0]
    assert adapted.configurations["2d"] == plan.configurations["2d"]


@pytest.mark.parametrize("annotated", [16, 64, 128])
def test_denser_labels_leave_the_plan_as_it_is(annotated):
    plan = _plan()
    adapted = adapt_to_sparse_labels(plan, [_case(annotated)] * 3)
    assert adapted == plan
    assert adapted.reasons.slabs == {}


def test_a_small_dataset_keeps_its_limit_of_the_batch():
    plan = _plan(cases=1)
    adapted = adapt_to_sparse_labels(plan, [_case(2)])
    assert adapted.configurations["3d_fullres"].batch_size == 2


def test_the_cascade_stays_the_network_of_the_full_resolution():
    plan = _plan(shape=(400, 500, 500))
    adapted = adapt_to_sparse_labels(plan, [_case(8, shape=(400, 500, 500))])
    full, cascade = (adapted.configurations[f"3d_{name}fullres"] for name in ("", "cascade_"))
    assert full.patch_size[0] < plan.configurations["3d_fullres"].patch_size[0]
    assert cascade == replace(
        full, name="3d_cascade_fullres", previous_stage="3d_lowres", next_stage=None
    )


def test_nothing_annotated_cannot_be_planned_for():
    with pytest.raises(RequestError, match="none has any annotation"):
        adapt_to_sparse_labels(_plan(), [_case(0)])
