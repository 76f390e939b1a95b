"""Probabilities of whole scans, and what is planned from them."""

import json

import numpy as np
import pytest
from phantoms import blobs, intensities

from sparseunet.annotation.annotation_plan import read_annotation_plan
from sparseunet.cli.main import main
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image, write_label_map
from sparseunet.data.load import load_dataset
from sparseunet.prediction.options import PredictionOptions
from sparseunet.prediction.predict import predict
from sparseunet.prediction.probabilities import predict_probabilities
from sparseunet.runs.load import load_trained_model

SHAPE = (9, 20, 21)
OPTIONS = PredictionOptions(device="cpu", precision="float32", mirror=False)


@pytest.fixture
def dataset(tmp_path):
    """Two scans, of which the first has two annotated slices and the second none."""
    folder = tmp_path / "raw" / "Dataset007_Round"
    geometry = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0))
    for number in range(2):
        labels_ZYX = blobs(SHAPE, seed=number)
        image = folder / "imagesTr" / f"scan{number}_0000.nii.gz"
        write_image(image, intensities(labels_ZYX, seed=number), geometry)
        labels_ZYX[[z for z in range(9) if number or z not in (2, 6)]] = 3
        write_label_map(folder / "labelsTr" / f"scan{number}.nii.gz", labels_ZYX, geometry)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2, "ignore": 3},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return load_dataset(folder)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_most_probable_class_is_the_predicted_one(write_run, dataset, tmp_path, dimensions):
    from sparseunet.data.io import read_label_map

    run = write_run(tmp_path / "run", folds=(0, 1), dimensions=dimensions)
    model = load_trained_model(run, (0, 1))
    files = predict(
        model, dataset.cases, output=tmp_path / "out", file_ending=".nii.gz", options=OPTIONS
    )
    found = list(predict_probabilities(model, dataset.cases, options=OPTIONS))
    assert len(found) == 2
    for probabilities_KZYX, file in zip(found, files, strict=True):
        assert probabilities_KZYX.shape == (3, *SHAPE)
        assert np.allclose(probabilities_KZYX.sum(axis=0), 1, atol=1e-5)
        agree = probabilities_KZYX.argmax(axis=0) == read_label_map(file)[0]
        assert agree.mean() > 0.95, "softmax and resampling change places"


def test_regions_have_a_probability_each(write_run, dataset, tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    run = write_run(tmp_path / "run", labels=labels)
    model = load_trained_model(run, (0,))
    probabilities_KZYX = next(predict_probabilities(model, dataset.cases, options=OPTIONS))
    assert probabilities_KZYX.shape == (2, *SHAPE)
    assert 0 <= probabilities_KZYX.min() <= probabilities_KZYX.max() <= 1


def plan_after(tmp_path, run, *words):
    start = ["--workspace", str(tmp_path), "plan_annotation", "-d", "7", "--after", str(run)]
    return main([*start, "-o", str(tmp_path / "plan.json"), *words])


def test_a_next_round_leaves_annotated_slices_out_and_shows_the_baseline(
    write_run, dataset, tmp_path, capsys
):
    run = write_run(tmp_path / "run", folds=("all",))
    assert plan_after(tmp_path, run, "--budget", "12slices", "--axis", "0") == 0
    plan = read_annotation_plan(tmp_path / "plan.json")
    assert plan.num_slices == 12
    for case in plan.cases:
        if case.case == "scan0":
            assert not {2, 6} & set(case.slices)
    out = capsys.readouterr().out
    assert "8 ranked slices: mean entropy" in out
    assert "4 random slices: mean entropy" in out
    assert plan_after(tmp_path, run, "--budget", "12slices") == 2
    assert "exists already" in capsys.readouterr().err


def test_a_next_round_that_cannot_be_planned_ends_with_code_2(write_run, dataset, tmp_path, capsys):
    run = write_run(tmp_path / "run")
    other = write_run(tmp_path / "other", labels={"background": 0, "whole": [1, 2], "core": [2]})
    for folder, budget, message in (
        (tmp_path / "nothing", "3slices", "is no folder"),
        (run, "17slices", "only 16 are not annotated"),
        (run, "0slices", "buys nothing"),
        (other, "3slices", "knows the classes whole, core"),
    ):
        assert plan_after(tmp_path, folder, "--budget", budget, "--axis", "0") == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "plan.json").exists()
