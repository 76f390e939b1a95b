"""The second stage sees what the first predicted, now and then with errors added, and no more."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms import blobs, box
from scipy import ndimage

from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.dataset import Split
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.networks.build import num_input_channels
from sparseunet.planning.plan import Configuration, NetworkPlan
from sparseunet.preprocessing.case import PreprocessedCase, Restoration
from sparseunet.preprocessing.previous_stage import PreviousStage, update_previous_stage
from sparseunet.preprocessing.store import CaseStore
from sparseunet.preprocessing.write import write_case
from sparseunet.training.cascade import dilate, disturb_labels, erode, unchanged
from sparseunet.training.fit import fit
from sparseunet.training.loader import BatchDataset, BatchRules, summarise_cases
from sparseunet.training.recipe import Recipe
from sparseunet.training.run_log import read_log
from sparseunet.training.step import Hardware

SHAPE = (14, 24, 22)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0))
LABELS = LabelSchema(classes={"background": 0, "one": 1, "two": 2}, regions={})
REGIONS = LabelSchema(
    classes={"background": 0}, regions={"whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2)
)
CONFIGURATION = Configuration(
    name="3d_cascade_fullres",
    data_identifier="test",
    batch_size=2,
    patch_size=(8, 16, 16),
    median_shape=(14.0, 24.0, 22.0),
    spacing_mm=(1.0, 1.0, 1.0),
    normalization=("zscore",),
    use_mask_for_norm=(True,),
    network=NetworkPlan(
        architecture="plain_unet",
        features_per_stage=(4, 8),
        kernel_sizes=((3, 3, 3),) * 2,
        strides=((1, 1, 1), (2, 2, 2)),
        encoder_depths=(1, 1),
        decoder_depths=(1,),
    ),
    batch_dice=False,
    previous_stage="3d_lowres",
)
RECIPE = BatchRules(
    patch_size=CONFIGURATION.patch_size,
    batch_size=2,
    foreground_share=0.33,
    augmentation="nnunet",
    mirror_axes=(0, 1, 2),
    blank_outside=True,
    trust={Source.MANUAL: 1.0},
    seed=5,
    stream=0,
    previous_values=(1, 2),
)


def _rng(*seed):
    return np.random.default_rng(seed)


@pytest.fixture
def cascade(tmp_path):
    """Preprocessed cases, and a first stage that predicted exactly their labels."""
    files = {}
    for number in range(2):
        labels_ZYX = blobs(SHAPE, seed=number)
        source_ZYX = np.full(SHAPE, Source.MANUAL, np.uint8)
        source_ZYX[::2] = Source.NONE
        inside_ZYX = np.ones(SHAPE, bool)
        inside_ZYX[:, :3] = False
        case = PreprocessedCase(
            name=f"case_{number}",
            image_CZYX=_rng(number).standard_normal((1, *SHAPE)).astype(np.float32),
            inside_ZYX=inside_ZYX,
            annotation=Annotation(
                labels_ZYX=np.where(source_ZYX > 0, labels_ZYX, 0).astype(np.uint8),
                source_ZYX=source_ZYX,
            ),
            restoration=Restoration(
                geometry=GEOMETRY,
                transpose_forward=(0, 1, 2),
                crop_start=(0, 0, 0),
                crop_shape=SHAPE,
                network_shape=SHAPE,
            ),
        )
        write_case(tmp_path / "data", case, patch_size=CONFIGURATION.patch_size)
        files[case.name] = tmp_path / f"{case.name}.nii.gz"
        write_label_map(files[case.name], labels_ZYX, GEOMETRY)
    store = CaseStore(tmp_path / "data")
    update_previous_stage(
        tmp_path / "first", files, store=store, patch_size=(8, 16, 16), num_workers=1
    )
    return store, PreviousStage(folders=dict.fromkeys(files, tmp_path / "first"))


def _dataset(store, previous, **changes):
    return BatchDataset(
        store, summarise_cases(store, store.cases), replace(RECIPE, **changes), previous
    )


def test_the_previous_stage_changes_neither_image_nor_labels_nor_weights(cascade):
    store, previous = cascade
    with_it, without = _dataset(store, previous), _dataset(store, None)
    for step in range(12):
        batch, plain = with_it[step], without[step]
        assert batch.image_BCZYX.shape == (2, 3, 8, 16, 16)
        assert torch.equal(batch.image_BCZYX[:, :1], plain.image_BCZYX)
        assert torch.equal(batch.labels_BZYX, plain.labels_BZYX)
        assert torch.equal(batch.weight_BZYX, plain.weight_BZYX)


def test_each_foreground_label_is_a_channel_that_moves_with_the_labels(cascade):
    dataset = _dataset(*cascade)
    dataset.augmentation = replace(dataset.augmentation, disturb_previous_stage=unchanged)
    unlabelled_foreground = 0
    for step in range(12):
        batch = dataset[step]
        channels, annotated = batch.image_BCZYX[:, 1:], batch.weight_BZYX > 0
        for channel, value in enumerate((1, 2)):
            expected = batch.labels_BZYX == value
            assert torch.equal(channels[:, channel][annotated], expected[annotated].float())
        assert set(channels.unique().tolist()) <= {0.0, 1.0}
        unlabelled_foreground += int(channels.sum(1)[~annotated].sum())
    assert unlabelled_foreground > 0  # dense, where the labels are not


def test_a_batch_is_the_same_whatever_was_drawn_before(cascade):
    forwards, backwards = _dataset(*cascade), _dataset(*cascade)
    first = [forwards[step].image_BCZYX for step in range(10)]
    again = [backwards[step].image_BCZYX for step in reversed(range(10))][::-1]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_some_patches_are_disturbed_in_training_and_none_in_validation(cascade):
    def disturbed(**changes):
        dataset, plain = _dataset(*cascade, **changes), _dataset(*cascade, **changes)
        plain.augmentation = replace(plain.augmentation, disturb_previous_stage=unchanged)
        return sum(
            not torch.equal(one, other)
            for step in range(30)
            for one, other in zip(dataset[step].image_BCZYX, plain[step].image_BCZYX, strict=True)
        )

    assert 10 <= disturbed() <= 40
    assert disturbed(augmentation="none") == 0


@pytest.mark.parametrize("size", [(30, 25), (15, 18, 20)])
@pytest.mark.parametrize("radius", [1.0, 2.5, 8.0])
def test_growing_and_shrinking_are_by_a_ball_of_the_radius(size, radius):
    mask = blobs(size, seed=3, num_classes=1, share=0.1) > 0
    assert mask.any()
    assert np.array_equal(dilate(mask, radius), ndimage.distance_transform_edt(~mask) <= radius)
    assert np.array_equal(erode(~mask, radius), ndimage.distance_transform_edt(~mask) > radius)


def test_the_edge_of_the_patch_is_no_edge_of_a_label():
    assert erode(np.ones((6, 6, 6), bool), 3).all()
    assert not dilate(np.zeros((6, 6, 6), bool), 3).any()


def test_labels_are_disturbed_as_often_as_nnunet_does():
    """A box: 3 of 4 operators change it (closing does not), and it is small enough to vanish."""
    labels = box((24, 24, 24), start=(9, 9, 9), stop=(15, 15, 15)).astype(np.float32)
    outcomes = [disturb_labels(labels, _rng(seed, 1)) for seed in range(3000)]
    changed = np.mean([not np.array_equal(outcome, labels) for outcome in outcomes])
    grown = np.mean([outcome.sum() > labels.sum() for outcome in outcomes])
    morphology, removal = 0.4 * 0.5, 0.2 * 0.5
    assert changed == pytest.approx(1 - (1 - 0.75 * morphology) * (1 - removal), abs=0.03)
    assert grown == pytest.approx(0.25 * morphology, abs=0.02)


def test_labels_grow_by_at_most_eight_voxels_and_large_components_stay():
    labels = np.zeros((40, 40, 40), np.float32)
    labels[:20] = 1
    labels[28:32, 10:14, 10:14] = 2
    reach = {value: ndimage.distance_transform_edt(labels != value) <= 8 for value in (1, 2)}
    lost = grown = 0
    for seed in range(300):
        outcome = disturb_labels(labels, _rng(seed))
        assert set(np.unique(outcome)) <= {0, 1, 2}
        for value in (1, 2):
            assert not ((outcome == value) & ~reach[value]).any()
        assert (outcome[:8] == 1).all()
        lost += not (outcome == 2).any()
        grown += ((outcome == 2) & (labels == 0)).any()
    assert lost > 0
    assert grown > 0


def test_disturbing_leaves_its_input_alone_and_repeats_with_the_seed():
    labels = blobs((20, 24, 22), seed=1).astype(np.float32)
    kept = labels.copy()
    for seed in range(20):
        one, other = (disturb_labels(labels, _rng(seed)) for _ in range(2))
        assert np.array_equal(one, other)
    assert np.array_equal(labels, kept)


@pytest.mark.parametrize("labels", [LABELS, REGIONS])
def test_a_network_has_one_input_per_foreground_value_of_the_previous_stage(labels):
    assert labels.foreground_values == (1, 2)
    assert num_input_channels(CONFIGURATION, labels) == 3
    assert num_input_channels(replace(CONFIGURATION, previous_stage=None), labels) == 1


@pytest.mark.parametrize("labels", [LABELS, REGIONS])
def test_the_second_stage_trains(cascade, tmp_path, labels):
    store, previous = cascade
    (tmp_path / "run").mkdir()
    final = fit(
        store,
        Split(train=store.cases, val=store.cases[:1]),
        configuration=CONFIGURATION,
        labels=labels,
        recipe=Recipe(iterations=20, iterations_per_epoch=20),
        hardware=Hardware(device=torch.device("cpu"), dtype=None, num_workers=0),
        folder=tmp_path / "run",
        previous_stage=previous,
    )
    weights = torch.load(final, weights_only=True)["weights"]
    assert weights["encoder.stages.0.0.conv.weight"].shape[1] == 3
    (entry,) = read_log(tmp_path / "run")
    assert np.isfinite(entry["val_loss"])


def test_a_previous_stage_is_needed_by_the_second_stage_and_by_no_other(cascade, tmp_path):
    store, previous = cascade

    def attempt(configuration, previous_stage):
        fit(
            store,
            Split(train=store.cases, val=()),
            configuration=configuration,
            labels=LABELS,
            recipe=Recipe(iterations=1),
            hardware=Hardware(device=torch.device("cpu"), dtype=None, num_workers=0),
            folder=tmp_path,
            previous_stage=previous_stage,
        )

    with pytest.raises(RequestError, match="previous stage 3d_lowres; give its predictions"):
        attempt(CONFIGURATION, None)
    with pytest.raises(RequestError, match="no previous stage"):
        attempt(replace(CONFIGURATION, previous_stage=None), previous)
