"""Training learns, can be interrupted, and is the same every time."""

import json

import numpy as np
import pytest
import torch

from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.dataset import Split
from sparseunet.data.geometry import Geometry
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError, SparseUNetError, UnreadableFileError
from sparseunet.planning.overrides import with_architecture, with_base_features
from sparseunet.planning.plan import Configuration, NetworkPlan
from sparseunet.preprocessing.case import PreprocessedCase, Restoration
from sparseunet.preprocessing.store import CaseStore
from sparseunet.preprocessing.write import write_case
from sparseunet.training.config import TrainingConfig
from sparseunet.training.fit import fit
from sparseunet.training.step import Hardware

LABELS = LabelSchema(classes={"background": 0, "box": 1}, regions={})
SHAPE = (12, 20, 20)
CPU = Hardware(device=torch.device("cpu"), dtype=None, num_workers=0)


def _configuration(dimensions=3):
    patch_size = (8, 16, 16)[-dimensions:]
    return Configuration(
        name=f"{dimensions}d",
        data_identifier="test",
        batch_size=2,
        patch_size=patch_size,
        median_shape=tuple(map(float, SHAPE[-dimensions:])),
        spacing_mm=(1.0,) * dimensions,
        normalization=("zscore",),
        use_mask_for_norm=(False,),
        network=NetworkPlan(
            architecture="plain_unet",
            features_per_stage=(4, 8, 16),
            kernel_sizes=((3,) * dimensions,) * 3,
            strides=((1,) * dimensions, *((2,) * dimensions,) * 2),
            encoder_depths=(1,) * 3,
            decoder_depths=(1,) * 2,
        ),
        batch_dice=False,
    )


def _store(folder, *, slices=None, count=3):
    rng = np.random.default_rng(0)
    for number in range(count):
        labels = np.zeros(SHAPE, np.uint8)
        corner = rng.integers(2, 8, 3) // (2, 1, 1)
        labels[tuple(slice(start, start + 8) for start in corner)] = 1
        source = np.full(SHAPE, Source.MANUAL, np.uint8)
        if slices is not None:
            source[:] = Source.NONE
            source[list(slices)] = Source.MANUAL
        image = labels + rng.normal(0, 0.3, SHAPE)
        case = PreprocessedCase(
            name=f"case_{number}",
            image_CZYX=image[None].astype(np.float32),
            inside_ZYX=np.ones(SHAPE, bool),
            annotation=Annotation(
                labels_ZYX=np.where(source > 0, labels, 0).astype(np.uint8), source_ZYX=source
            ),
            restoration=Restoration(
                geometry=Geometry(shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0)),
                transpose_forward=(0, 1, 2),
                crop_start=(0, 0, 0),
                crop_shape=SHAPE,
                network_shape=SHAPE,
            ),
        )
        write_case(folder, case, patch_size=(8, 16, 16))
    return CaseStore(folder)


def _config(**changes):
    defaults = {"iterations": 9, "iterations_per_epoch": 3, "seed": 1}
    return TrainingConfig(**(defaults | changes))


def _fit(
    store,
    folder,
    *,
    config=None,
    dimensions=3,
    hardware=CPU,
    val=(),
    on_epoch=None,
    architecture="plain_unet",
):
    folder.mkdir(exist_ok=True)
    configuration = with_architecture(_configuration(dimensions), architecture)
    return fit(
        store,
        Split(train=store.cases, val=tuple(val)),
        configuration=with_base_features(configuration, 4),
        labels=LABELS,
        config=config or _config(),
        hardware=hardware,
        folder=folder,
        on_epoch=on_epoch,
    )


def _weights(path):
    return torch.load(path, weights_only=True)["weights"]


def _log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def _assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


@pytest.mark.parametrize("dimensions", [2, 3])
def test_sparse_training_finds_the_box(tmp_path, dimensions):
    store = _store(tmp_path / "data", slices=[4, 8])
    config = _config(iterations=60, iterations_per_epoch=20)
    _fit(store, tmp_path / "run", config=config, dimensions=dimensions)
    log = _log(tmp_path / "run")
    assert log[-1]["train_loss"] < log[0]["train_loss"] - 0.3
    assert log[-1]["pseudo_dice"]["box"] > 0.6


@pytest.mark.parametrize(
    ("num_workers", "architecture", "recipe"),
    [
        (0, "plain_unet", {}),
        (1, "plain_unet", {}),
        (1, "densevoxnet", {"optimizer": "adamw", "schedule": "cosine", "warmup": 2}),
    ],
)
def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path, num_workers, architecture, recipe
):
    store = _store(tmp_path / "data", slices=[4, 8])
    hardware = Hardware(device=torch.device("cpu"), dtype=None, num_workers=num_workers)
    how = {"hardware": hardware, "architecture": architecture, "config": _config(**recipe)}
    undisturbed = _fit(store, tmp_path / "whole", **how)

    class PulledPlugError(Exception):
        pass

    def pull_the_plug(log):
        if len(log) == 2:
            raise PulledPlugError

    with pytest.raises(PulledPlugError):
        _fit(store, tmp_path / "cut", on_epoch=pull_the_plug, **how)
    resumed = _fit(store, tmp_path / "cut", **how)
    _assert_same_weights(_weights(undisturbed), _weights(resumed))
    losses = [[entry["train_loss"] for entry in _log(tmp_path / name)] for name in ("whole", "cut")]
    assert losses[0] == losses[1]


def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(tmp_path):
    store = _store(tmp_path / "data")
    results = []
    for workers in (0, 2):
        hardware = Hardware(device=torch.device("cpu"), dtype=None, num_workers=workers)
        results.append(_weights(_fit(store, tmp_path / f"run{workers}", hardware=hardware)))
    _assert_same_weights(*results)
    other = _weights(_fit(store, tmp_path / "other", config=_config(seed=2)))
    assert any(not torch.equal(results[0][key], other[key]) for key in other)


def test_labels_of_unannotated_voxels_do_not_change_the_weights(tmp_path):
    store = _store(tmp_path / "data", slices=[4, 8])
    first = _weights(_fit(store, tmp_path / "first"))
    for name in store.cases:
        case = store.read(name)
        garbage = np.where(case.annotation.annotated_ZYX, case.annotation.labels_ZYX, 1)
        changed = PreprocessedCase(
            name=name,
            image_CZYX=case.image_CZYX,
            inside_ZYX=case.inside_ZYX,
            annotation=Annotation(
                labels_ZYX=garbage.astype(np.uint8), source_ZYX=case.annotation.source_ZYX
            ),
            restoration=case.restoration,
        )
        write_case(tmp_path / "data", changed, patch_size=(8, 16, 16))
    second = _weights(_fit(CaseStore(tmp_path / "data"), tmp_path / "second"))
    _assert_same_weights(first, second)


def test_cases_without_annotation_are_left_out(tmp_path):
    store = _store(tmp_path / "data", slices=[])
    with pytest.raises(RequestError, match="None of the 3 training cases"):
        _fit(store, tmp_path / "run")


def test_validation_is_logged_where_there_are_validation_cases(tmp_path):
    store = _store(tmp_path / "data")
    _fit(store, tmp_path / "run", val=store.cases[:1])
    entry = _log(tmp_path / "run")[-1]
    assert np.isfinite(entry["val_loss"])
    assert "box" in entry["val_pseudo_dice"]


def test_watching_validation_cases_changes_nothing_that_is_learnt(tmp_path):
    """Batch norm gathers statistics in training mode, and dropout draws random numbers."""
    store = _store(tmp_path / "data")
    kept = [
        _weights(_fit(store, tmp_path / f"run{len(val)}", val=val, architecture="densevoxnet"))
        for val in ((), store.cases[:1])
    ]
    _assert_same_weights(*kept)
    assert any("running_mean" in key for key in kept[0])


def test_a_loss_that_is_no_number_stops_training_with_the_remedy(tmp_path):
    store = _store(tmp_path / "data")
    with pytest.raises(SparseUNetError, match="lower --learning-rate"):
        _fit(store, tmp_path / "run", config=_config(learning_rate=1e30))


def test_a_damaged_checkpoint_is_named(tmp_path):
    store = _store(tmp_path / "data")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint_latest.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UnreadableFileError, match=r"checkpoint_latest\.pt"):
        _fit(store, tmp_path / "run")
