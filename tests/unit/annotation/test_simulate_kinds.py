"""Plans applied to dense datasets; some volumes only; patches and scribbles for comparison."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import blobs, intensities, sphere

from sparseunet.annotation.annotation_plan import write_annotation_plan
from sparseunet.annotation.make_annotation_plan import make_annotation_plan
from sparseunet.annotation.planning_request import SpendingOptions
from sparseunet.annotation.simulate import plan_for_density, simulate_annotation, simulate_plan
from sparseunet.annotation.strokes import (
    patches,
    scribbles,
    simulate_patches,
    simulate_scribbles,
)
from sparseunet.cli.main import main
from sparseunet.data.annotation_record import read_annotation_records
from sparseunet.data.dataset import Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_label_map, write_image, write_label_map
from sparseunet.data.load import load_dataset
from sparseunet.errors import DatasetError, RequestError

SHAPE = (12, 20, 18)
NUM_CASES = 8
IGNORE = 3


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("raw") / "Dataset001_Dense"
    geometry = Geometry(shape=SHAPE, spacing_mm=(3.0, 1.0, 1.0))
    for number in range(NUM_CASES):
        labels_ZYX = blobs(SHAPE, seed=number)
        labels_ZYX[:2] = 0
        image = folder / "imagesTr" / f"scan_{number}_0000.nii.gz"
        write_image(image, intensities(labels_ZYX, seed=number), geometry)
        write_label_map(folder / "labelsTr" / f"scan_{number}.nii.gz", labels_ZYX, geometry)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": NUM_CASES,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return load_dataset(folder)


def label_maps(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: read_label_map(path)[0] for path in sorted((folder / "labelsTr").iterdir())}


def assert_what_is_left_is_true(dense: Dataset, sparse: dict[str, np.ndarray]) -> None:
    for name, dense_ZYX in label_maps(dense.folder).items():
        annotated_ZYX = sparse[name] != IGNORE
        assert np.array_equal(sparse[name][annotated_ZYX], dense_ZYX[annotated_ZYX])


def test_a_plan_is_applied_slice_by_slice_across_all_its_axes(dense, tmp_path):
    options = SpendingOptions(dimensions=2, num_volumes=5)
    plan = make_annotation_plan(dense, budget="31slices", axis="all", seed=2, options=options)

    summary = simulate_plan(dense, plan, folder=tmp_path / "Dataset002_Sparse")

    sparse = label_maps(summary.folder)
    assert_what_is_left_is_true(dense, sparse)
    for case in dense.cases:
        expected_ZYX = np.zeros(SHAPE, bool)
        for planned in plan.of_case(case.name):
            np.moveaxis(expected_ZYX, planned.axis, 0)[list(planned.slices)] = True
        annotated_ZYX = sparse[f"{case.name}.nii.gz"] != IGNORE
        assert np.array_equal(annotated_ZYX, expected_ZYX)
    assert summary.num_kept_slices == plan.num_slices == 31
    share = np.mean([labels_ZYX != IGNORE for labels_ZYX in sparse.values()])
    assert summary.annotated_share == pytest.approx(share)


def test_the_record_knows_the_slices_of_every_axis(dense, tmp_path):
    plan = make_annotation_plan(dense, budget="48slices", axis="all")
    simulate_plan(dense, plan, folder=tmp_path / "Dataset002_Sparse")

    records = read_annotation_records(tmp_path / "Dataset002_Sparse" / "annotation.json")
    assert (records.selector, records.seed) == ("staggered", 0)
    assert records.provenance == {"simulated_from": "Dataset001_Dense", "budget": "48slices"}
    for name, record in records.cases.items():
        found = {one.axis: set(one.annotated_slices) for one in record.views}
        assert found == {c.axis: set(c.slices) for c in plan.of_case(name)}
        empty = set(record.reviewed_empty_slices)
        assert empty == set(record.annotated_slices) & {0, 1}


def test_a_plan_through_the_command_line_equals_the_same_density(dense, tmp_path):
    plan = plan_for_density(dense, density=0.25, axis=1)
    write_annotation_plan(tmp_path / "plan.json", plan)
    words = ["--workspace", str(tmp_path), "simulate_annotation", "-d", str(dense.folder)]

    assert main([*words, "--plan", str(tmp_path / "plan.json"), "-o", "Dataset002_P"]) == 0
    assert main([*words, "--density", "0.25", "--axis", "1", "-o", "Dataset003_D"]) == 0

    by_plan, by_density = (
        label_maps(tmp_path / "raw" / name) for name in ("Dataset002_P", "Dataset003_D")
    )
    assert all(np.array_equal(by_plan[name], by_density[name]) for name in by_density)


def test_a_plan_for_other_scans_is_refused_with_every_misfit(dense, tmp_path):
    from dataclasses import replace

    plan = make_annotation_plan(dense, budget="8slices", options=SpendingOptions(dimensions=2))
    cases = [replace(plan.cases[0], case="stranger"), replace(plan.cases[1], num_slices=13)]
    with pytest.raises(DatasetError) as caught:
        simulate_plan(dense, replace(plan, cases=tuple(cases)), folder=tmp_path / "Dataset002_S")
    assert "stranger: found no label map" in str(caught.value)
    assert "12 slices across axis 0; expected 13" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_volume_share_leaves_the_other_volumes_without_any_annotation(dense, tmp_path):
    used = {}
    for share in (0.125, 0.25, 0.5, 1.0):
        folder = tmp_path / f"Dataset00{int(8 * share)}_S"
        summary = simulate_annotation(
            dense,
            density=0.25,
            selector="fixed",
            axis=0,
            seed=5,
            volume_share=share,
            folder=folder,
        )
        sparse = label_maps(folder)
        assert_what_is_left_is_true(dense, sparse)
        kept = {name: int((one != IGNORE).any(axis=(1, 2)).sum()) for name, one in sparse.items()}
        assert sorted(set(kept.values()) - {0}) == [3]
        used[share] = {name for name, count in kept.items() if count}
        assert len(used[share]) == 8 * share
        assert summary.num_kept_slices == 3 * 8 * share
        assert len(load_dataset(folder).cases) == NUM_CASES
    assert used[0.125] < used[0.25] < used[0.5] < used[1.0]


def test_a_density_with_a_volume_share_keeps_the_same_slices_as_without(dense, tmp_path):
    def kept(share: float) -> dict[str, tuple[int, ...]]:
        plan = plan_for_density(
            dense, density=0.3, selector="fixed", axis=2, seed=1, volume_share=share
        )
        return {case.case: case.slices for case in plan.cases}

    assert kept(0.5).items() < kept(1.0).items()


@given(
    st.lists(st.integers(1, 30), min_size=3, max_size=3), st.floats(0.01, 1.0), st.integers(0, 5)
)
@settings(max_examples=40)
def test_patches_hold_the_share_and_little_more(shape, share, seed):
    mask = patches(shape, share=share, seed=seed)
    edge = min(0.25, (share / 4) ** (1 / 3))
    one_patch = np.prod([max(1, round(edge * length)) for length in shape])
    assert share <= mask.mean() + 1e-9 < share + one_patch / mask.size + 1e-6
    assert np.array_equal(mask, patches(shape, share=share, seed=seed))


def test_patches_are_true_and_differ_between_scans(dense, tmp_path):
    summary = simulate_patches(dense, share=0.1, seed=0, folder=tmp_path / "Dataset002_P")
    sparse = label_maps(summary.folder)
    assert_what_is_left_is_true(dense, sparse)
    masks = {(one != IGNORE).tobytes() for one in sparse.values()}
    assert len(masks) == NUM_CASES
    assert 0.1 <= summary.annotated_share < 0.13
    assert summary.records.provenance["kind"] == "patches"
    assert all(not record.reviewed_empty_slices for record in summary.records.cases.values())


def test_every_piece_of_every_class_gets_a_stroke_inside_of_it():
    from scipy import ndimage

    labels_YX = blobs((60, 70), seed=4, width=4)
    strokes_YX = scribbles(labels_YX, seed=0)
    assert 0.02 < strokes_YX.mean() < 0.25
    for value in range(3):
        pieces_YX, count = ndimage.label(labels_YX == value)
        assert set(np.unique(pieces_YX[strokes_YX])) >= set(range(1, count + 1))


def test_a_disc_gets_a_point_in_the_middle_and_half_a_circle_near_its_border():
    disc_YX = sphere((61, 61), radius_mm=20)
    inside_YX = scribbles(disc_YX.astype(np.uint8), seed=3) & disc_YX
    y, x = np.nonzero(inside_YX)
    radius = np.hypot(y - 30, x - 30)
    on_border = radius > 12
    assert np.all(radius[~on_border] <= 2), "the skeleton of a disc is its middle"
    assert (~on_border).any()
    assert np.all((radius[on_border] > 16) & (radius[on_border] < 20))
    angles = np.unwrap(np.sort(np.arctan2(y[on_border] - 30, x[on_border] - 30)))
    gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    assert gaps.max() == pytest.approx(np.pi, abs=0.4), "the other half is not drawn"


def test_slices_of_one_class_get_a_line():
    assert scribbles(np.zeros((9, 12), np.uint8), seed=0).sum() == 4
    assert scribbles(np.full((1, 1), 2, np.uint8), seed=0).all()


def test_scribbles_lie_in_the_chosen_slices_and_are_true(dense, tmp_path):
    plan = plan_for_density(dense, density=0.5, selector="fixed", axis=0, seed=0, volume_share=0.5)
    summary = simulate_scribbles(dense, plan, folder=tmp_path / "Dataset002_S")
    sparse = label_maps(summary.folder)
    assert_what_is_left_is_true(dense, sparse)
    chosen = {case.case: set(case.slices) for case in plan.cases}
    for name, record in summary.records.cases.items():
        annotated_ZYX = sparse[f"{name}.nii.gz"] != IGNORE
        found = set(np.flatnonzero(annotated_ZYX.any(axis=(1, 2))))
        assert found == set(record.annotated_slices) == chosen.get(name, set())
        assert set(record.reviewed_empty_slices) == found & {0, 1}
    assert 0.01 < summary.annotated_share < 0.1
    again = simulate_scribbles(dense, plan, folder=tmp_path / "Dataset003_S")
    for name, labels_ZYX in label_maps(again.folder).items():
        assert np.array_equal(labels_ZYX, sparse[name])


def test_scribbles_across_several_axes_are_refused(dense, tmp_path):
    plan = make_annotation_plan(dense, budget="24slices", axis="all")
    with pytest.raises(RequestError, match="across one axis"):
        simulate_scribbles(dense, plan, folder=tmp_path / "Dataset002_S")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--density", "0.1", "--volume-share", "0"], "volume share 0.0 is not a share"),
        (["--density", "0.1", "--volume-share", "1.5"], "volume share 1.5 is not a share"),
        (["--density", "0", "--kind", "patches"], "share 0.0 of voxels"),
        (["--density", "2", "--kind", "scribbles"], "density 2.0"),
        (["--density", "0.1", "--kind", "patches", "--volume-share", "0.5"], "do not go together"),
        (["--plan", "none.json"], "does not exist"),
        (["--plan", "none.json", "--volume-share", "0.5"], "do not go together"),
    ],
)
def test_the_command_refuses_nonsense_with_code_2(dense, tmp_path, capsys, words, message):
    start = ["--workspace", str(tmp_path), "simulate_annotation", "-d", str(dense.folder)]
    assert main([*start, *words, "-o", "Dataset002_S"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "raw" / "Dataset002_S").exists()
