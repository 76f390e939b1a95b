"""What is odd about a scan is said once, with what the model was trained on."""

import json
from dataclasses import replace

import numpy as np
import pytest
from phantoms import blobs, intensities
from threshold_network import make_threshold

from sparseunet.cli.main import main
from sparseunet.data.geometry import Geometry, orientation
from sparseunet.data.image import Image
from sparseunet.data.io import write_image
from sparseunet.prediction.checks import (
    CaseCheck,
    check_scan,
    count_classes,
    describe_checks,
    what_cannot_be_checked,
    write_checks,
)
from sparseunet.runs.load import load_trained_model

SHAPE = (9, 20, 21)


def _scan(spacing_mm=(1.0, 1.0, 1.0), factor=1.0, shift=0.0):
    voxels_ZYX = factor * intensities(blobs(SHAPE, seed=0), seed=0) + shift
    return Image(
        voxels_CZYX=voxels_ZYX[None].astype(np.float32),
        geometry=Geometry(shape=SHAPE, spacing_mm=spacing_mm),
    )


@pytest.fixture
def model(write_run, tmp_path):
    return load_trained_model(write_run(tmp_path / "run"), [0])


def _on_ct(model):
    known = replace(model.plan.intensities[0], percentile_00_5=50.0, percentile_99_5=150.0)
    configuration = replace(model.configuration, normalization=("ct",))
    plan = replace(model.plan, intensities=(known,))
    return replace(model, plan=plan, configuration=configuration)


def test_a_scan_like_the_training_scans_has_no_warning(model):
    assert check_scan("scan", _scan(), _on_ct(model)).warnings == ()


@pytest.mark.parametrize(
    ("spacing_mm", "axes"),
    [((2.1, 1.0, 1.0), "z"), ((1.0, 0.4, 0.4), "yx"), ((1.9, 0.6, 1.0), "")],
)
def test_a_spacing_far_from_the_median_is_named_with_both(model, spacing_mm, axes):
    warnings = check_scan("scan", _scan(spacing_mm), model).warnings
    assert len(warnings) == len(axes)
    for axis, warning in zip(axes, warnings, strict=True):
        assert f"along {axis} is {spacing_mm['zyx'.index(axis)]:g} mm" in warning
        assert "median of the training scans is 1 mm" in warning


def test_intensities_are_compared_where_a_unit_makes_them_comparable(model):
    shifted = _scan(shift=5000.0)
    (warning,) = check_scan("scan", shifted, _on_ct(model)).warnings
    assert "hardly any lie where the training foreground does, 50 to 150" in warning
    assert check_scan("scan", shifted, model).warnings == ()
    assert any("MRI have no common unit" in text for text in what_cannot_be_checked(model))
    assert not any("unit" in text for text in what_cannot_be_checked(_on_ct(model)))


def test_a_constant_scan_is_named(model):
    (warning,) = check_scan("scan", _scan(factor=0.0, shift=7.0), model).warnings
    assert "value 7 everywhere" in warning


def test_orientations_are_named_by_where_the_axes_point():
    def named(*direction):
        return orientation(Geometry(shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0), direction=direction))

    assert named(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0) == "LPS"
    assert named(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0) == "RAS"
    assert named(0.0, 0.1, 0.99, 1.0, 0.0, 0.0, 0.0, -0.99, 0.1) == "PIL"


def test_regions_are_counted_with_all_their_values(write_run, tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    model = load_trained_model(write_run(tmp_path / "run", labels=labels), [0])
    assert count_classes({0: 90, 1: 7, 2: 3}, model.labels) == {"whole": 10, "core": 3}


def test_checks_of_later_scans_are_added_to_those_of_earlier_ones(model, tmp_path):
    def check(name, axes, **others):
        return CaseCheck(case=name, spacing_mm=(1.0, 1.0, 1.0), orientation=axes, **others)

    path, found = tmp_path / "cases.json", {"anterior": 5, "posterior": 0}
    write_checks(path, [check("a", "LPS", num_voxels=found)], model)
    assert "Found in no scan: posterior" in describe_checks(path)
    write_checks(
        path,
        [
            check("b", "LPS", num_voxels={"anterior": 0, "posterior": 9}, warnings=("odd",)),
            check("c", "RAS", num_voxels={"anterior": 0, "posterior": 0}),
        ],
        model,
    )
    text = describe_checks(path)
    assert "Found in no scan" not in text
    assert "b  odd" in text
    assert "c  axes point to RAS, those of most scans to LPS" in text
    assert "c  nothing but background was found" in text
    assert [case["case"] for case in json.loads(path.read_text())["cases"]] == ["a", "b", "c"]


def test_the_command_prints_the_table_and_parts_have_a_file_each(write_run, tmp_path, capsys):
    run = write_run(tmp_path / "run")
    make_threshold(run, one=50.0, two=100.0)  # so that nothing is found
    for number in range(3):
        image = _scan((1.0, 1.0, 3.0) if number == 1 else (1.0, 1.0, 1.0))
        path = tmp_path / "in" / f"scan{number}_0000.nii.gz"
        write_image(path, image.voxels_CZYX[0], image.geometry)
    words = ["predict", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-m", str(run)]
    words += ["--disable-tta", "-device", "cpu", "-num_parts", "2"]
    assert main([*words, "-part_id", "0"]) == 0
    out = capsys.readouterr().out
    assert "scan0  nothing but background" in out
    assert "Found in no scan: anterior, posterior" in out
    assert main([*words, "-part_id", "1"]) == 0
    assert "scan1  spacing along x is 3 mm" in capsys.readouterr().out
    assert main([*words, "-part_id", "2"]) == 2
    assert "no part 2 of 2" in capsys.readouterr().err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "dataset.json",
        "part_0_of_2_prediction_cases.json",
        "part_1_of_2_prediction_cases.json",
        "prediction.json",
        "scan0.nii.gz",
        "scan1.nii.gz",
        "scan2.nii.gz",
    ]
