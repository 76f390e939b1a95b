"""Descriptions and folders of datasets are understood, or every problem with them is listed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image, write_label_map
from sparseunet.data.load import find_scans, load_dataset, parse_labels
from sparseunet.errors import DatasetError

SHAPE = (2, 3, 4)
GRID = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0))
DESCRIPTION = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "organ": 1},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}


def make_dataset(folder: Path, *cases: str, num_channels: int = 1, **changes: object) -> Path:
    for name in cases:
        for channel in range(num_channels):
            write_image(folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz", np.zeros(SHAPE), GRID)
        write_label_map(folder / "labelsTr" / f"{name}.nii.gz", np.ones(SHAPE, np.uint8), GRID)
    channel_names = {str(channel): f"T{channel}" for channel in range(num_channels)}
    description = DESCRIPTION | {"numTraining": len(cases), "channel_names": channel_names}
    content = {key: value for key, value in (description | changes).items() if value is not None}
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def problems_of(folder: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        load_dataset(folder)
    return str(caught.value)


def test_a_dataset_lists_its_cases_by_name_with_channels_in_order(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "Dataset001_A", "b", "a_1", "a", num_channels=2)
    (folder / "imagesTr" / "._a_0000.nii.gz").write_bytes(b"what macOS leaves behind")
    dataset = load_dataset(folder)
    assert dataset.name == "Dataset001_A"
    assert dataset.channel_names == ("T0", "T1")
    assert dataset.file_ending == ".nii.gz"
    assert [case.name for case in dataset.cases] == ["a", "a_1", "b"]
    assert [path.name for path in dataset.case("a_1").images] == [
        "a_1_0000.nii.gz",
        "a_1_0001.nii.gz",
    ]
    assert dataset.case("b").label == folder / "labelsTr" / "b.nii.gz"


def test_real_datasets_load(data_root: Path) -> None:
    hippocampus = load_dataset(data_root / "Dataset004_Hippocampus")
    assert len(hippocampus.cases) == 200
    assert hippocampus.labels.classes == {"background": 0, "anterior": 1, "posterior": 2}
    pictures = load_dataset(data_root / "Dataset120_ISBI2012EM")
    assert len(pictures.cases) == 8
    assert pictures.file_ending == ".png"


def test_names_may_hold_spaces_quotes_and_any_script(data_root: Path) -> None:
    folder = data_root.parent / "bad_inputs" / "13a_names_spaces_unicode"
    names = {case.name for case in load_dataset(folder).cases}
    assert names == {"Fällé_öß_测试", "quote's (1) & [x]", "case with space"}


def test_the_entry_dataset_names_files_anywhere(tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "elsewhere", "x", "y", num_channels=2)
    listed = {
        "first case": {
            "images": [f"../elsewhere/imagesTr/x_000{channel}.nii.gz" for channel in (0, 1)],
            "label": str(other / "labelsTr" / "x.nii.gz"),
        }
    }
    folder = make_dataset(tmp_path / "d", num_channels=2, dataset=listed, numTraining=1)
    (case,) = load_dataset(folder).cases
    assert case.name == "first case"
    assert [path.resolve() for path in case.images] == [
        other / "imagesTr" / "x_0000.nii.gz",
        other / "imagesTr" / "x_0001.nii.gz",
    ]
    assert case.label == other / "labelsTr" / "x.nii.gz"


@pytest.mark.parametrize("name", ["../outside", "a/b", "a\\b", "..", "", "a\nb", "a\0"])
def test_a_case_whose_name_would_lead_out_of_its_folder_is_refused(
    tmp_path: Path, name: str
) -> None:
    listed = {name: {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    text = problems_of(make_dataset(tmp_path / "d", "a", dataset=listed, numTraining=1))
    assert f"a case called {name!r}" in text
    assert "rename the case" in text


def test_every_wrong_file_of_the_entry_dataset_is_named(tmp_path: Path) -> None:
    listed = {
        "a": {"images": ["imagesTr/nothing_0000.nii.gz"], "label": "labelsTr/a.nii.gz"},
        "b": {"images": "imagesTr/b_0000.nii.gz", "label": "labelsTr/b.nii.gz"},
        "c": {"images": ["imagesTr/c_0000.nii.gz"] * 2, "label": "labelsTr/c.nii.gz"},
    }
    folder = make_dataset(tmp_path / "d", "a", "b", "c", dataset=listed, numTraining=2)
    text = problems_of(folder)
    assert "nothing_0000.nii.gz" in text
    assert "b (dataset.json)" in text
    assert "c (imagesTr/c_0000.nii.gz): found a channel 1" in text


def test_labels_of_which_nobody_says_who_drew_them_are_named_where_others_are(
    tmp_path: Path,
) -> None:
    folder = make_dataset(tmp_path / "d", "a", "b")
    (folder / "provenanceTr").mkdir()
    (folder / "provenanceTr" / "a.nii.gz").touch()
    text = problems_of(folder)
    assert "b (provenanceTr/b.nii.gz): found it is not said who drew the label" in text
    assert "a (provenanceTr" not in text
    (folder / "provenanceTr" / "b.nii.gz").touch()
    assert all(case.provenance is not None for case in load_dataset(folder).cases)


@pytest.mark.parametrize("suffix", ["_0000", ".seg"])
def test_labels_called_as_other_files_are_told_their_names(tmp_path: Path, suffix: str) -> None:
    folder = make_dataset(tmp_path / "d", "a", "b", "c")
    for name in ("a", "b"):
        label = folder / "labelsTr" / f"{name}.nii.gz"
        label.rename(label.with_name(f"{name}{suffix}.nii.gz"))
    with pytest.raises(DatasetError) as caught:
        load_dataset(folder)
    problems = caught.value.problems
    assert [problem.fix for problem in problems] == [f"rename it to {n}.nii.gz" for n in "ab"]
    assert problems[0].case == "a"
    assert problems[0].file == f"labelsTr/a{suffix}.nii.gz"


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    folder = make_dataset(
        tmp_path / "d",
        "a",
        "b",
        numTraining=7,
        labels={"background": 0, "organ": 2, "tumour": 4},
    )
    (folder / "labelsTr" / "a.nii.gz").unlink()
    (folder / "imagesTr" / "b_0000.nii.gz").rename(folder / "imagesTr" / "b.nii.gz")
    text = problems_of(folder)
    assert "labelsTr/a.nii.gz" in text
    assert "without channel number" in text
    assert "b_0000.nii.gz" in text
    assert "numTraining 7, but 2 cases" in text
    assert "0, 2, 4" in text
    assert len(text.splitlines()) == 4


@pytest.mark.parametrize("key", ["channel_names", "labels", "numTraining", "file_ending"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    text = problems_of(make_dataset(tmp_path / "d", "a", **{key: None}))
    assert f"found no {key}" in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"file_ending": ".jpg"}, "'.jpg'"),
        ({"file_ending": 3}, "file_ending 3"),
        ({"channel_names": {"1": "CT"}}, "keys '1'"),
        ({"channel_names": ["CT"]}, 'channel_names ["CT"]'),
        ({"numTraining": "1"}, 'numTraining "1"'),
        ({"labels": {}}, "labels {}"),
        ({"labels": {"background": 0, "organ": "x"}}, "'organ' with the value \"x\""),
        ({"labels": {"background": 0, "organ": True}}, "'organ' with the value true"),
        ({"labels": {"background": 0, "organ": []}}, "'organ' with the value []"),
        ({"labels": {"organ": 1}}, "without a background"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "'a' and 'b' with the same value 1"),
    ],
)
def test_a_wrong_value_is_shown(tmp_path: Path, changes: dict, found: str) -> None:
    assert found in problems_of(make_dataset(tmp_path / "d", "a", **changes))


@pytest.mark.parametrize("content", ["[1, 2]", "3", "null"])
def test_json_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    folder = make_dataset(tmp_path / "d", "a")
    (folder / "dataset.json").write_text(content)
    assert "an object with keys" in problems_of(folder)


def test_the_translation_of_an_old_description_is_accepted(data_root: Path) -> None:
    text = problems_of(data_root.parent / "bad_inputs" / "14g_old_style_json")
    start = text.index("replace the content by ") + len("replace the content by ")
    content, _ = json.JSONDecoder().raw_decode(text[start:])
    assert parse_labels(content).classes == {"background": 0, "anterior": 1, "posterior": 2}
    assert content["channel_names"] == {"0": "MRI"}


def test_a_missing_folder_is_one_problem(tmp_path: Path) -> None:
    text = problems_of(make_dataset(tmp_path / "d"))
    assert [line.split(":")[1].strip() for line in text.splitlines()] == [
        "(imagesTr)",
        "(labelsTr)",
    ]


def test_labels_may_be_regions() -> None:
    labels = parse_labels(
        {
            "labels": {
                "background": 0,
                "whole": [1, 2, 3],
                "core": [2, 3],
                "active": 3,
                "ignore": 4,
            },
            "regions_class_order": [1, 2, 3],
        }
    )
    assert labels.regions == {"whole": (1, 2, 3), "core": (2, 3), "active": (3,)}
    assert labels.regions_class_order == (1, 2, 3)
    assert labels.classes == {"background": 0}
    assert labels.ignore == 4
    assert labels.values == (0, 1, 2, 3)
    assert labels.num_outputs == 3


def test_lists_of_one_value_are_plain_classes() -> None:
    labels = parse_labels({"labels": {"background": 0, "a": [1], "b": 2}})
    assert not labels.has_regions
    assert labels.classes == {"background": 0, "a": 1, "b": 2}


@pytest.mark.parametrize(
    ("regions", "order", "fix"),
    [
        ({"core": [2], "whole": [1, 2]}, [2, 1], "as 'whole', 'core'.*\\[1, 2\\]"),
        ({"whole": [1, 2], "core": [2]}, [2, 1], "as 'whole', 'core'.*\\[1, 2\\]"),
        ({"a": [1, 2], "b": [2, 3]}, [1, 3], "declare a region for it"),
        (
            {"active": [3], "whole": [1, 2, 3], "core": [2, 3]},
            [3, 1, 2],
            "'whole', 'core', 'active'",
        ),
    ],
)
def test_regions_that_painting_does_not_bring_back_are_refused_with_an_order_that_works(
    regions: dict[str, list[int]], order: list[int], fix: str
) -> None:
    content = {"labels": {"background": 0, **regions}, "regions_class_order": order}
    with pytest.raises(DatasetError, match=f"ends in other regions.*{fix}"):
        parse_labels(content)


@pytest.mark.parametrize(
    ("regions", "order"),
    [
        ({"whole": [1, 2], "core": [2]}, [1, 2]),
        ({"tumour": [1, 2]}, [1]),  # which of the two is not asked
        ({"whole": [1, 2, 3], "core": [1, 3], "active": [3]}, [2, 1, 3]),
        ({"left": [1], "right": [2, 3]}, [1, 2]),
    ],
)
def test_regions_that_painting_brings_back_are_taken(
    regions: dict[str, list[int]], order: list[int]
) -> None:
    labels = parse_labels({"labels": {"background": 0, **regions}, "regions_class_order": order})
    assert labels.regions_class_order == tuple(order)


@pytest.mark.parametrize("order", [None, [1], [1, 7], "12"])
def test_regions_need_their_order(order: object) -> None:
    content = {"labels": {"background": 0, "whole": [1, 2], "core": [2]}}
    with pytest.raises(DatasetError, match=r"regions_class_order.*'whole', 'core'"):
        parse_labels(content if order is None else content | {"regions_class_order": order})


@pytest.mark.parametrize("ignore", [1, 2, [3, 4], 9])
def test_ignore_is_the_highest_value_and_consecutive(ignore: object) -> None:
    with pytest.raises(DatasetError):
        parse_labels({"labels": {"background": 0, "a": 1, "b": 2, "ignore": ignore}})


def test_the_advice_for_ignore_leads_to_valid_labels() -> None:
    with pytest.raises(DatasetError) as caught:
        parse_labels({"labels": {"background": 0, "ignore": 1, "a": 2, "b": 3}})
    assert "renumber 2 to 1, 3 to 2, ignore to 3" in str(caught.value)
    assert parse_labels({"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}}).ignore == 3


def test_scans_are_found_in_any_folder(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", "a", "b", num_channels=2) / "imagesTr"
    scans = find_scans(folder, file_ending=".nii.gz", num_channels=2)
    assert [scan.name for scan in scans] == ["a", "b"]
    assert all(scan.label is None and len(scan.images) == 2 for scan in scans)


def test_scans_with_missing_extra_or_unnumbered_channels_are_all_named(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", "a", "b", num_channels=2) / "imagesTr"
    (folder / "a_0001.nii.gz").unlink()
    (folder / "b_0001.nii.gz").rename(folder / "b_0002.nii.gz")
    (folder / "b_0000.nii.gz").rename(folder / "c.nii.gz")
    with pytest.raises(DatasetError) as caught:
        find_scans(folder, file_ending=".nii.gz", num_channels=2)
    files = [(problem.case, problem.file) for problem in caught.value.problems]
    assert files == [
        ("c", "c.nii.gz"),
        ("a", "a_0001.nii.gz"),
        ("b", "b_0000.nii.gz"),
        ("b", "b_0001.nii.gz"),
        ("b", "b_0002.nii.gz"),
        ("c", "c_0001.nii.gz"),
    ]


@pytest.mark.parametrize("make", [True, False])
def test_a_folder_without_scans_says_what_is_there(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "scans"
    if make:
        folder.mkdir()
        (folder / "a.jpg").touch()
        (folder / "b.jpg").touch()
    with pytest.raises(DatasetError, match=r"2 \.jpg" if make else "no such folder"):
        find_scans(folder, file_ending=".nii.gz", num_channels=1)


def test_one_picture_in_colour_stands_for_its_channels(tmp_path: Path) -> None:
    pixels = np.zeros((4, 5, 3), np.uint8)
    Picture.fromarray(pixels).save(tmp_path / "a_0000.png")
    (scan,) = find_scans(tmp_path, file_ending=".png", num_channels=3)
    assert [path.name for path in scan.images] == ["a_0000.png"]
    with pytest.raises(DatasetError, match=r"a_0001\.png"):
        find_scans(tmp_path, file_ending=".png", num_channels=2)


def test_cases_without_label_are_cases_where_labels_are_not_needed(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "Dataset001_A", "a", "b")
    (folder / "labelsTr" / "a.nii.gz").unlink()

    dataset = load_dataset(folder, needs_labels=False)

    assert [case.label is None for case in dataset.cases] == [True, False]
    (folder / "labelsTr" / "b.nii.gz").unlink()
    (folder / "labelsTr").rmdir()
    dataset = load_dataset(folder, needs_labels=False)
    assert [case.label for case in dataset.cases] == [None, None]
