"""The plans of one dataset taken for another."""

import json

import pytest

from sparseunet.errors import RequestError
from sparseunet.planning.move_plan import move_plan
from sparseunet.planning.nnunet_plans import plan_from_nnunet


@pytest.fixture
def content(data_root) -> dict:
    """nnU-Net's plans for a CT dataset, with a cascade."""
    folder = data_root.parent / "reference" / "planner_cases" / "lits_ct"
    return json.loads((folder / "default.json").read_text())


def _move(content, *, channels=("CT",), plans_name="FromLits", flat=False):
    description = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, "spleen": 1},
        "numTraining": 5,
        "file_ending": ".nii",
    }
    return move_plan(
        content,
        dataset_name="Dataset002_Other",
        dataset_json=description,
        plans_name=plans_name,
        flat=flat,
    )


def test_only_names_folders_and_the_reader_change(content):
    before = json.dumps(content)
    moved = _move(content)
    assert json.dumps(content) == before
    assert moved["dataset_name"] == "Dataset002_Other"
    assert moved["plans_name"] == "FromLits"
    assert moved["image_reader_writer"] == "NibabelIO"
    folders = {name: item.get("data_identifier") for name, item in moved["configurations"].items()}
    assert folders == {
        "2d": "FromLits_2d",
        "3d_lowres": "FromLits_3d_lowres",
        "3d_fullres": "FromLits_3d_fullres",
        "3d_cascade_fullres": None,
    }
    assert moved["sparseunet"]["plans_from"] == {
        "dataset": content["dataset_name"],
        "plans": "nnUNetPlans",
    }
    ours, theirs = plan_from_nnunet(moved), plan_from_nnunet(content)
    assert ours.intensities == theirs.intensities
    assert [item.network for item in ours.configurations.values()] == [
        item.network for item in theirs.configurations.values()
    ]


def test_folders_of_another_name_get_the_new_one_in_front(content):
    content["configurations"]["2d"]["data_identifier"] = "shared_2d"
    assert _move(content)["configurations"]["2d"]["data_identifier"] == "FromLits_shared_2d"


def test_the_same_name_keeps_the_folders(content):
    moved = _move(content, plans_name="nnUNetPlans")
    assert moved["configurations"]["2d"]["data_identifier"] == "nnUNetPlans_2d"


def test_everything_that_does_not_fit_is_reported_at_once(content):
    for name in list(content["configurations"]):
        if name != "3d_fullres":
            del content["configurations"][name]
    with pytest.raises(RequestError) as caught:
        _move(content, channels=("T1", "T2"), flat=True)
    message = str(caught.value)
    for part in ("1 channels, Dataset002_Other has 2", "ct there, as zscore", "one slice"):
        assert part in message
