"""nnU-Net 2.8.1 wrote the plans and costs compared with here; see the folder's README."""

import json
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

from sparseunet.fingerprint.fingerprint import fingerprint_from_json
from sparseunet.planning.make_plan import make_plan
from sparseunet.planning.memory import count_feature_map_elements, shrinking_candidates
from sparseunet.planning.nnunet_plans import plan_from_nnunet, plan_to_nnunet
from sparseunet.planning.plan import NetworkPlan
from sparseunet.planning.planners import PLANNERS
from sparseunet.planning.spacing import coarser_grids

CASES = (
    "acdc",
    "amos_ct",
    "atlas_1mm",
    "brats_4ch",
    "ct_mr",
    "em_stack",
    "hippocampus",
    "kits",
    "lits_ct",
    "prostate_2ch",
    "rgb2d_png",
    "single_case",
    "tiny",
)
each_case = pytest.mark.parametrize("case", CASES)
each_planner = pytest.mark.parametrize("planner", PLANNERS)


@pytest.fixture(scope="session")
def planner_cases(data_root: Path) -> Path:
    return data_root.parent / "reference" / "planner_cases"


def _read(path: Path) -> dict:
    return json.loads(path.read_text())


def _plan(folder: Path, *, planner: str, dataset_name: str):
    fingerprint = fingerprint_from_json(_read(folder / "fingerprint.json"))
    return make_plan(
        fingerprint,
        dataset_json=_read(folder / "dataset.json"),
        dataset_name=dataset_name,
        planner=planner,
    )


def test_every_reference_case_is_compared(planner_cases):
    assert tuple(sorted(path.name for path in planner_cases.iterdir() if path.is_dir())) == CASES


@each_case
@each_planner
def test_the_plans_file_equals_nnunets_in_every_field(planner_cases, case, planner):
    golden = _read(planner_cases / case / f"{planner}.json")
    plan = _plan(planner_cases / case, planner=planner, dataset_name=golden["dataset_name"])
    assert json.loads(json.dumps(plan_to_nnunet(plan))) == golden


@each_case
@each_planner
def test_nnunets_plans_file_reads_as_our_plan_and_writes_back_unchanged(
    planner_cases, case, planner
):
    golden = _read(planner_cases / case / f"{planner}.json")
    read = plan_from_nnunet(golden)
    assert read == _plan(planner_cases / case, planner=planner, dataset_name=golden["dataset_name"])
    assert plan_to_nnunet(read) == golden


@each_case
@each_planner
def test_the_cost_of_every_network_tried_equals_nnunets(planner_cases, case, planner):
    rules = PLANNERS[planner]
    for tried in _read(planner_cases / case / f"{planner}.trace.json")["trace"]:
        stages = len(tried["strides"])
        network = NetworkPlan(
            architecture=rules.architecture,
            features_per_stage=tuple(tried["features"]),
            kernel_sizes=tuple(map(tuple, tried["kernel_sizes"])),
            strides=tuple(map(tuple, tried["strides"])),
            encoder_depths=rules.encoder_depths[:stages],
            decoder_depths=(rules.decoder_depth,) * (stages - 1),
        )
        cost = count_feature_map_elements(
            network, tried["patch_size"], num_outputs=tried["out_channels"]
        )
        assert cost == tried["estimate"]


@each_case
@each_planner
def test_the_same_networks_are_tried_in_the_same_order(planner_cases, case, planner):
    # nnU-Net's trace holds each network once, when it is first built.
    trace = _read(planner_cases / case / f"{planner}.trace.json")["trace"]
    golden = [
        (
            tuple(tried["patch_size"]),
            tuple(map(tuple, tried["strides"])),
            tuple(map(tuple, tried["kernel_sizes"])),
            tried["estimate"],
        )
        for tried in trace
    ]
    plan = _plan(planner_cases / case, planner=planner, dataset_name="Dataset001_Any")
    outputs = trace[0]["out_channels"]
    ours = [
        (
            candidate.patch_size,
            candidate.network.strides,
            candidate.network.kernel_sizes,
            candidate.cost,
        )
        for candidate in _all_tried(plan, PLANNERS[planner], num_outputs=outputs)
    ]
    assert list(dict.fromkeys(ours)) == golden


def _all_tried(plan, rules, *, num_outputs):
    """Follow planning step by step: full resolution, low resolutions, slices."""

    def tried(spacing_mm, shape):
        found = shrinking_candidates(spacing_mm, shape, planner=rules, num_outputs=num_outputs)
        return list(found)

    candidates = []
    if full := plan.configurations.get("3d_fullres"):
        candidates += tried(full.spacing_mm, full.median_shape)
        voxels = prod(full.median_shape)
        grids = coarser_grids(full.spacing_mm, full.median_shape)
        while prod(candidates[-1].patch_size) / voxels < 0.25:
            spacing_mm, shape = next(grids)
            voxels = prod(shape)
            candidates += tried(spacing_mm, tuple(round(float(edge)) for edge in shape))
    flat = plan.configurations["2d"]
    return candidates + tried(flat.spacing_mm, flat.median_shape)


@each_planner
def test_plans_for_the_real_hippocampus_equal_nnunets(data_root, planner):
    folder = data_root.parent / "reference" / "hippocampus_real"
    golden = _read(folder / f"{PLANNERS[planner].plans_name}.json")
    fingerprint = fingerprint_from_json(_read(folder / "dataset_fingerprint.json"))
    plan = make_plan(
        fingerprint,
        dataset_json=_read(folder / "dataset.json"),
        dataset_name="Dataset004_Hippocampus",
        planner=planner,
    )
    assert plan_to_nnunet(plan) == golden


def test_a_plans_file_edited_by_hand_for_nnunet_is_read(data_root):
    content = _read(data_root.parent / "reference" / "nnunet_model" / "model" / "plans.json")
    plan = plan_from_nnunet(content)
    assert plan.configurations["3d_fullres"].network.features_per_stage[0] == 16
    assert plan_from_nnunet(plan_to_nnunet(plan)) == plan


@each_case
def test_declaring_an_ignore_label_changes_nothing(planner_cases, case):
    dense = _read(planner_cases / case / "dataset.json")
    highest = max(
        max(value) if isinstance(value, list) else value for value in dense["labels"].values()
    )
    sparse = {**dense, "labels": {**dense["labels"], "ignore": highest + 1}}
    fingerprint = fingerprint_from_json(_read(planner_cases / case / "fingerprint.json"))
    few = replace(fingerprint, num_foreground_voxels=100, num_foreground_cases=1)
    plans = [
        make_plan(measured, dataset_json=described, dataset_name="Dataset001_Any")
        for measured, described in ((fingerprint, dense), (few, sparse))
    ]
    assert plans[0] == plans[1]


def test_planning_all_cases_imports_no_torch(planner_cases):
    program = """
import json, sys
from pathlib import Path
from sparseunet.cli import extract_fingerprint, plan_experiment
from sparseunet.fingerprint.fingerprint import fingerprint_from_json
from sparseunet.planning.make_plan import make_plan
from sparseunet.planning import splits
from sparseunet.planning.nnunet_plans import plan_from_nnunet, plan_to_nnunet
for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    fingerprint = fingerprint_from_json(json.loads((folder / "fingerprint.json").read_text()))
    description = json.loads((folder / "dataset.json").read_text())
    plan = make_plan(fingerprint, dataset_json=description, dataset_name=folder.name)
    assert plan_from_nnunet(plan_to_nnunet(plan)) == plan
print(sorted({"torch", "sklearn", "skimage"} & set(sys.modules)))
"""
    finished = subprocess.run(
        [sys.executable, "-c", program, str(planner_cases)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.strip() == "[]"
