"""Everything the commands do can be called: prepare, train, load, predict, evaluate."""

import inspect
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest

import sparseunet as su
from sparseunet.cli.main import main
from sparseunet.data.io import read_image, read_label_map
from sparseunet.data.synthetic import make_dataset

SMALL = {"base_features": 4, "batch_size": 2, "precision": "float32", "num_workers": 0}
FLAGS = [
    "--base-features",
    "4",
    "--batch-size",
    "2",
    "--precision",
    "float32",
    "--num-workers",
    "0",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("from_python")
    make_dataset(root / "raw" / "Dataset001_Dense", num_training=5, num_test=2)
    su.simulate_annotation(
        su.load_dataset(root / "raw" / "Dataset001_Dense"),
        density=0.2,
        selector="fixed",
        axis=0,
        seed=0,
        folder=root / "raw" / "Dataset002_Sparse",
    )
    return root


def test_five_functions_go_from_a_raw_dataset_to_scores(place, tmp_path):
    raw, predictions = place / "raw" / "Dataset002_Sparse", tmp_path / "predictions"
    dataset = su.load_dataset(str(raw))
    prepared = su.prepare(dataset, workspace=str(place / "work"), configurations=["3d_fullres"])
    run = su.train(
        prepared,
        "3d_fullres",
        fold=0,
        recipe=su.Recipe(iterations=4, seed=0),
        device="cpu",
        **SMALL,
    )
    model = su.load_model(run)
    files = su.predict(model, str(raw / "imagesTs"), output=str(predictions))
    assert [file.name for file in files] == sorted(
        path.name for path in (raw / "labelsTs").iterdir()
    )
    scan = read_image([sorted((raw / "imagesTs").iterdir())[0]])
    labels_ZYX = su.predict_image(model, scan.voxels_CZYX[0], spacing_mm=scan.geometry.spacing_mm)
    assert np.array_equal(labels_ZYX, read_label_map(files[0])[0])
    scores = su.evaluate(str(raw / "labelsTs"), str(predictions))
    assert set(scores.classes) == set(dataset.labels.foreground)
    rows = scores.table()
    assert len(rows) == len(files) * len(scores.classes)
    assert run.has_finished
    assert run.validation is not None
    assert len(run.log) == run.record.recipe.epochs


def test_a_command_and_a_script_that_ask_for_the_same_get_the_same_run(place, capsys):
    workspace = ["--workspace", str(place)]
    assert main([*workspace, "plan_and_preprocess", "-d", "2", "-c", "2d", "-np", "1"]) == 0
    words = ["train", "2", "2d", "all", *FLAGS, "--iterations", "3", "-device", "cpu"]
    assert main([*workspace, *words]) == 0
    (by_command,) = (place / "results" / "Dataset002_Sparse" / "2d").iterdir()
    capsys.readouterr()
    prepared = su.load_prepared(place, "2")
    run = su.train(prepared, "2d", "all", recipe=su.Recipe(iterations=3), device="cpu", **SMALL)
    assert run.folder.resolve() == by_command.resolve()
    mapping = {"iterations": 3}
    again = su.train(prepared, "2d", "all", recipe=mapping, device="cpu", **SMALL)
    assert again.folder == run.folder


def test_a_plan_is_written_and_read_and_what_is_prepared_is_found_by_path_and_dataset(
    place, tmp_path
):
    raw = place / "raw" / "Dataset002_Sparse"
    prepared = su.prepare(raw, workspace=place / "work", configurations=["2d"])
    su.write_plan(str(tmp_path / "plans.json"), prepared.plan)
    assert su.read_plan(str(tmp_path / "plans.json")) == prepared.plan
    with pytest.raises(su.errors.RequestError, match="no plans file"):
        su.read_plan(tmp_path / "missing.json")
    for workspace, dataset in ((str(place / "work"), su.load_dataset(raw)), (place / "work", raw)):
        assert su.load_prepared(workspace, dataset).plan == prepared.plan


def test_a_call_per_epoch_and_a_stop_signal_reach_the_training(place):
    prepared = su.prepare(
        place / "raw" / "Dataset002_Sparse", workspace=place / "work", configurations=["2d"]
    )
    seen, signals = [], iter([None, None, None, 15])
    asked = {"recipe": {"iterations": 6, "iterations_per_epoch": 2}, "device": "cpu", **SMALL}
    with pytest.raises(su.errors.SparseUNetError, match="stopped after step 3"):
        su.train(prepared, "2d", "all", stop_signal=lambda: next(signals), **asked)
    run = su.train(
        prepared, "2d", "all", on_epoch=lambda run, log: seen.append((run, len(log))), **asked
    )
    assert seen == [(run, 2), (run, 3)]


def test_the_pipeline_is_these_five_functions(place):
    result = su.run_pipeline(
        place / "raw" / "Dataset002_Sparse",
        workspace=place / "pipeline",
        configuration="2d",
        recipe={"iterations": 2},
        device="cpu",
        **SMALL,
    )
    assert result.run.has_finished
    assert 0 <= result.scores.foreground_mean("Dice") <= 1
    assert len(list(result.predictions.glob("*.nii.gz"))) == 2


@pytest.mark.parametrize("name", [each for each in su.__all__ if each != "__version__"])
def test_a_public_dataclass_says_its_fields_in_its_docstring(name):
    value = getattr(su, name)
    if not (inspect.isclass(value) and is_dataclass(value)):
        return
    lacking = [each.name for each in fields(value) if f"{each.name}:" not in value.__doc__]
    assert lacking == []


def test_what_cannot_be_split_is_told_to_train_on_all(tmp_path):
    raw = tmp_path / "raw" / "Dataset009_One"
    make_dataset(raw, num_training=1, num_test=0)
    prepared = su.prepare(raw, workspace=tmp_path, configurations=["2d"])
    with pytest.raises(
        su.errors.RequestError, match=r"one case.* train on the fold all"
    ) as refusal:
        su.train(prepared, "2d", 0, recipe={"iterations": 1}, device="cpu", **SMALL)
    assert refusal.value.setting == "fold"
    assert su.train(prepared, "2d", recipe={"iterations": 1}, device="cpu", **SMALL).has_finished


def test_learning_from_thin_patches_leaves_the_patch_of_prediction_as_it_is_planned(
    place, tmp_path
):
    raw = place / "raw" / "Dataset002_Sparse"
    prepared = su.prepare(raw, workspace=place / "work", configurations=["3d_fullres"])
    planned = prepared.plan.configurations["3d_fullres"]
    thin = (planned.patch_size[0] // 2, *planned.patch_size[1:])
    asked = {"device": "cpu", **SMALL | {"batch_size": 4}}
    recipe = {"iterations": 2, "training_patch": thin}
    run = su.train(prepared, "3d_fullres", "all", recipe=recipe, **asked)
    assert run.record.recipe.training_patch == thin
    assert run.record.configuration.patch_size == planned.patch_size
    whole = su.train(prepared, "3d_fullres", "all", recipe={"iterations": 2}, **asked)
    assert whole.name != run.name
    voxels = [one.log[-1]["annotated_voxels"] for one in (run, whole)]
    assert 0 < voxels[0] < voxels[1], "half as thick, the patches of a batch hold fewer"
    su.predict(su.load_model(run), raw / "imagesTs", output=tmp_path)
    for wrong, why in (((7, 16, 16), "multiples of"), ((8, 8), "expected 3 sizes")):
        with pytest.raises(su.errors.RequestError, match=why) as refusal:
            su.train(prepared, "3d_fullres", "all", recipe={"training_patch": wrong}, **asked)
        assert refusal.value.setting == "training_patch"
    with pytest.raises(su.errors.RequestError, match="time budget chooses the patch"):
        su.train(prepared, "3d_fullres", recipe=recipe, time_budget_min=1, **asked)
