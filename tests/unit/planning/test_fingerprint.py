"""What is measured, what it depends on and what it does not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.data.load import load_dataset
from sparseunet.errors import DatasetError, RequestError
from sparseunet.fingerprint.extract import extract_fingerprint
from sparseunet.fingerprint.fingerprint import fingerprint_from_json, fingerprint_to_json

IGNORE = 2
SHAPE = (12, 20, 24)


def _image(*, seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def _label(*, shape=SHAPE):
    labels_ZYX = np.zeros(shape, np.uint8)
    labels_ZYX[:, 4:14, 5:19] = 1
    return labels_ZYX


def _dataset(folder: Path, cases, *, spacing_mm=(2.0, 1.0, 1.0), ending=".nii.gz") -> Dataset:
    """Write (channels, labels or None) pairs and describe them as a dataset."""
    written = []
    for number, (channels, labels_ZYX) in enumerate(cases):
        name = f"case_{number}"
        geometry = Geometry(shape=channels[0].shape, spacing_mm=spacing_mm)
        images = []
        for channel, voxels_ZYX in enumerate(channels):
            images.append(folder / "imagesTr" / f"{name}_{channel:04d}{ending}")
            write_image(images[-1], voxels_ZYX, geometry)
        label = None
        if labels_ZYX is not None:
            label = folder / "labelsTr" / f"{name}{ending}"
            label_geometry = replace(geometry, shape=labels_ZYX.shape)
            write_label_map(label, labels_ZYX, label_geometry)
        written.append(Case(name=name, images=tuple(images), label=label))
    return Dataset(
        folder=folder,
        name="Dataset001_Any",
        channel_names=tuple(f"MR{channel}" for channel in range(len(cases[0][0]))),
        labels=LabelSchema(classes={"background": 0, "organ": 1}, regions={}, ignore=IGNORE),
        file_ending=ending,
        cases=tuple(written),
        description={"labels": {"background": 0, "organ": 1, "ignore": IGNORE}},
    )


def test_statistics_of_one_case_are_those_of_its_foreground(tmp_path):
    image_ZYX, labels_ZYX = _image(), _label()
    found = extract_fingerprint(_dataset(tmp_path, [([image_ZYX], labels_ZYX)]), num_workers=1)
    values = image_ZYX[labels_ZYX == 1].astype(np.float64)
    channel = found.intensities[0]
    assert channel.mean == pytest.approx(values.mean())
    assert channel.std == pytest.approx(values.std())
    assert (channel.min, channel.max) == (values.min(), values.max())
    quantiles = np.quantile(values, (0.005, 0.5, 0.995), method="inverted_cdf")
    assert (channel.percentile_00_5, channel.median, channel.percentile_99_5) == tuple(quantiles)
    assert (found.num_foreground_voxels, found.num_foreground_cases) == (values.size, 1)


def test_cases_count_equally_however_much_is_labelled(tmp_path):
    small = np.zeros(SHAPE, np.uint8)
    small[3, 4:14, 5:19] = 1
    large_ZYX, small_ZYX = np.full(SHAPE, 10, np.float32), np.full(SHAPE, 20, np.float32)
    cases = [([large_ZYX], _label()), ([small_ZYX], small)]
    channel = extract_fingerprint(_dataset(tmp_path, cases), num_workers=1).intensities[0]
    assert channel.mean == 15
    assert channel.std == 5
    assert channel.median == 10


def test_the_image_is_cropped_to_its_own_nonzero_box_whatever_is_labelled(tmp_path):
    image_ZYX = np.zeros(SHAPE, np.float32)
    image_ZYX[2:10, 3:15, 4:20] = 50
    image_ZYX[5:7, 6:9, 6:9] = 0
    for name, labels_ZYX in (("a", _label()), ("b", np.full(SHAPE, IGNORE, np.uint8)), ("c", None)):
        found = extract_fingerprint(
            _dataset(tmp_path / name, [([image_ZYX], labels_ZYX)]), num_workers=1
        )
        assert found.shapes_after_crop == ((8, 12, 16),)
        assert found.median_relative_size_after_cropping == 8 * 12 * 16 / np.prod(SHAPE)
        assert found.spacings_mm == ((2.0, 1.0, 1.0),)


def test_the_box_holds_every_channel(tmp_path):
    first_ZYX, second_ZYX = np.zeros((2, *SHAPE), np.float32)
    first_ZYX[2:4, 5:6, 5:6] = 1
    second_ZYX[8:9, 10:12, 3:4] = 1
    dataset = _dataset(tmp_path, [([first_ZYX, second_ZYX], None)])
    found = extract_fingerprint(dataset, num_workers=1)
    assert found.shapes_after_crop == ((7, 7, 3),)


def test_unannotated_voxels_change_no_number(tmp_path):
    image_ZYX, labels_ZYX = _image(), _label()
    labels_ZYX[6:] = IGNORE
    bright_ZYX = image_ZYX.copy()
    bright_ZYX[6:] += 5000
    found = [
        extract_fingerprint(_dataset(tmp_path / name, [([voxels], labels_ZYX)]), num_workers=1)
        for name, voxels in (("as_is", image_ZYX), ("bright", bright_ZYX))
    ]
    assert found[0] == found[1]
    assert found[0].num_foreground_voxels == 6 * 10 * 14


def test_appending_unannotated_slices_changes_no_intensity(tmp_path):
    image_ZYX, labels_ZYX = _image(), _label()
    more_ZYX = np.concatenate([image_ZYX, 3000 + _image(seed=1)])
    ignored_ZYX = np.concatenate([labels_ZYX, np.full(SHAPE, IGNORE, np.uint8)])
    short = extract_fingerprint(
        _dataset(tmp_path / "short", [([image_ZYX], labels_ZYX)]), num_workers=1
    )
    long = extract_fingerprint(
        _dataset(tmp_path / "long", [([more_ZYX], ignored_ZYX)]), num_workers=1
    )
    assert replace(long, shapes_after_crop=short.shapes_after_crop) == short


def test_adding_unlabelled_cases_changes_no_intensity(tmp_path):
    labelled = ([_image()], _label())
    few = extract_fingerprint(_dataset(tmp_path / "few", [labelled]), num_workers=1)
    many = extract_fingerprint(
        _dataset(
            tmp_path / "many",
            [labelled, ([9 * _image(seed=1)], None), ([_image(seed=2)], 0 * _label() + IGNORE)],
        ),
        num_workers=2,
    )
    assert many.intensities == few.intensities
    assert (many.num_foreground_cases, len(many.spacings_mm)) == (1, 3)


def test_the_number_of_workers_does_not_matter(tmp_path):
    cases = [([_image(seed=seed)], _label()) for seed in range(5)]
    dataset = _dataset(tmp_path, cases)
    assert extract_fingerprint(dataset, num_workers=1) == extract_fingerprint(
        dataset, num_workers=4
    )


@pytest.mark.parametrize("voxels_labelled", [0, 99])
def test_too_little_foreground_falls_back_to_the_body_and_says_so(
    tmp_path, caplog, voxels_labelled
):
    image_ZYX = _image()
    image_ZYX[:, :, :6] = 0
    labels_ZYX = np.full(SHAPE, IGNORE, np.uint8)
    labels_ZYX.reshape(-1)[np.flatnonzero(image_ZYX)[:voxels_labelled]] = 1
    found = extract_fingerprint(_dataset(tmp_path, [([image_ZYX], labels_ZYX)]), num_workers=1)
    assert found.intensity_source == "body"
    assert found.num_foreground_voxels == voxels_labelled
    assert found.intensities[0].mean == pytest.approx(image_ZYX[image_ZYX != 0].mean(), rel=1e-5)
    assert f"only {voxels_labelled} voxels" in caplog.text


def test_an_image_of_zeros_gives_numbers_not_nan(tmp_path):
    dataset = _dataset(tmp_path, [([np.zeros(SHAPE, np.float32)], None)])
    found = extract_fingerprint(dataset, num_workers=1)
    assert found.shapes_after_crop == (SHAPE,)
    assert (found.intensities[0].mean, found.intensities[0].std) == (0, 0)


def test_percentiles_of_very_many_voxels_stay_within_the_kept_ranks(tmp_path):
    shape = (20, 500, 480)
    assert np.prod(shape) > 4_000_000
    image_ZYX = _image(shape=shape)
    dataset = _dataset(tmp_path, [([image_ZYX], np.ones(shape, np.uint8))], ending=".nii")
    found = extract_fingerprint(dataset, num_workers=1)
    channel = found.intensities[0]
    for value, share in (
        (channel.percentile_00_5, 0.005),
        (channel.median, 0.5),
        (channel.percentile_99_5, 0.995),
    ):
        assert np.mean(image_ZYX <= value) == pytest.approx(share, abs=0.5 / 2**16)
    assert channel.max == image_ZYX.max()
    assert channel.mean == pytest.approx(image_ZYX.mean(dtype=np.float64))


def test_every_unreadable_case_is_named(tmp_path):
    cases = [([_image()], _label()), ([_image()], _label(shape=(3, 20, 24))), ([_image()], None)]
    dataset = _dataset(tmp_path, cases)
    dataset.cases[2].images[0].write_bytes(b"")
    with pytest.raises(DatasetError) as caught:
        extract_fingerprint(dataset, num_workers=2)
    assert {problem.case for problem in caught.value.problems} == {"case_1", "case_2"}


def test_a_wrong_number_of_channels_is_an_error(tmp_path):
    dataset = _dataset(tmp_path, [([_image()], _label())])
    with pytest.raises(RequestError, match=r"1 channels; expected 2: CT, MR"):
        extract_fingerprint(replace(dataset, channel_names=("CT", "MR")), num_workers=1)


def test_a_dataset_without_cases_is_refused(tmp_path):
    dataset = replace(_dataset(tmp_path, [([_image()], None)]), cases=())
    with pytest.raises(RequestError, match="no training cases"):
        extract_fingerprint(dataset, num_workers=1)


def test_pictures_are_measured_as_volumes_of_one_slice(tmp_path):
    shape = (1, 40, 50)
    image_ZYX = np.random.default_rng(0).integers(1, 255, shape).astype(np.float32)
    dataset = _dataset(
        tmp_path,
        [([image_ZYX], np.ones(shape, np.uint8))],
        spacing_mm=(999.0, 1.0, 1.0),
        ending=".png",
    )
    found = extract_fingerprint(dataset, num_workers=1)
    assert found.shapes_after_crop == (shape,)
    assert found.spacings_mm == ((999.0, 1.0, 1.0),)


def test_a_fingerprint_survives_json(tmp_path):
    found = extract_fingerprint(_dataset(tmp_path, [([_image()], _label())]), num_workers=1)
    content = json.loads(json.dumps(fingerprint_to_json(found, data_hash="abc")))
    assert fingerprint_from_json(content) == found
    assert content["sparseunet"]["data_hash"] == "abc"


def test_an_incomplete_fingerprint_is_refused_with_every_key():
    with pytest.raises(RequestError) as caught:
        fingerprint_from_json({"spacings": "far"}, source="file.json")
    for word in ("file.json", "spacings_mm", "shapes_after_crop", "intensities"):
        assert word in str(caught.value)


def test_a_fingerprint_without_numbers_is_refused(tmp_path):
    found = extract_fingerprint(_dataset(tmp_path, [([_image()], _label())]), num_workers=1)
    content = fingerprint_to_json(found)
    content["foreground_intensity_properties_per_channel"]["0"]["mean"] = float("nan")
    with pytest.raises(RequestError, match="not numbers"):
        fingerprint_from_json(content)


def test_the_real_hippocampus_is_measured_as_nnunet_measures_it(data_root):
    golden_file = data_root.parent / "reference" / "hippocampus_real" / "dataset_fingerprint.json"
    golden = fingerprint_from_json(json.loads(golden_file.read_text()))
    found = extract_fingerprint(load_dataset(data_root / "Dataset004_Hippocampus"), num_workers=2)
    assert found.shapes_after_crop == golden.shapes_after_crop
    assert found.spacings_mm == golden.spacings_mm
    assert found.median_relative_size_after_cropping == golden.median_relative_size_after_cropping
    ours, theirs = found.intensities[0], golden.intensities[0]
    assert (ours.min, ours.max) == (theirs.min, theirs.max)
    # nnU-Net's figures are of a hundred million voxels drawn at random.
    standard_error = ours.std / np.sqrt(10e7)
    assert abs(ours.mean - theirs.mean) < 4 * standard_error
    for name in ("std", "median", "percentile_00_5", "percentile_99_5"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-3)
