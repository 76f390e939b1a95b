"""The second stage of a cascade gets the first stage's segmentation of the scan, or refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms import blobs, intensities

from sparseunet.artifacts import read_json
from sparseunet.data.dataset import Case
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.data.io import write_image, write_label_map
from sparseunet.errors import DatasetError, RequestError
from sparseunet.networks.build import build_network, num_input_channels
from sparseunet.prediction.in_memory import predict_image
from sparseunet.prediction.loaded_model import LoadedModel
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.predict import predict
from sparseunet.runs.load import load_previous_stage, load_trained_model

OPTIONS = PredictionOptions(device="cpu", precision="float32", num_workers=1, step=1.0)
GEOMETRY = Geometry(shape=(20, 30, 26), spacing_mm=(1.0, 1.0, 1.0))


class Echo(torch.nn.Module):
    """Repeats what the previous stage said, so that an axis mirrored wrongly shows."""

    def forward(self, patches_BCZYX):
        background = torch.full_like(patches_BCZYX[:, :1], 0.5)
        return torch.cat((background, patches_BCZYX[:, 1:]), dim=1)


@pytest.fixture
def model(write_run, tmp_path):
    """A second stage with random weights."""
    model = load_trained_model(write_run(tmp_path / "run"), [0])
    configuration = replace(
        model.configuration, name="3d_cascade_fullres", previous_stage="3d_lowres"
    )
    torch.manual_seed(1)
    network = build_network(
        configuration.network,
        num_input_channels=num_input_channels(configuration, model.labels),
        num_outputs=3,
        deep_supervision=False,
    )
    torch.save({"weights": network.state_dict()}, model.checkpoints[0])
    return replace(model, configuration=configuration)


@pytest.fixture
def scans(tmp_path):
    """Two scans, and the folder of their segmentations by a first stage."""
    found = []
    for number in range(2):
        labels_ZYX = blobs(GEOMETRY.shape, seed=number)
        image = tmp_path / "in" / f"scan{number}_0000.nii.gz"
        write_image(image, intensities(labels_ZYX, seed=number), GEOMETRY)
        write_label_map(tmp_path / "first" / f"scan{number}.nii.gz", labels_ZYX, GEOMETRY)
        found.append(Case(name=f"scan{number}", images=(image,), label=None))
    return found


def _predict(model, scans, folder, **others):
    return predict(
        model, scans, output=folder / "out", file_ending=".nii.gz", options=OPTIONS, **others
    )


def test_the_first_stage_is_mirrored_and_cut_along_with_the_scan(model):
    labels_ZYX = blobs((30, 40, 36), seed=2)
    image = Image(
        voxels_CZYX=intensities(labels_ZYX, seed=2)[None],
        geometry=Geometry(shape=labels_ZYX.shape, spacing_mm=(1.0, 1.0, 1.0)),
    )
    loaded = LoadedModel(model=model, networks=[Echo()], device=torch.device("cpu"), precision=None)
    answer_ZYX = predict_image(loaded, image, previous_ZYX=labels_ZYX)
    assert np.array_equal(answer_ZYX, labels_ZYX)


def test_another_first_stage_gives_another_result_in_memory_and_from_files(model, scans, tmp_path):
    image = Image(
        voxels_CZYX=intensities(blobs(GEOMETRY.shape, seed=0), seed=0)[None], geometry=GEOMETRY
    )
    one_ZYX, other_ZYX = (
        predict_image(model, image, options=OPTIONS, previous_ZYX=blobs(GEOMETRY.shape, seed=seed))
        for seed in (0, 7)
    )
    assert not np.array_equal(one_ZYX, other_ZYX)
    with pytest.raises(RequestError, match="3d_lowres"):
        predict_image(model, image, options=OPTIONS)


def test_predictions_say_which_segmentations_they_refine_and_are_not_mixed(model, scans, tmp_path):
    first = tmp_path / "first"
    files = _predict(model, scans, tmp_path, previous_stage=first)
    recorded = read_json(tmp_path / "out" / "prediction.json")["previous_stage"]
    assert sorted(recorded) == ["scan0", "scan1"]
    files[0].unlink()
    assert _predict(model, scans, tmp_path, previous_stage=first, existing="skip") == files
    (first / "scan1.nii.gz").unlink()
    _predict(model, scans, tmp_path, previous_stage=first, existing="skip")
    assert read_json(tmp_path / "out" / "prediction.json")["previous_stage"] == recorded
    write_label_map(first / "scan1.nii.gz", blobs(GEOMETRY.shape, seed=9), GEOMETRY)
    with pytest.raises(RequestError, match=r"other segmentations of the previous stage \(scan1\)"):
        _predict(model, scans, tmp_path, previous_stage=first, existing="skip")


def test_every_segmentation_that_is_missing_or_misfits_is_named_before_anything_is_predicted(
    model, scans, tmp_path
):
    first = tmp_path / "first"
    (first / "scan0.nii.gz").unlink()
    small = Geometry(shape=(3, 4, 5), spacing_mm=(1.0, 1.0, 1.0))
    write_label_map(first / "scan1.nii.gz", np.zeros(small.shape, np.uint8), small)
    third = Case(name="scan2", images=scans[0].images, label=None)
    (first / "scan2.nii.gz").write_bytes(b"no labels")
    with pytest.raises(DatasetError) as caught:
        _predict(model, [*scans, third], tmp_path, previous_stage=first)
    found = {problem.file.rsplit("/", 1)[1]: problem.found for problem in caught.value.problems}
    assert sorted(found) == ["scan0.nii.gz", "scan1.nii.gz", "scan2.nii.gz"]
    assert "no such file" in found["scan0.nii.gz"]
    assert "shape" in found["scan1.nii.gz"]
    assert not (tmp_path / "out").exists()


def test_label_values_that_the_dataset_does_not_know_fail_that_scan_alone(model, scans, tmp_path):
    write_label_map(
        tmp_path / "first" / "scan0.nii.gz", np.full(GEOMETRY.shape, 5, np.uint8), GEOMETRY
    )
    with pytest.raises(RequestError, match=r"scan0(.|\n)*the values \[5\]"):
        _predict(model, scans, tmp_path, previous_stage=tmp_path / "first")
    assert (tmp_path / "out" / "scan1.nii.gz").is_file()


def test_a_previous_stage_without_use_or_without_folder_is_refused(
    model, scans, write_run, tmp_path
):
    plain = load_trained_model(write_run(tmp_path / "plain"), [0])
    with pytest.raises(RequestError, match="no previous stage"):
        _predict(plain, scans, tmp_path, previous_stage=tmp_path / "first")
    with pytest.raises(RequestError, match="segmentations of 3d_lowres"):
        _predict(model, scans, tmp_path)
    with pytest.raises(RequestError, match="another output folder"):
        _predict(model, scans, tmp_path, previous_stage=tmp_path / "out")
    with pytest.raises(RequestError, match="give the folder of its segmentations"):
        load_previous_stage(model, [0])
