"""What prediction saves in memory changes no bit, and what it counts is what it takes."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms import blobs, intensities

from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.data.io import read_image, write_image
from sparseunet.data.load import find_scans
from sparseunet.prediction import estimate, loaded_model, restored
from sparseunet.prediction.estimate import bytes_of_scan
from sparseunet.prediction.in_memory import predict_image
from sparseunet.prediction.loaded_model import load_onto_device, prepare
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.restored import Restored
from sparseunet.preprocessing.case import preprocess_case
from sparseunet.preprocessing.crop import crop_box
from sparseunet.runs.load import load_trained_model

OPTIONS = PredictionOptions(device="cpu", precision="float32", num_workers=2)


def _scan(shape=(20, 40, 36), spacing_mm=(1.0, 0.8, 0.7), margin=0):
    voxels_ZYX = intensities(blobs(shape, seed=0), seed=0)
    if margin:
        voxels_ZYX[:margin] = 0
    return Image(
        voxels_CZYX=voxels_ZYX[None], geometry=Geometry(shape=shape, spacing_mm=spacing_mm)
    )


@pytest.mark.parametrize("use_mask", [False, True])
@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (1, 0, 2)])
def test_a_scan_is_prepared_as_for_training_bit_for_bit(
    write_run, tmp_path, use_mask, margin, transpose
):
    model = load_trained_model(write_run(tmp_path / "run", transpose=transpose), [0])
    model = replace(
        model, configuration=replace(model.configuration, use_mask_for_norm=(use_mask,))
    )
    expected = preprocess_case(
        "scan", _scan(margin=margin), None, plan=model.plan, configuration=model.configuration
    )
    for in_place in (False, True):
        case = prepare("scan", _scan(margin=margin), model, in_place=in_place)
        assert np.array_equal(case.image_CZYX, expected.image_CZYX)
        assert case.restoration == expected.restoration


def test_voxels_given_by_a_caller_stay_as_they_are(write_run, tmp_path):
    model = load_trained_model(write_run(tmp_path / "run"), [0])
    image = _scan()
    before_CZYX = image.voxels_CZYX.copy()
    predict_image(model, image, options=OPTIONS)
    predict_image(model, image.voxels_CZYX, spacing_mm=(1, 1, 1), options=OPTIONS)
    assert np.array_equal(image.voxels_CZYX, before_CZYX)


def test_the_crop_box_does_not_depend_on_holes():
    shell_ZYX = np.zeros((9, 10, 11), np.float32)
    shell_ZYX[2:7, 1:8, 3:9] = 1
    shell_ZYX[3:6, 2:7, 4:8] = 0
    filled_ZYX, *filled = crop_box(shell_ZYX[None])
    open_ZYX, *as_is = crop_box(shell_ZYX[None], fill_holes=False)
    assert filled == as_is
    assert filled_ZYX.sum() > open_ZYX.sum()


def test_slabs_that_wait_for_each_other_give_the_same_labels(write_run, tmp_path, monkeypatch):
    loaded = load_onto_device(load_trained_model(write_run(tmp_path / "run"), [0]), OPTIONS)
    case = prepare("scan", _scan(), loaded.model)
    free, waiting = (Restored(case.restoration, loaded.model.labels) for _ in range(2))
    free.paint_all(loaded.logits(case), num_channels=loaded.num_channels)
    monkeypatch.setattr(restored, "_WAITING_BYTES", 1)
    with ThreadPoolExecutor(2) as executor:
        left = waiting.painting(
            loaded.logits(case), executor, num_channels=loaded.num_channels, num_waiting=2
        )
        assert len(left) == 1, "one at a time where one alone is too large"
        left[0].result()
    assert np.array_equal(free.labels_ZYX, waiting.labels_ZYX)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.1, 1.1, 1.1), (0.8, 0.9, 0.8)])
def test_a_scan_is_prepared_in_no_more_memory_than_is_counted(
    write_run, tmp_path, monkeypatch, spacing_mm
):
    for module in (estimate, loaded_model):
        monkeypatch.setattr(module, "BYTES_OF_SLABS", 2**21)
    loaded = load_onto_device(load_trained_model(write_run(tmp_path / "run"), [0]), OPTIONS)
    image = _scan((220, 64, 60), spacing_mm)
    write_image(tmp_path / "scan_0000.nii.gz", image.voxels_CZYX[0], image.geometry)
    (scan,) = find_scans(tmp_path, file_ending=".nii.gz", num_channels=1)
    predict_image(loaded.model, _scan(), options=OPTIONS)  # what is loaded once is not the scan's
    tracemalloc.start()
    try:
        prepare("scan", read_image(scan.images), loaded.model, in_place=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < bytes_of_scan(loaded, scan)


def test_logits_are_counted_as_many_as_there_are(write_run, tmp_path, monkeypatch):
    loaded = load_onto_device(load_trained_model(write_run(tmp_path / "run"), [0]), OPTIONS)
    case = prepare("scan", _scan((60, 40, 36), (1.0, 1.0, 1.0)), loaded.model)
    sizes = []
    zeros = torch.zeros

    def recorded(shape, **arguments):
        sizes.append(4 * int(np.prod(shape)))
        return zeros(shape, **arguments)

    monkeypatch.setattr(torch, "zeros", recorded)
    list(loaded.logits(case))
    assert sizes[0] <= loaded.bytes_of_logits(case.image_CZYX.shape[1:]) < 1.5 * sizes[0]
