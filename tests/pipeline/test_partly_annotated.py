"""From a dataset in which some cases have only one class to a trained network."""

import math
import shutil

import pytest
from phantoms import blobs, intensities

from sparseunet.artifacts import read_json, write_json
from sparseunet.cli.main import main
from sparseunet.data.annotation_record import (
    AnnotationRecord,
    AnnotationRecords,
    write_annotation_records,
)
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image, write_label_map
from sparseunet.training.run_log import read_log

SHAPE = (16, 20, 20)
TRAIN = ["train", "1", "3d_fullres", "all", "--iterations", "2", "--base-features", "4"]
SMALL = ["--batch-size", "2", "-device", "cpu", "--precision", "float32", "--num-workers", "0"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A prepared dataset; what is refused comes before what is trained."""
    root = tmp_path_factory.mktemp("workspace")
    folder = root / "raw" / "Dataset001_Abdomen"
    records = {}
    for number in range(4):
        labels_ZYX = blobs(SHAPE, seed=number)
        geometry = Geometry(shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0))
        image_ZYX = intensities(labels_ZYX, seed=number)
        write_image(folder / "imagesTr" / f"case_{number}_0000.nii.gz", image_ZYX, geometry)
        if number < 2:
            labels_ZYX[labels_ZYX == 2] = 0
            records[f"case_{number}"] = AnnotationRecord(
                axis=0,
                num_slices=SHAPE[0],
                annotated_slices=tuple(range(SHAPE[0])),
                annotated_classes=("liver",),
            )
        write_label_map(folder / "labelsTr" / f"case_{number}.nii.gz", labels_ZYX, geometry)
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": "MRI"},
            "labels": {"background": 0, "liver": 1, "tumour": 2},
            "numTraining": 4,
            "file_ending": ".nii.gz",
        },
    )
    write_annotation_records(folder / "annotation.json", AnnotationRecords(cases=records))
    prepare = ["plan_and_preprocess", "-d", "1", "-c", "3d_fullres", "-np", "1"]
    assert main(["--workspace", str(root), *prepare]) == 0
    return root


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--loss", "dise"], "no loss 'dise'"),
        (["--loss", "nowhere:loss"], "cannot be imported"),
        (["--class-weights", "liver"], "takes NAME=WEIGHT"),
        (["--class-weights", "liver=much"], "takes NAME=WEIGHT"),
        (["--class-weights", "lung=2"], "background, liver, tumour"),
        (["--loss", "dice", "--class-weights", "liver=2"], "has none"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_is_written(workspace, capsys, flags, message):
    before = sorted((workspace / "results").rglob("*"))
    assert main(["--workspace", str(workspace), *TRAIN, *SMALL, *flags]) == 2
    assert message in capsys.readouterr().err
    assert sorted((workspace / "results").rglob("*")) == before


def test_validation_does_not_score_a_class_that_nobody_looked_for(workspace, capsys):
    splits = read_json(workspace / "preprocessed" / "Dataset001_Abdomen" / "splits_final.json")
    (fold,) = (str(number) for number, split in enumerate(splits) if split["val"] == ["case_0"])
    words = ["train", "1", "3d_fullres", fold, *TRAIN[4:], "--run", "folds"]
    assert main(["--workspace", str(workspace), *words, *SMALL]) == 0
    results = workspace / "results" / "Dataset001_Abdomen"
    folder = results / "3d_fullres" / "folds" / f"fold_{fold}"
    summary = read_json(folder / "validation" / "summary.json")
    assert summary["sparseunet"]["num_cases_where"]["2"]["not_annotated"] == 1
    assert summary["sparseunet"]["n_valid"]["2"]["Dice"] == 0
    assert math.isfinite(summary["mean"]["1"]["Dice"])
    assert math.isnan(summary["mean"]["2"]["Dice"])
    shutil.rmtree(results)


def test_annotated_classes_reach_training_and_make_it_another_run(workspace, capsys):
    command = ["--workspace", str(workspace)]
    preprocess = ["preprocess", "-d", "1", "-c", "3d_fullres", "-np", "1"]
    assert main([*command, *preprocess]) == 0
    assert "4 cases, 4 unchanged, 2 annotated for some classes only" in capsys.readouterr().out
    recipe = ["--loss", "dice_focal", "--class-weights", "background=0.04", "tumour=1.4"]
    assert main([*command, *TRAIN, *SMALL, *recipe]) == 0
    (run,) = (workspace / "results" / "Dataset001_Abdomen" / "3d_fullres").iterdir()
    training = read_json(run / "fold_all" / "run.json")["training"]
    assert training["loss"] == "dice_focal"
    assert training["class_weights"] == {"background": 0.04, "tumour": 1.4}
    assert -1 < read_log(run / "fold_all")[-1]["train_loss"] < 1

    (workspace / "raw" / "Dataset001_Abdomen" / "annotation.json").unlink()
    assert main([*command, *preprocess]) == 0
    assert "some classes only" not in capsys.readouterr().out
    assert main([*command, *TRAIN, *SMALL, *recipe]) == 0
    assert len(list(run.parent.iterdir())) == 2
