"""Whole trainings keep what is promised for 2D and 3D, classes and regions, dense or sparse."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import (
    LABELS,
    assert_same_training,
    assert_same_weights,
    make_recipe,
    make_store,
    read_weights,
    train_tiny,
)

from sparseunet.data.labels import LabelSchema
from sparseunet.preprocessing.store import CaseStore
from sparseunet.preprocessing.write import write_case
from sparseunet.training.epoch_sums import EpochSums
from sparseunet.training.interruption import TrainingInterruptedError

REGIONS = LabelSchema(classes={"background": 0}, regions={"box": (1,)}, regions_class_order=(1,))
KINDS = {
    "dense": {},
    "slices": {"slices": [4, 8]},
    "scribbles": {"scribbles": True},
    "scribbles in slices": {"slices": [4, 8], "scribbles": True},
}

spaces = pytest.mark.parametrize("dimensions", [2, 3])
outputs = pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["classes", "regions"])


@spaces
@outputs
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dense"])
def test_labels_of_unannotated_voxels_do_not_change_the_weights(tmp_path, dimensions, labels, kind):
    store = make_store(tmp_path / "data", **KINDS[kind])
    how = {"recipe": make_recipe(iterations=3), "dimensions": dimensions, "labels": labels}
    first = read_weights(train_tiny(store, tmp_path / "first", **how))
    for name in store.cases:
        case = store.read(name)
        known = case.annotation
        garbage = np.where(known.annotated_ZYX, known.labels_ZYX, 1 - known.labels_ZYX)
        assert (garbage != known.labels_ZYX).any()
        changed = replace(known, labels_ZYX=garbage.astype(np.uint8))
        write_case(tmp_path / "data", replace(case, annotation=changed), patch_size=(8, 16, 16))
    second = read_weights(train_tiny(CaseStore(tmp_path / "data"), tmp_path / "second", **how))
    assert_same_weights(first, second)


@spaces
@outputs
@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_within_an_epoch_and_resumed_it_equals_an_undisturbed_training(
    tmp_path, dimensions, labels, kind
):
    store = make_store(tmp_path / "data", **KINDS[kind])
    how = {
        "recipe": make_recipe(iterations=5, iterations_per_epoch=2),
        "dimensions": dimensions,
        "labels": labels,
        "val": ["case_0"],
    }
    train_tiny(store, tmp_path / "whole", **how)
    signals = iter([None, None, None, None, 15])  # asked before steps and validation batches
    with pytest.raises(TrainingInterruptedError):
        train_tiny(store, tmp_path / "cut", stop_signal=lambda: next(signals), **how)
    train_tiny(store, tmp_path / "cut", **how)
    assert_same_training(tmp_path / "whole", tmp_path / "cut")


def test_a_batch_without_annotation_is_left_out_of_the_mean():
    epoch_sums = EpochSums()
    epoch_sums.add(-0.5, torch.tensor([[3, 1, 0]]), annotated_voxels=9)
    epoch_sums.add(0.0, torch.tensor([[0, 0, 0]]), annotated_voxels=0)
    epoch_sums.add(-0.7, torch.tensor([[1, 0, 2]]), annotated_voxels=5)
    assert epoch_sums.mean_loss == pytest.approx(-0.6)
    assert epoch_sums.counts.tolist() == [[4, 1, 2]]
    assert EpochSums().mean_loss is None
