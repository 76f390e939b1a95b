"""Patches hold what lies at their place, labels move with the image, and never mix."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms import blobs
from torch.nn import functional

from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.geometry import Geometry
from sparseunet.preprocessing.case import PreprocessedCase, Restoration
from sparseunet.preprocessing.memory import CasesInMemory
from sparseunet.preprocessing.store import CaseStore
from sparseunet.preprocessing.write import write_case
from sparseunet.training.augmentation import AUGMENTATIONS, Movement
from sparseunet.training.augmentation.movements import draw_elastic, rotate_and_zoom
from sparseunet.training.augmentation.points import SamplePoints
from sparseunet.training.loader import BatchDataset, BatchRules, summarise_cases
from sparseunet.training.patches import read_training_patch, weight_table

SHAPE = (14, 26, 24)
TRUST = {Source.MANUAL: 1.0, Source.PSEUDO: 0.5}
RECIPE = BatchRules(
    patch_size=(8, 16, 12),
    batch_size=3,
    foreground_share=0.33,
    augmentation="nnunet",
    mirror_axes=(0, 1, 2),
    blank_outside=False,
    trust=TRUST,
    seed=3,
    stream=0,
)


def _store(folder, *, shape=SHAPE, count=2):
    """Cases whose image is 10 times the label, every other slice manual, some pseudo-labelled."""
    for number in range(count):
        labels = blobs(shape, seed=number)
        source = np.full(shape, Source.NONE, np.uint8)
        source[::2] = Source.MANUAL
        source[::4, :, ::2] = Source.PSEUDO
        inside = np.ones(shape, bool)
        inside[:, :2] = False
        case = PreprocessedCase(
            name=f"case_{number}",
            image_CZYX=(10 * labels[None]).astype(np.float32),
            inside_ZYX=inside,
            annotation=Annotation(
                labels_ZYX=np.where(source > 0, labels, 0).astype(np.uint8),
                source_ZYX=source,
                confidence_ZYX=np.where(source == Source.PSEUDO, 0.5, 1).astype(np.float32),
            ),
            restoration=Restoration(
                geometry=Geometry(shape=shape, spacing_mm=(1.0, 1.0, 1.0)),
                transpose_forward=(0, 1, 2),
                crop_start=(0, 0, 0),
                crop_shape=shape,
                network_shape=shape,
            ),
        )
        write_case(folder, case, patch_size=(8, 16, 16))
    return CaseStore(folder)


def _read(store, start, size, movement=None):
    return read_training_patch(
        store, "case_0", start, size, shape=SHAPE, weights=weight_table(TRUST), movement=movement
    )


def _dataset(store, **changes):
    keep = changes.pop("memory_bytes", 2**26)
    cases = summarise_cases(store, store.cases)
    return BatchDataset(store, cases, replace(RECIPE, **changes), memory_bytes=keep)


def _same(one, other):
    return (
        torch.equal(one.image_BCZYX, other.image_BCZYX)
        and torch.equal(one.labels_BZYX, other.labels_BZYX)
        and torch.equal(one.weight_BZYX, other.weight_BZYX)
    )


def test_padding_is_never_annotated(tmp_path):
    patch = _read(_store(tmp_path), (-3, -4, 10), (20, 20, 20))
    inside = np.zeros((20, 20, 20), bool)
    inside[3:17, 4:20, :14] = True
    assert (patch.image_CZYX[0][~inside] == 0).all()
    assert (patch.labels_ZYX[~inside] == 0).all()
    assert (patch.weight_ZYX[~inside] == 0).all()
    assert not patch.inside_ZYX[~inside].any()
    assert (patch.weight_ZYX[3:17:2, 4:20, :14] > 0).all()


def test_a_weight_is_the_trust_in_the_source_times_the_confidence(tmp_path):
    patch = _read(_store(tmp_path), (0, 0, 0), SHAPE)
    assert set(np.unique(patch.weight_ZYX[2])) == {1.0}
    assert set(np.unique(patch.weight_ZYX[4])) == {0.25, 1.0}
    assert not patch.weight_ZYX[5].any()


def _movement(kind, size, seed):
    rng = np.random.default_rng(seed)
    dimensions = 2 if kind == "in plane" else 3
    matrix = rotate_and_zoom(
        rng.uniform(-0.5, 0.5, 1 if dimensions == 2 else 3).tolist(),
        rng.uniform(0.7, 1.4, dimensions).tolist(),
    )
    if kind == "elastic":
        displacement = draw_elastic(size, rng, control_voxels=8, strength=0.25)
        return Movement(matrix=matrix, displacement=displacement)
    return Movement(matrix=matrix)


@pytest.mark.parametrize("kind", ["affine", "in plane", "elastic"])
@pytest.mark.parametrize("seed", range(3))
def test_no_label_moves_by_more_than_half_a_voxel(kind, seed, monkeypatch):
    """Images of their own coordinates show where each voxel was taken from."""
    monkeypatch.setattr("sparseunet.training.augmentation.points._POINTS_AT_ONCE", 300)
    size = (9, 14, 12)
    points = SamplePoints(size, _movement(kind, size, seed))
    coordinates = np.indices(points.size).astype(np.float32)
    exact = points.linear(coordinates)
    taken = np.stack(points.nearest([axis.astype(np.int16) for axis in coordinates]))
    assert exact.shape == taken.shape == (3, *size)
    assert np.abs(exact - taken).max() <= 0.5 + 1e-3
    assert exact.min() >= 0
    assert (exact.reshape(3, -1).max(axis=1) <= np.array(points.size) - 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_images_are_sampled_as_torch_samples_them(seed):
    size = (9, 14, 12)
    movement = _movement("affine", size, seed)
    points = SamplePoints(size, movement)
    box = np.random.default_rng(seed).standard_normal((2, *points.size)).astype(np.float32)
    centre = (np.array(size) - 1) / 2
    offsets = np.stack(
        np.meshgrid(*(np.arange(n) - c for n, c in zip(size, centre, strict=True)), indexing="ij"),
        axis=-1,
    )
    places = offsets @ movement.matrix.T + centre - points.start
    grid = (2 * places + 1) / np.array(points.size) - 1
    grid = torch.from_numpy(np.ascontiguousarray(grid[..., ::-1]))[None].float()
    batch = torch.from_numpy(box)[None]
    linear = functional.grid_sample(batch, grid, mode="bilinear", align_corners=False)[0]
    nearest = functional.grid_sample(batch, grid, mode="nearest", align_corners=False)[0]
    assert np.allclose(points.linear(box), linear.numpy(), atol=2e-4)
    (ours,) = points.nearest([box])
    assert np.mean(ours == nearest.numpy()) > 0.999


def test_sampling_without_a_movement_is_refused():
    with pytest.raises(ValueError, match="nothing is to be sampled"):
        SamplePoints((4, 4, 4), Movement(mirrored_axes=(0,)))


@pytest.mark.parametrize(
    "movement",
    [Movement(mirrored_axes=(0, 2)), Movement(quarter_turns=1), Movement(quarter_turns=2)],
)
@pytest.mark.parametrize("size", [(6, 12, 12), (6, 12, 16)])
def test_turned_and_mirrored_patches_hold_the_voxels_of_one_box(tmp_path, movement, size):
    store = _store(tmp_path)
    patch = _read(store, (2, 5, 3), size, movement)
    assert patch.image_CZYX.shape == (1, *size)
    z, y, x = 2, 5, 3
    turned = size
    if movement.quarter_turns % 2:
        turned = size[0], size[2], size[1]
        y, x = y + (size[1] - size[2]) // 2, x + (size[2] - size[1]) // 2
    still = _read(store, (z, y, x), turned)
    for one, other in zip(patch[:4], still[:4], strict=True):
        expected = np.rot90(other, movement.quarter_turns, (-2, -1))
        expected = np.flip(expected, [axis - 3 for axis in movement.mirrored_axes])
        assert np.array_equal(one, expected)


@pytest.mark.parametrize("patch_size", [(8, 16, 12), (4, 16, 14), (16, 12), (16, 16)])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_labels_keep_their_values_and_stay_with_the_image(tmp_path, patch_size, name):
    dataset = _dataset(_store(tmp_path), patch_size=patch_size, augmentation=name)
    agreeing = []
    for step in range(12):
        batch = dataset[step]
        assert batch.image_BCZYX.shape == (3, 1, *patch_size)
        assert batch.labels_BZYX.shape == batch.weight_BZYX.shape == (3, *patch_size)
        assert batch.image_BCZYX.isfinite().all()
        assert set(batch.weight_BZYX.unique().tolist()) <= {0.0, 0.25, 1.0}
        assert set(batch.labels_BZYX.unique().tolist()) <= {0, 1, 2}
        assert not batch.labels_BZYX[batch.weight_BZYX == 0].any()
        annotated = batch.weight_BZYX > 0
        for image, labels, mask in zip(
            batch.image_BCZYX, batch.labels_BZYX, annotated, strict=True
        ):
            if len(labels[mask].unique()) > 1:
                pair = torch.stack([image[0][mask], labels[mask].float()])
                agreeing.append(float(torch.corrcoef(pair)[0, 1]))
    assert np.median(agreeing) > (0.9 if name in ("nnunet", "z25") else 0.97)


def test_a_batch_depends_on_seed_and_step_only(tmp_path):
    store = _store(tmp_path)
    plain = _dataset(store, memory_bytes=0)
    assert plain._in_memory.kept == ()
    some = _dataset(store, memory_bytes=3 * 10**5 // 4)
    whole = _dataset(store)
    assert whole._in_memory.kept == store.cases
    copied = pickle.loads(pickle.dumps(whole))
    assert copied._in_memory.kept == ()
    expected = [plain[step] for step in range(8)]
    threads = torch.get_num_threads()
    for dataset, count in ((some, 1), (whole, 2), (copied, 1), (whole, 1)):
        torch.set_num_threads(count)
        for step in reversed(range(8)):
            assert _same(dataset[step], expected[step])
    torch.set_num_threads(threads)
    assert not _same(_dataset(store, seed=4)[0], expected[0])
    assert not _same(_dataset(store, stream=1)[0], expected[0])


def test_augmentation_leaves_cases_in_memory_alone(tmp_path):
    store = _store(tmp_path)
    dataset = _dataset(store, augmentation="z25", batch_size=8)
    for step in range(6):
        dataset[step]
    for case in store.cases:
        read = store.read_patch(case, (0, 0, 0), SHAPE)
        kept = dataset._in_memory.read_patch(case, (0, 0, 0), SHAPE)
        assert all(np.array_equal(one, other) for one, other in zip(read, kept, strict=True))


def test_outside_the_image_is_blanked_where_the_plan_asks_for_it(tmp_path):
    store = _store(tmp_path)
    blanked, full = _dataset(store, blank_outside=True), _dataset(store)
    seen = 0
    for step in range(10):
        one, other = blanked[step].image_BCZYX, full[step].image_BCZYX
        different = one != other
        assert (one[different] == 0).all()
        seen += int(different.sum())
    assert seen > 0


def test_only_as_many_cases_as_fit_lie_in_memory(tmp_path):
    store = _store(tmp_path, count=3)
    voxels = int(np.prod(SHAPE))
    one = voxels * (4 + 1 + 1 + 4 + 1)
    assert CasesInMemory(store, store.cases, max_bytes=one - 1).kept == ()
    assert CasesInMemory(store, store.cases, max_bytes=one).kept == ("case_0",)
    kept = CasesInMemory(store, store.cases, max_bytes=2 * one)
    assert kept.kept == ("case_0", "case_1")
    for case in store.cases:
        box = (1, 2, 3), (9, 12, 20)
        for ours, stored in zip(
            kept.read_patch(case, *box), store.read_patch(case, *box), strict=True
        ):
            assert np.array_equal(ours, stored)
        with pytest.raises(ValueError, match="reaches outside"):
            kept.read_patch(case, (-1, 0, 0), (3, 3, 3))
    with pytest.raises(ValueError, match="read-only"):
        kept.read_patch("case_0", *box).image_CZYX[:] = 0
