"""What the first stage predicted reaches the second on its own grid, and is kept up to date."""

import numpy as np
import pytest
from phantoms import blobs, intensities

from sparseunet.data.annotation import Annotation
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.data.io import write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, RequestError, UnreadableFileError
from sparseunet.fingerprint.fingerprint import IntensityProperties
from sparseunet.planning.plan import Configuration, NetworkPlan, Plan
from sparseunet.preprocessing.case import preprocess_case
from sparseunet.preprocessing.previous_stage import (
    PreviousStage,
    labels_on_network_grid,
    one_hot,
    update_previous_stage,
    with_previous_stage,
)
from sparseunet.preprocessing.store import CaseStore
from sparseunet.preprocessing.write import write_case

LABELS = LabelSchema(classes={"background": 0, "one": 1, "two": 2}, regions={})
GEOMETRY = Geometry(shape=(10, 22, 26), spacing_mm=(3.0, 1.0, 1.5))
PATCH = (8, 16, 16)


def _plan():
    intensities_ = IntensityProperties(
        mean=0.0, median=0.0, std=1.0, min=-9.0, max=9.0, percentile_00_5=-9.0, percentile_99_5=9.0
    )
    configuration = Configuration(
        name="3d_cascade_fullres",
        data_identifier="test",
        batch_size=2,
        patch_size=PATCH,
        median_shape=(20.0, 20.0, 20.0),
        spacing_mm=(1.2, 2.0, 0.8),
        normalization=("zscore",),
        use_mask_for_norm=(False,),
        network=NetworkPlan(
            architecture="plain_unet",
            features_per_stage=(4,),
            kernel_sizes=((3, 3, 3),),
            strides=((1, 1, 1),),
            encoder_depths=(1,),
            decoder_depths=(),
        ),
        batch_dice=False,
        previous_stage="3d_lowres",
    )
    return Plan(
        dataset_name="Dataset001_Test",
        plans_name="nnUNetPlans",
        planner="default",
        original_median_spacing_mm=(1.0, 1.0, 1.0),
        original_median_shape=(20, 20, 20),
        image_reader_writer="SimpleITKIO",
        transpose_forward=(2, 0, 1),
        transpose_backward=(1, 2, 0),
        intensities=(intensities_,),
        configurations={configuration.name: configuration},
    )


def _scan(seed):
    """A scan with an empty margin, which is cropped away, and its labels."""
    labels_ZYX = blobs(GEOMETRY.shape, seed=seed)
    voxels_ZYX = intensities(labels_ZYX, seed=seed) + 50
    for array_ZYX in (labels_ZYX, voxels_ZYX):
        array_ZYX[:, :4] = 0
        array_ZYX[8:] = 0
    return Image(voxels_CZYX=voxels_ZYX[None], geometry=GEOMETRY), labels_ZYX


def _preprocess(seed, *, labelled=True):
    plan = _plan()
    image, labels_ZYX = _scan(seed)
    annotation = Annotation.from_label_map(labels_ZYX, ignore=None) if labelled else None
    (configuration,) = plan.configurations.values()
    return preprocess_case(
        f"case_{seed}", image, annotation, plan=plan, configuration=configuration
    )


@pytest.fixture
def stored(tmp_path):
    """A store of two cases and their segmentations as files."""
    files = {}
    for seed in range(2):
        case = _preprocess(seed)
        write_case(tmp_path / "data", case, patch_size=PATCH)
        files[case.name] = tmp_path / "labels" / f"{case.name}.nii.gz"
        write_label_map(files[case.name], _scan(seed)[1], GEOMETRY)
    return CaseStore(tmp_path / "data"), files


def _update(tmp_path, store, files):
    return update_previous_stage(
        tmp_path / "next", files, store=store, patch_size=PATCH, num_workers=2
    )


def test_label_maps_take_the_way_of_dense_training_labels():
    case = _preprocess(0)
    on_grid_ZYX = labels_on_network_grid(_scan(0)[1], case.restoration)
    assert on_grid_ZYX.shape == case.image_CZYX.shape[1:] != GEOMETRY.shape
    assert np.array_equal(on_grid_ZYX, case.annotation.labels_ZYX)
    with pytest.raises(ValueError, match="shape"):
        labels_on_network_grid(np.zeros((3, 3, 3), np.uint8), case.restoration)


def test_each_foreground_value_gets_a_channel_behind_those_of_the_image():
    case, labels_ZYX = _preprocess(1, labelled=False), _scan(1)[1]
    extended = with_previous_stage(case, labels_ZYX, LABELS)
    assert np.array_equal(extended.image_CZYX[:1], case.image_CZYX)
    expected = one_hot(labels_on_network_grid(labels_ZYX, case.restoration), (1, 2))
    assert extended.image_CZYX.dtype == np.float32
    assert np.array_equal(extended.image_CZYX[1:], expected)
    assert expected.sum(0).max() == 1
    with pytest.raises(RequestError, match=r"case_1 holds the values \[7\]"):
        with_previous_stage(case, np.full_like(labels_ZYX, 7), LABELS)


def test_a_patch_of_what_was_stored_is_the_patch_of_the_whole(tmp_path, stored):
    store, files = stored
    assert _update(tmp_path, store, files) == 2
    previous = PreviousStage(folders=dict.fromkeys(files, tmp_path / "next"))
    for seed, case in enumerate(files):
        restoration = store.manifest(case).restoration
        whole_ZYX = labels_on_network_grid(_scan(seed)[1], restoration)
        patch_ZYX = previous.read_patch(case, (3, 1, 2), (9, 5, 9))
        assert patch_ZYX.dtype == np.uint8
        assert np.array_equal(patch_ZYX, whole_ZYX[3:9, 1:5, 2:9])
        nothing_ZYX = previous.read_patch(case, (3, 1, 2), (3, 5, 9))
        assert nothing_ZYX.shape == (0, 4, 7)


def test_only_what_has_changed_is_stored_again(tmp_path, stored):
    store, files = stored
    _update(tmp_path, store, files)
    previous = PreviousStage(folders=dict.fromkeys(files, tmp_path / "next"))
    before = previous.content_hash()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "next").iterdir()}
    assert _update(tmp_path, store, files) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "next").iterdir()} == written
    write_label_map(files["case_1"], _scan(5)[1], GEOMETRY)
    assert _update(tmp_path, store, files) == 1
    assert previous.content_hash() != before
    (tmp_path / "next" / "case_0.b2nd").unlink()
    assert _update(tmp_path, store, files) == 1


def test_every_file_that_does_not_fit_is_named_and_the_others_are_stored(tmp_path, stored):
    store, files = stored
    files["case_0"].write_bytes(b"no labels")
    with pytest.raises(DatasetError) as caught:
        _update(tmp_path, store, files)
    assert [str(files["case_0"]) in str(problem) for problem in caught.value.problems] == [True]
    assert (tmp_path / "next" / "case_1.json").is_file()
    small = Geometry(shape=(3, 4, 5), spacing_mm=(1.0, 1.0, 1.0))
    for path in files.values():
        write_label_map(path, np.zeros(small.shape, np.uint8), small)
    with pytest.raises(DatasetError, match="shape") as caught:
        _update(tmp_path, store, files)
    assert sorted(problem.case for problem in caught.value.problems) == ["case_0", "case_1"]


def test_a_damaged_label_map_is_named_with_the_fix(tmp_path, stored):
    store, files = stored
    _update(tmp_path, store, files)
    (tmp_path / "next" / "case_0.b2nd").write_bytes(b"nothing")
    previous = PreviousStage(folders=dict.fromkeys(files, tmp_path / "next"))
    with pytest.raises(UnreadableFileError, match="start the training again"):
        previous.read_patch("case_0", (0, 0, 0), (2, 2, 2))
