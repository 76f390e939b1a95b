"""Predictions lie on the grid of their scans, whatever happens to the other scans."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms import blobs, intensities

from sparseunet.data.dataset import Case
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.data.io import read_geometry, read_image, read_label_map, write_image
from sparseunet.data.load import find_scans
from sparseunet.errors import RequestError, SparseUNetError
from sparseunet.prediction.in_memory import predict_image
from sparseunet.prediction.loaded_model import LoadedModel, load_networks
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.predict import predict
from sparseunet.preprocessing.case import preprocess_case
from sparseunet.runs.load import load_trained_model

CPU = torch.device("cpu")
QUICK = PredictionOptions(device="cpu", precision="float32", mirror=False, num_workers=1)
OBLIQUE = Geometry(
    shape=(9, 30, 21),
    spacing_mm=(2.5, 0.8, 1.1),
    origin_mm=(-12.5, 30.25, 7.0),
    direction=(0.0, -1.0, 0.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0),
)


def _image(geometry=OBLIQUE, seed=0):
    voxels_ZYX = intensities(blobs(geometry.shape, seed=seed), seed=seed)
    return Image(voxels_CZYX=voxels_ZYX[None], geometry=geometry)


def _write_scans(folder, count=3, geometry=OBLIQUE):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        image = _image(geometry, seed=number)
        write_image(folder / f"scan{number}_0000.nii.gz", image.voxels_CZYX[0], geometry)
    return find_scans(folder, file_ending=".nii.gz", num_channels=1)


def _loaded(model, precision=None):
    networks = load_networks(model, CPU)
    return LoadedModel(model=model, networks=networks, device=CPU, precision=precision)


def _bytes(paths):
    return [path.read_bytes() for path in paths]


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_a_segmentation_lies_on_the_grid_of_its_scan(write_run, tmp_path, dimensions, transpose):
    run = write_run(tmp_path / "run", dimensions=dimensions, transpose=transpose)
    labels_ZYX = predict_image(load_trained_model(run, [0]), _image(), options=QUICK)
    assert labels_ZYX.shape == OBLIQUE.shape
    assert labels_ZYX.dtype == np.uint8
    assert set(np.unique(labels_ZYX)) <= {0, 1, 2}


def test_a_scan_turned_in_its_file_gets_the_turned_segmentation(write_run, tmp_path):
    """A plan that transposes (z, y, x) to (x, z, y) sees the same voxels as one that need not."""
    plain = load_trained_model(write_run(tmp_path / "plain"), [0])
    turning = load_trained_model(write_run(tmp_path / "turning", transpose=(2, 0, 1)), [0])
    cube = Geometry(shape=(18, 30, 22), spacing_mm=(1.0, 1.0, 1.0))
    image = _image(cube)
    turned_voxels = image.voxels_CZYX.transpose(0, 2, 3, 1)
    turned = Image(
        voxels_CZYX=np.ascontiguousarray(turned_voxels),
        geometry=Geometry(shape=turned_voxels.shape[1:], spacing_mm=(1.0, 1.0, 1.0)),
    )
    expected = predict_image(plain, image, options=QUICK).transpose(1, 2, 0)
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(predict_image(turning, turned, options=QUICK), expected)


def test_regions_are_painted_with_declared_values(write_run, tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    model = load_trained_model(write_run(tmp_path / "run", labels=labels), [0])
    assert set(np.unique(predict_image(model, _image(), options=QUICK))) <= {0, 1, 2}


def test_folds_are_averaged_as_logits(write_run, tmp_path):
    run = write_run(tmp_path / "run", folds=(0, 1))
    image = _image()

    def logits(folds):
        model = load_trained_model(run, folds)
        case = preprocess_case("x", image, None, plan=model.plan, configuration=model.configuration)
        return torch.cat(list(_loaded(model).logits(case)), dim=1).numpy()

    first, second, both = logits([0]), logits([1]), logits([0, 1])
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-5)


def test_half_precision_changes_few_voxels(write_run, tmp_path):
    model = load_trained_model(write_run(tmp_path / "run"), [0])
    exact, half = (
        predict_image(_loaded(model, precision), _image()) for precision in (None, torch.bfloat16)
    )
    assert (exact != half).mean() < 0.05


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch compiles with a C++ compiler")
def test_a_compiled_network_says_the_same(write_run, tmp_path):
    model = load_trained_model(write_run(tmp_path / "run"), [0])
    compiled = replace(QUICK, compiles=True)
    plain, fast = (predict_image(model, _image(), options=each) for each in (QUICK, compiled))
    assert len(np.unique(plain)) > 1
    assert (plain != fast).mean() < 0.01


def test_files_hold_what_is_predicted_in_memory_and_say_where_it_comes_from(write_run, tmp_path):
    run = write_run(tmp_path / "run", folds=(0, "all"))
    model = load_trained_model(run, [0, "all"])
    scans = _write_scans(tmp_path / "in")
    written = predict(model, scans, output=tmp_path / "out", file_ending=".nii.gz", options=QUICK)
    assert [path.name for path in written] == ["scan0.nii.gz", "scan1.nii.gz", "scan2.nii.gz"]
    for scan, path in zip(scans, written, strict=True):
        labels_ZYX, geometry = read_label_map(path)
        assert geometry == read_geometry(scan.images[0])
        expected = predict_image(model, read_image(scan.images), options=QUICK)
        np.testing.assert_array_equal(labels_ZYX, expected)
    description = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert description["run_id"] == "run"
    assert description["options"]["mirror"] is False
    files = [weight["file"] for weight in description["weights"]]
    assert files == ["fold_0/checkpoint_final.pt", "fold_all/checkpoint_final.pt"]
    assert all(len(weight["sha256"]) == 64 for weight in description["weights"])
    dataset = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "anterior": 1, "posterior": 2}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "prediction.json",
        "prediction_cases.json",
        "dataset.json",
        *(path.name for path in written),
    }


def test_the_same_request_gives_the_same_bytes(write_run, tmp_path):
    model = load_trained_model(write_run(tmp_path / "run"), [0])
    scans = _write_scans(tmp_path / "in", count=2)
    first, second = (
        predict(model, scans, output=tmp_path / name, file_ending=".nii.gz", options=QUICK)
        for name in ("first", "second")
    )
    assert _bytes(first) == _bytes(second)


def test_existing_segmentations_are_neither_replaced_nor_kept_unasked(write_run, tmp_path):
    model = load_trained_model(write_run(tmp_path / "run"), [0])
    scans = _write_scans(tmp_path / "in")
    out = {"output": tmp_path / "out", "file_ending": ".nii.gz", "options": QUICK}
    first = predict(model, scans[:2], **out)
    first[0].write_bytes(b"kept")
    with pytest.raises(RequestError, match=r"scan0.nii.gz, scan1.nii.gz already"):
        predict(model, scans, **out)
    assert len(predict(model, scans, **out, existing="skip")) == 3
    assert first[0].read_bytes() == b"kept"
    assert (tmp_path / "out" / "scan2.nii.gz").is_file()
    predict(model, scans, **out, existing="overwrite")
    assert first[0].read_bytes() != b"kept"


@pytest.mark.parametrize("existing", ["refuse", "skip", "overwrite"])
@pytest.mark.parametrize("alias", [False, True], ids=["same folder", "link to it"])
def test_a_scan_is_never_replaced_by_its_segmentation(write_run, tmp_path, existing, alias):
    model = load_trained_model(write_run(tmp_path / "run"), [0])
    (scan,) = _write_scans(tmp_path / "in", count=1)
    path = tmp_path / "in" / "scan0.nii.gz"
    scan.images[0].rename(path)
    before = path.read_bytes()
    output = tmp_path / "in"
    if alias:
        output = tmp_path / "alias"
        output.symlink_to(tmp_path / "in")
    with pytest.raises(RequestError, match="take the place of the scan") as refusal:
        predict(
            model,
            [replace(scan, images=(path,))],
            output=output,
            file_ending=".nii.gz",
            options=QUICK,
            existing=existing,
        )
    assert refusal.value.setting == "output"
    assert path.read_bytes() == before
    assert [one.name for one in (tmp_path / "in").iterdir()] == ["scan0.nii.gz"]


def test_predictions_of_two_models_are_not_mixed(write_run, tmp_path):
    first = load_trained_model(write_run(tmp_path / "first"), [0])
    second = load_trained_model(write_run(tmp_path / "second", seed=5), [0])
    scans = _write_scans(tmp_path / "in", count=2)
    out = {"output": tmp_path / "out", "file_ending": ".nii.gz"}
    predict(first, scans[:1], **out, options=QUICK)
    with pytest.raises(RequestError, match="run first with other weights"):
        predict(second, scans, **out, options=QUICK, existing="skip")
    mirrored = PredictionOptions(device="cpu", precision="float32", num_workers=1)
    with pytest.raises(RequestError, match="not mixed"):
        predict(first, scans, **out, options=mirrored, existing="skip")
    (tmp_path / "out" / "prediction.json").unlink()
    with pytest.raises(RequestError, match=r"no prediction\.json"):
        predict(first, scans, **out, options=QUICK, existing="skip")


def test_a_scan_that_cannot_be_read_does_not_lose_the_others(write_run, tmp_path):
    model = load_trained_model(write_run(tmp_path / "run"), [0])
    scans = _write_scans(tmp_path / "in")
    truncated = scans[1].images[0]
    truncated.write_bytes(truncated.read_bytes()[:2000])
    with pytest.raises(RequestError, match=r"1 of 3 scans(.|\n)*scan1: "):
        predict(model, scans, output=tmp_path / "out", file_ending=".nii.gz", options=QUICK)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz"))
    assert names == ["scan0.nii.gz", "scan2.nii.gz"]


def test_a_failure_that_is_not_the_datas_is_a_failure_of_the_work(write_run, tmp_path):
    model = load_trained_model(write_run(tmp_path / "run"), [0])
    scans = _write_scans(tmp_path / "in", count=2)
    (tmp_path / "out" / "scan0.nii.gz" / "in_the_way").mkdir(parents=True)
    with pytest.raises(SparseUNetError, match="scan0") as caught:
        predict(
            model,
            scans,
            output=tmp_path / "out",
            file_ending=".nii.gz",
            options=QUICK,
            existing="overwrite",
        )
    assert caught.value.exit_code == 1
    assert (tmp_path / "out" / "scan1.nii.gz").is_file()


def test_scans_that_do_not_fit_the_model_are_refused(write_run, tmp_path):
    model = load_trained_model(write_run(tmp_path / "run"), [0])
    image = _image()
    two_channels = Image(
        voxels_CZYX=np.repeat(image.voxels_CZYX, 2, axis=0), geometry=image.geometry
    )
    with pytest.raises(RequestError, match="2 channels; the model was trained on 1"):
        predict_image(model, two_channels, options=QUICK)
    plane = Geometry(
        shape=(1, 20, 20),
        spacing_mm=(999.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 1.0),
        dimensions=2,
    )
    with pytest.raises(RequestError, match="single plane"):
        predict_image(model, _image(plane), options=QUICK)


def test_scans_of_the_same_name_are_refused(write_run, tmp_path):
    model = load_trained_model(write_run(tmp_path / "run"), [0])
    scans = [
        Case(name="scan", images=(tmp_path / folder / "scan_0000.nii.gz",), label=None)
        for folder in "ab"
    ]
    with pytest.raises(RequestError, match="same name"):
        predict(model, scans, output=tmp_path / "out", file_ending=".nii.gz", options=QUICK)


def test_no_scans_are_no_predictions(write_run, tmp_path):
    model = load_trained_model(write_run(tmp_path / "run"), [0])
    assert predict(model, [], output=tmp_path / "out", file_ending=".nii.gz") == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{"step": 0.0}, {"step": 1.1}, {"num_workers": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(RequestError, match="found"):
        PredictionOptions(**options)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_segmentations_of_real_scans_have_their_geometry(
    write_run, tmp_path, data_root, dimensions
):
    (tmp_path / "in").mkdir()
    images = sorted((data_root / "Dataset004_Hippocampus" / "imagesTs").glob("*.nii.gz"))[:3]
    for image in images:
        shutil.copy(image, tmp_path / "in")
    scans = find_scans(tmp_path / "in", file_ending=".nii.gz", num_channels=1)
    model = load_trained_model(write_run(tmp_path / "run", dimensions=dimensions), [0])
    written = predict(model, scans, output=tmp_path / "out", file_ending=".nii.gz", options=QUICK)
    assert len(written) == 3
    for scan, path in zip(scans, written, strict=True):
        assert read_geometry(path) == read_geometry(scan.images[0])
