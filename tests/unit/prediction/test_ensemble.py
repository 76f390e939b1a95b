"""The mean of what models say decides, on the grid of their segmentations."""

import json

import numpy as np
import pytest
from phantoms import blobs

from sparseunet.artifacts import read_json
from sparseunet.cli.main import main
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_geometry, read_label_map, write_label_map
from sparseunet.prediction import ensemble as module

SHAPE = (5, 6, 7)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 0.5), origin_mm=(3.0, -2.0, 1.0))
CLASSES = {"background": 0, "anterior": 1, "posterior": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def description(labels=None):
    labels = CLASSES if labels is None else labels
    more = {"regions_class_order": [1, 2]} if labels is REGIONS else {}
    return {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz", **more}


def random_probabilities(seed, *, num_classes=3, shape=SHAPE):
    values = np.random.default_rng(seed).random((num_classes, *shape))
    return (values / values.sum(axis=0)).astype(np.float16)


def write(folder, cases, *, labels=None, geometry=GEOMETRY, npz=False):
    """Write what predict --save-probabilities (or nnU-Net) leaves behind."""
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(description(labels)))
    for name, probabilities in cases.items():
        values = np.argmax(probabilities, axis=0).astype(np.uint8)
        write_label_map(folder / f"{name}.nii.gz", values, geometry)
        if npz:
            np.savez_compressed(folder / f"{name}.npz", probabilities=probabilities)
        else:
            np.save(folder / f"{name}.npy", probabilities)
    return folder


def call(*words):
    return main(["ensemble", *(str(word) for word in words)])


def test_where_two_models_disagree_their_mean_decides(tmp_path):
    one, two = np.zeros((2, 3, *SHAPE), np.float16)
    one[0], one[1] = 0.55, 0.45
    two[0], two[1] = 0.3, 0.7  # surer than the first: class 1 by the mean, .575 to .425
    one[:, 0], two[:, 0] = 0, 0
    one[0, 0], two[1, 0] = 0.9, 0.6
    one[1, 0], two[0, 0] = 0.1, 0.4  # background by the mean, .65 to .35
    one[2, -1] = two[2, -1] = 1
    a, b = write(tmp_path / "a", {"x": one}), write(tmp_path / "b", {"x": two})
    assert call("-i", a, b, "-o", tmp_path / "out") == 0
    labels_ZYX, geometry = read_label_map(tmp_path / "out" / "x.nii.gz")
    assert geometry == read_geometry(a / "x.nii.gz")
    assert set(np.unique(labels_ZYX[0])) == {0}
    assert set(np.unique(labels_ZYX[1:-1])) == {1}
    assert set(np.unique(labels_ZYX[-1])) == {2}


@pytest.mark.parametrize("voxels_at_once", [1, 100, 2**21])
def test_slabs_of_any_height_give_the_labels_and_means_of_numpy(
    tmp_path, monkeypatch, voxels_at_once
):
    monkeypatch.setattr(module, "SLAB_VOXELS", voxels_at_once)
    models = [
        {case: random_probabilities(10 * seed + place) for place, case in enumerate("xyz")}
        for seed in range(3)
    ]
    folders = [write(tmp_path / str(seed), cases) for seed, cases in enumerate(models)]
    out = tmp_path / "out"
    assert call("-i", *folders, "-o", out, "--save-probabilities", "-np", "2") == 0
    for case in "xyz":
        mean = np.mean([cases[case].astype(np.float32) for cases in models], axis=0)
        expected = mean.argmax(axis=0)
        assert np.array_equal(read_label_map(out / f"{case}.nii.gz")[0], expected)
        kept = np.load(out / f"{case}.npy")
        assert kept.dtype == np.float16
        assert np.allclose(kept, mean, atol=1e-3)
    # Probabilities of an ensemble are probabilities: it can be a member itself.
    assert call("-i", out, folders[0], "-o", tmp_path / "again") == 0


def test_regions_are_painted_where_the_mean_is_above_a_half(tmp_path):
    models = [
        {"x": np.random.default_rng(seed).random((2, *SHAPE)).astype(np.float16)}
        for seed in range(2)
    ]
    folders = [
        write(tmp_path / str(seed), cases, labels=REGIONS) for seed, cases in enumerate(models)
    ]
    assert call("-i", *folders, "-o", tmp_path / "out") == 0
    mean = np.mean([cases["x"].astype(np.float32) for cases in models], axis=0)
    expected = np.zeros(SHAPE, np.uint8)
    expected[mean[0] > 0.5] = 1
    expected[mean[1] > 0.5] = 2
    assert np.array_equal(read_label_map(tmp_path / "out" / "x.nii.gz")[0], expected)


def test_probabilities_by_nnunet_are_averaged_with_ours(tmp_path):
    ours, theirs = random_probabilities(1), random_probabilities(2).astype(np.float32)
    folders = [
        write(tmp_path / "ours", {"x": ours}),
        write(tmp_path / "theirs", {"x": theirs}, npz=True),
    ]
    assert call("-i", *folders, "-o", tmp_path / "out") == 0
    expected = (ours.astype(np.float32) + theirs).argmax(axis=0)
    assert np.array_equal(read_label_map(tmp_path / "out" / "x.nii.gz")[0], expected)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dataset.json",
        "ensemble.json",
        "x.nii.gz",
    ], "what was unfolded is gone"


def test_the_record_names_what_was_averaged(tmp_path):
    folders = [write(tmp_path / name, {"x": random_probabilities(0)}) for name in "ab"]
    (folders[0] / "prediction.json").write_text('{"run_id": "run-1"}')
    call("-i", *folders, "-o", tmp_path / "out")
    record = read_json(tmp_path / "out" / "ensemble.json")
    assert record["members"] == [
        {"folder": str(folders[0]), "prediction": {"run_id": "run-1"}},
        {"folder": str(folders[1]), "prediction": None},
    ]
    assert read_json(tmp_path / "out" / "dataset.json") == description()


def test_every_problem_of_every_case_is_told_before_anything_is_written(tmp_path, capsys):
    good = {case: random_probabilities(0) for case in "tuvwxyz"}
    a, b = write(tmp_path / "a", good), write(tmp_path / "b", good)
    (b / "t.npy").unlink()
    (b / "u.nii.gz").unlink()
    np.save(b / "v.npy", random_probabilities(0, num_classes=4))
    np.save(b / "w.npy", random_probabilities(0, shape=(5, 6, 8)))
    far = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0))
    write_label_map(b / "x.nii.gz", np.zeros(SHAPE, np.uint8), far)
    (b / "y.npy").write_bytes(b"no array")
    np.save(b / "z.npy", np.array([{"an": "object"}]), allow_pickle=True)
    assert call("-i", a, b, "-o", tmp_path / "out") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [sum(f" {case} (" in line for line in lines) for case in "tvwxyz"] == [1] * 6
    assert any("u.nii.gz" in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_values_that_are_no_numbers_are_told_and_the_other_cases_written(tmp_path, capsys):
    broken = random_probabilities(0)
    broken[1, 2, 3, 4] = np.nan
    a = write(tmp_path / "a", {"x": random_probabilities(1), "y": broken})
    b = write(tmp_path / "b", {"x": random_probabilities(1), "y": random_probabilities(2)})
    assert call("-i", a, b, "-o", tmp_path / "out") == 2
    assert "y: the probabilities hold NaN" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["x.nii.gz"]


def test_a_damaged_file_of_nnunet_is_told(tmp_path, capsys):
    a = write(tmp_path / "a", {"x": random_probabilities(1)}, npz=True)
    b = write(tmp_path / "b", {"x": random_probabilities(1)}, npz=True)
    content = bytearray((b / "x.npz").read_bytes())
    (b / "x.npz").write_bytes(content[: len(content) // 2])
    assert call("-i", a, b, "-o", tmp_path / "out") == 2
    assert "x.npz cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"background": 0, "posterior": 1, "anterior": 2}, "other classes"),
        ({"background": 0, "anterior": 1}, "other classes"),
    ],
)
def test_other_classes_are_refused(tmp_path, capsys, labels, said):
    a = write(tmp_path / "a", {"x": random_probabilities(0)})
    b = write(tmp_path / "b", {"x": random_probabilities(0)}, labels=labels)
    assert call("-i", a, b, "-o", tmp_path / "out") == 2
    assert said in capsys.readouterr().err


def test_folders_that_cannot_be_averaged_are_refused(tmp_path, capsys):
    a = write(tmp_path / "a", {"x": random_probabilities(0)})
    assert call("-i", a, "-o", tmp_path / "out") == 2
    assert call("-i", a, a, "-o", tmp_path / "out") == 2
    assert call("-i", a, tmp_path / "none", "-o", tmp_path / "out") == 2
    bare = write(tmp_path / "bare", {})
    write_label_map(bare / "x.nii.gz", blobs(SHAPE, seed=0), GEOMETRY)
    capsys.readouterr()
    assert call("-i", a, bare, "-o", tmp_path / "out") == 2
    assert "Predict and save them" in capsys.readouterr().err
    turned = write(tmp_path / "turned", {"x": random_probabilities(0)}, npz=True)
    (turned / "plans.json").write_text('{"image_reader_writer": "NibabelIOWithReorient"}')
    assert call("-i", a, turned, "-o", tmp_path / "out") == 2
    assert "NibabelIOWithReorient" in capsys.readouterr().err


def test_segmentations_that_are_there_are_not_replaced_unasked(tmp_path, capsys):
    folders = [write(tmp_path / name, {"x": random_probabilities(0)}) for name in "ab"]
    words = ["-i", *folders, "-o", tmp_path / "out"]
    assert call(*words) == 0
    assert call(*words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert call(*words, "--overwrite") == 0
    assert call("-i", *folders, "-o", folders[0], "--overwrite") == 2
