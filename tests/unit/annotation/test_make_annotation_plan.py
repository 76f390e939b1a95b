"""From scans and a budget to a work list: which promises a plan keeps."""

import json
from pathlib import Path

import numpy as np
import pytest
from phantoms import blobs, intensities

from sparseunet.annotation.annotation_plan import (
    AnnotationPlan,
    read_annotation_plan,
    write_annotation_plan,
)
from sparseunet.annotation.budget import parse_budget
from sparseunet.annotation.make_annotation_plan import make_annotation_plan
from sparseunet.annotation.planning_request import SpendingOptions
from sparseunet.annotation.selection.per_stack import choose_per_stack, stack_seed
from sparseunet.annotation.selection.slices import ChosenSlice
from sparseunet.data.dataset import Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image
from sparseunet.data.load import load_dataset, load_scan_folder
from sparseunet.errors import DatasetError

DEPTHS = (10, 14, 12, 10, 20, 16, 10, 12)
ANY = f"{__name__}:select_any"
DEEPEST = f"{__name__}:select_in_deepest"


def select_any(stacks, /, *, request):
    """Draw slices at random in every stack."""

    def choose(stack, count, seed):
        random = np.random.default_rng(stack_seed(stack, seed))
        return [(int(i), "drawn") for i in random.permutation(stack.num_slices)[:count]]

    return choose_per_stack(stacks, request=request, choose=choose)


def select_in_deepest(stacks, /, *, request):
    """Choose over all stacks: everything from the deepest scans."""
    assert request.counts is None
    order = sorted(range(len(stacks)), key=lambda number: -stacks[number].num_slices)
    slices = [
        ChosenSlice(stack=number, index=index, reason="deep")
        for number in order
        for index in range(stacks[number].num_slices)
    ]
    return tuple(slices[: request.total])


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Dataset:
    """Eight unlabelled scans of different depth, the last two darker; in a raw dataset folder."""
    folder = tmp_path_factory.mktemp("raw") / "Dataset001_Unlabelled"
    for number, depth in enumerate(DEPTHS):
        shape = (depth, 12, 9)
        voxels_ZYX = intensities(blobs(shape, seed=number), seed=number) - 500 * (number > 5)
        geometry = Geometry(shape=shape, spacing_mm=(3.0, 1.0, 1.0))
        write_image(folder / "imagesTr" / f"scan_{number}_0000.nii.gz", voxels_ZYX, geometry)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": len(DEPTHS),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return load_dataset(folder, needs_labels=False)


def per_case(plan: AnnotationPlan) -> dict[str, int]:
    counts: dict[str, int] = {}
    for case in plan.cases:
        counts[case.case] = counts.get(case.case, 0) + len(case.slices)
    return counts


@pytest.mark.parametrize("selector", ["fixed", ANY])
@pytest.mark.parametrize("axis", [0, 1, 2, "auto", "all"])
@pytest.mark.parametrize("budget", ["9slices", "40slices", "10%", "45%", "100%", "20min", "3h"])
def test_a_plan_keeps_the_budget_and_treats_scans_alike(scans, budget, axis, selector):
    plan = make_annotation_plan(scans, budget=budget, selector=selector, axis=axis, seed=3)

    asked, about = parse_budget(budget), plan.provenance
    if asked.unit == "slices":
        assert plan.num_slices == asked.amount
    elif asked.unit == "share":
        assert plan.num_slices == int(asked.amount * about["num_slices"] + 1e-9)
    else:
        assert plan.expected_minutes <= asked.amount + 1e-6
    ranks = sorted(rank for case in plan.cases for rank in case.ranks)
    assert ranks == list(range(1, plan.num_slices + 1))
    assert {case.axis for case in plan.cases} <= set(about["axes"])
    if asked.unit != "minutes" and budget != "100%":
        assert max(per_case(plan).values()) - min(per_case(plan).values()) <= 1


@pytest.mark.parametrize("selector", ["fixed", ANY])
def test_the_same_request_gives_the_same_bytes_and_another_seed_another_plan(
    scans, tmp_path, selector
):
    def write(name: str, seed: int) -> bytes:
        plan = make_annotation_plan(
            scans,
            budget="12slices",
            selector=selector,
            seed=seed,
            options=SpendingOptions(num_volumes=4),
        )
        write_annotation_plan(tmp_path / name, plan)
        assert read_annotation_plan(tmp_path / name) == plan
        return (tmp_path / name).read_bytes()

    assert write("a.json", 0) == write("b.json", 0)
    assert write("c.json", 1) != write("d.json", 0)


def test_slices_lie_across_the_thick_axis_if_nobody_says_otherwise(tmp_path):
    for name, spacing_mm, axes in (
        ("thick z", (3.0, 1.0, 1.0), [0]),
        ("thick y", (1.0, 3.0, 1.0), [1]),
        ("thick x", (1.0, 1.0, 1.2), [2]),
        ("cubes", (1.0, 1.0, 1.0), [0]),
        ("y and x", (1.0, 2.0, 2.0), [1]),
    ):
        geometry = Geometry(shape=(8, 9, 10), spacing_mm=spacing_mm)
        for number in range(3):
            path = tmp_path / name / f"{number}.nii.gz"
            write_image(path, np.zeros(geometry.shape, np.float32), geometry)
        plan = make_annotation_plan(load_scan_folder(tmp_path / name), budget="3slices")
        assert plan.provenance["axes"] == axes


def test_with_all_axes_every_axis_gets_its_share(scans):
    plan = make_annotation_plan(
        scans, budget="64slices", axis="all", options=SpendingOptions(dimensions=2)
    )
    by_axis = [sum(len(c.slices) for c in plan.cases if c.axis == axis) for axis in range(3)]
    assert sum(by_axis) == 64
    assert max(by_axis) - min(by_axis) <= 1
    assert max(per_case(plan).values()) == min(per_case(plan).values()) == 8


def test_a_scan_is_opened_once_however_many_axes(scans):
    plan = make_annotation_plan(
        scans, budget="24slices", axis="all", options=SpendingOptions(dimensions=2)
    )
    cost = SpendingOptions().cost
    drawing = sum(cost.minutes(case.slices) for case in plan.cases)
    opening = cost.minutes_per_volume * len(per_case(plan))
    assert plan.expected_minutes == pytest.approx(drawing + opening)


def test_3d_networks_get_a_minimum_of_slices_and_2d_networks_more_scans(scans):
    def used(dimensions: int) -> dict[str, int]:
        options = SpendingOptions(dimensions=dimensions)
        return per_case(make_annotation_plan(scans, budget="8slices", options=options))

    assert set(used(2).values()) == {1}
    assert len(used(2)) == 8
    assert len(used(3)) < 8
    assert sum(used(3).values()) == 8


def test_a_budget_per_case_is_spent_in_every_case(scans):
    assert set(per_case(make_annotation_plan(scans, budget="3slices per case")).values()) == {3}
    shares = per_case(make_annotation_plan(scans, budget="25% per case", axis=0))
    assert [shares[f"scan_{number}"] for number in range(8)] == [2, 4, 3, 2, 5, 4, 2, 3]
    timed = make_annotation_plan(scans, budget="8min per case", selector=ANY)
    assert len(per_case(timed)) == 8
    assert all(case.expected_minutes <= 8 for case in timed.cases)


def test_the_number_of_scans_can_be_said_and_more_contain_fewer(scans):
    def used(num_volumes: int) -> set[str]:
        options = SpendingOptions(num_volumes=num_volumes)
        return set(per_case(make_annotation_plan(scans, budget="10slices", options=options)))

    for fewer, more in ((1, 2), (2, 5), (5, 8)):
        assert len(used(more)) == more
        assert used(fewer) < used(more)


def test_unlike_scans_are_chosen_when_asked_for(scans):
    options = SpendingOptions(num_volumes=3, volume_choice="farthest")
    chosen = set(per_case(make_annotation_plan(scans, budget="6slices", options=options)))
    assert chosen & {"scan_6", "scan_7"}, "the dark ones"
    assert "scan_4" in chosen, "the deepest one"


def test_a_selector_of_the_whole_dataset_may_leave_scans_out(scans):
    options = SpendingOptions(num_volumes="selector")
    plan = make_annotation_plan(scans, budget="30slices", selector=DEEPEST, options=options)
    assert per_case(plan) == {"scan_4": 20, "scan_5": 10}
    timed = make_annotation_plan(scans, budget="25min", selector=DEEPEST, options=options)
    assert 0 < timed.expected_minutes <= 25


def test_a_folder_of_scans_is_enough(scans, tmp_path):
    for number, case in enumerate(scans.cases[:3]):
        (tmp_path / "plain").mkdir(exist_ok=True)
        (tmp_path / "plain" / f"patient {number}.nii.gz").symlink_to(case.images[0])
    plan = make_annotation_plan(load_scan_folder(tmp_path / "plain"), budget="6slices")
    assert plan.dataset == "plain"
    assert per_case(plan) == {"patient 0": 2, "patient 1": 2, "patient 2": 2}


def test_the_alternatives_and_the_choice_are_in_the_plan(scans):
    about = make_annotation_plan(scans, budget="16slices").provenance
    chosen = about["alternatives"][about["chosen_alternative"]]
    assert chosen["num_slices"] == 16
    assert chosen["enough_per_volume"]
    assert len(about["alternatives"]) > 2


def problems_of(dataset: Dataset, **request) -> str:
    with pytest.raises(DatasetError) as caught:
        make_annotation_plan(dataset, **{"budget": "9slices", **request})
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_everything_that_is_wrong_is_said_at_once(scans):
    message = problems_of(
        scans,
        budget="0slices",
        selector="best",
        axis=3,
        options=SpendingOptions(num_volumes=9, volume_choice="nicest", dimensions=4),
    )
    for part in ("0slices", "best", "(axis)", "9 of 8 scans", "nicest", "(dimensions)"):
        assert part in message
    assert len(message.splitlines()) == 6


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("105slices", "of the about 104"),
        ("1min", "not one slice"),
        ("15slices per case", "of the about 104"),
        ("12slices per case", r"scan_0 \(budget\): found 12 slices of 10"),
    ],
)
def test_a_budget_that_does_not_fit_the_scans_is_refused(scans, budget, message):
    with pytest.raises(DatasetError, match=message):
        make_annotation_plan(scans, budget=budget, axis=0)


def test_without_scans_there_is_nothing_to_plan(scans, tmp_path):
    from dataclasses import replace

    assert "no scans" in problems_of(replace(scans, cases=()))
    with pytest.raises(DatasetError, match="no scan"):
        load_scan_folder(tmp_path)


def test_2d_images_have_no_slices_to_plan(data_root):
    dataset = load_dataset(data_root / "Dataset120_ISBI2012EM")
    assert "2D images" in problems_of(dataset)


def test_damaged_scans_are_all_named(scans, tmp_path):
    for case in scans.cases[:4]:
        (tmp_path / case.images[0].name.replace("_0000", "")).write_bytes(
            Path(case.images[0]).read_bytes()[: 40 if case.name > "scan_1" else None]
        )
    message = problems_of(load_scan_folder(tmp_path))
    assert "scan_2.nii.gz" in message
    assert "scan_3.nii.gz" in message
    assert "scan_1.nii.gz" not in message
