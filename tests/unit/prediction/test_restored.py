"""Painting slab by slab, while logits are being computed, changes nothing about the result."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms import blobs, intensities

from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.data.io import read_label_map, write_image
from sparseunet.data.labels import LabelSchema
from sparseunet.data.load import find_scans
from sparseunet.data.probabilities import entropy
from sparseunet.errors import SparseUNetError
from sparseunet.prediction import memory
from sparseunet.prediction.in_memory import predict_image
from sparseunet.prediction.loaded_model import load_onto_device, prepare
from sparseunet.prediction.memory import MemoryLimit
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.predict import predict
from sparseunet.prediction.probabilities import predict_image_probabilities
from sparseunet.prediction.restored import Restored, confidence_percent, highest_entropy
from sparseunet.preprocessing import resample
from sparseunet.preprocessing.restore import restore_labels
from sparseunet.runs.load import load_trained_model
from sparseunet.workspace import CONFIDENCE_MAP, uncertainty_file

REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
OPTIONS = PredictionOptions(device="cpu", precision="float32", num_workers=2)


def _scan(shape, spacing_mm, *, seed=0, margin=0):
    labels_ZYX = blobs(shape, seed=seed)
    voxels_ZYX = intensities(labels_ZYX, seed=seed)
    if margin:
        voxels_ZYX[:margin] = voxels_ZYX[:, -margin:] = 0
    return Image(
        voxels_CZYX=voxels_ZYX[None], geometry=Geometry(shape=shape, spacing_mm=spacing_mm)
    )


@pytest.mark.parametrize(
    ("labels", "dimensions", "shape", "spacing_mm", "margin"),
    [
        (None, 3, (30, 30, 26), (1.0, 1.0, 1.0), 3),
        (None, 2, (12, 40, 36), (2.5, 0.8, 0.7), 0),
        (REGIONS, 3, (12, 40, 36), (2.5, 0.8, 0.7), 0),  # finer and coarser than the network's grid
        (REGIONS, 2, (9, 40, 36), (5.0, 1.0, 1.0), 2),
        (None, 3, (9, 40, 36), (5.0, 1.0, 1.0), 2),  # slices so far apart that none is interpolated
    ],
)
def test_slabs_give_the_labels_of_the_whole_bit_for_bit(
    write_run, tmp_path, monkeypatch, labels, dimensions, shape, spacing_mm, margin
):
    monkeypatch.setattr(resample, "SLAB_VOXELS", 4000)  # so that a small scan has many slabs
    run = write_run(
        tmp_path / "run", folds=(0, 1), labels=labels, dimensions=dimensions, transpose=(1, 0, 2)
    )
    loaded = load_onto_device(load_trained_model(run, (0, 1)), OPTIONS)
    case = prepare("scan", _scan(shape, spacing_mm, margin=margin), loaded.model)
    logits_KZYX = torch.cat(list(loaded.logits(case)), dim=1).numpy()
    whole_ZYX = restore_labels(logits_KZYX, case.restoration, labels=loaded.model.labels)
    assert len(np.unique(whole_ZYX)) > 1
    restored = Restored(case.restoration, loaded.model.labels)
    with ThreadPoolExecutor(3) as executor:
        waiting = restored.painting(
            loaded.logits(case), executor, num_channels=loaded.num_channels, num_waiting=2
        )
        for future in waiting:
            future.result()
    assert np.array_equal(restored.labels_ZYX, whole_ZYX)


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["classes", "regions"])
def test_a_limit_on_memory_changes_no_byte_of_the_segmentations(write_run, tmp_path, labels):
    model = load_trained_model(write_run(tmp_path / "run", labels=labels), [0])
    (tmp_path / "in").mkdir()
    for number, shape in enumerate([(40, 30, 26), (9, 40, 36), (50, 20, 20)]):
        image = _scan(shape, (1.0, 1.5, 0.9), seed=number)
        path = tmp_path / "in" / f"scan{number}_0000.nii.gz"
        write_image(path, image.voxels_CZYX[0], image.geometry)
    scans = find_scans(tmp_path / "in", file_ending=".nii.gz", num_channels=1)
    free, limited = (
        predict(
            model,
            scans,
            output=tmp_path / name,
            file_ending=".nii.gz",
            options=PredictionOptions(device="cpu", precision="float32", max_memory_gib=limit),
        )
        for name, limit in (("free", None), ("limited", 0.001))
    )
    assert [path.read_bytes() for path in free] == [path.read_bytes() for path in limited]
    assert len(list((tmp_path / "limited").iterdir())) == 3 + 3, "nothing temporary is left"


def test_what_fits_neither_into_memory_nor_onto_the_disk_is_refused_with_the_numbers(tmp_path):
    limit = MemoryLimit(max_bytes=1, folder=tmp_path)
    with pytest.raises(SparseUNetError, match=r"needs 4000000\.0 GiB .* GiB free"):
        limit.zeros((10**6, 2**30))


def test_memory_has_room_up_to_the_limit():
    held = memory.resident_bytes()
    assert held > 2**20
    limit = MemoryLimit(max_bytes=held + 2**30)
    assert limit.zeros((2**20,)).is_in_memory
    reserving = replace(limit, reserved_bytes=2**31)
    assert not reserving.zeros((2**20,)).is_in_memory
    assert not limit.zeros((2**29,)).is_in_memory
    assert MemoryLimit(reserved_bytes=2**60).zeros((2**20,)).is_in_memory


def test_zeros_in_a_file_keep_what_is_written_when_their_pages_leave_memory(tmp_path):
    buffer = MemoryLimit(max_bytes=1, folder=tmp_path).zeros((2**22,))
    assert not buffer.is_in_memory
    buffer.values.add_(3)
    buffer.forget()
    assert (buffer.values == 3).all()


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["classes", "regions"])
def test_the_labels_are_those_of_the_highest_probability(write_run, tmp_path, labels):
    model = load_trained_model(write_run(tmp_path / "run", labels=labels), [0])
    voxels_ZYX = _scan((20, 40, 36), (1.0, 1.0, 1.0)).voxels_CZYX[0]
    given = {"spacing_mm": (2.5, 0.8, 0.7), "options": OPTIONS}
    labels_ZYX = predict_image(model, voxels_ZYX, **given)
    probabilities_KZYX = predict_image_probabilities(model, voxels_ZYX, **given)
    if labels is None:
        assert np.array_equal(probabilities_KZYX.argmax(0), labels_ZYX)
        assert np.allclose(probabilities_KZYX.sum(0), 1, atol=1e-5)
    else:
        expected_ZYX = np.where(probabilities_KZYX[0] > 0.5, 1, 0)
        expected_ZYX[probabilities_KZYX[1] > 0.5] = 2
        assert np.array_equal(expected_ZYX, labels_ZYX)


def test_entropy_is_largest_where_nothing_is_known_and_zero_where_all_is():
    alike_KZYX, sure_KZYX = np.full((4, 1, 1, 2), 0.25), np.zeros((4, 1, 1, 2))
    sure_KZYX[2] = 1
    largest = highest_entropy(
        LabelSchema(classes={name: number for number, name in enumerate("abcd")}, regions={})
    )
    assert np.allclose(entropy(alike_KZYX, has_regions=False), largest)
    assert np.allclose(entropy(sure_KZYX, has_regions=False), 0)
    halves_KZYX = np.full((3, 1, 1, 2), 0.5)
    assert np.allclose(entropy(halves_KZYX, has_regions=True), 3 * np.log(2))


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["classes", "regions"])
def test_confidence_is_the_probability_of_what_was_decided(
    write_run, tmp_path, monkeypatch, labels
):
    monkeypatch.setattr(resample, "SLAB_VOXELS", 4000)
    model = load_trained_model(write_run(tmp_path / "run", labels=labels), [0])
    image = _scan((20, 30, 26), (1.0, 1.5, 0.75), margin=3)
    write_image(tmp_path / "in" / "scan_0000.nii.gz", image.voxels_CZYX[0], image.geometry)
    scans = find_scans(tmp_path / "in", file_ending=".nii.gz", num_channels=1)
    (file,) = predict(
        model,
        scans,
        output=tmp_path / "out",
        file_ending=".nii.gz",
        options=replace(OPTIONS, confidence=True),
    )
    probabilities_KZYX = predict_image_probabilities(model, image, options=OPTIONS)
    if labels is None:
        expected_ZYX = probabilities_KZYX.max(axis=0)
    else:
        expected_ZYX = np.maximum(probabilities_KZYX, 1 - probabilities_KZYX).min(axis=0)
    percent_ZYX, geometry = read_label_map(uncertainty_file(file, "scan", CONFIDENCE_MAP))
    assert geometry == image.geometry
    off_ZYX = 100 * expected_ZYX - percent_ZYX
    assert off_ZYX.min() > -0.01
    assert off_ZYX.max() < 1
    assert (percent_ZYX[:3] == 100).all()
    assert len(np.unique(percent_ZYX)) > 5


def test_whole_percents_are_never_rounded_up():
    sure = np.array([0.7, 0.699, 0.995, 1.0, 1 / 3], np.float32)
    found = confidence_percent(np.stack([sure, 1 - sure, 0 * sure]), has_regions=False)
    assert found.tolist() == [70, 69, 99, 100, 66]
