"""A training that takes a second: three boxes in noise and a network of four features.

    from tiny_training import make_store, train_tiny

As a program, `python tiny_training.py DATA RUN '{"num_workers": 2}'`, it trains and ends as the
command line would, so that tests can kill a real process.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.dataset import Split
from sparseunet.data.geometry import Geometry
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import SparseUNetError
from sparseunet.fingerprint.fingerprint import IntensityProperties
from sparseunet.planning.overrides import with_architecture, with_base_features
from sparseunet.planning.plan import Configuration, NetworkPlan, Plan
from sparseunet.preprocessing.case import PreprocessedCase, Restoration
from sparseunet.preprocessing.store import CaseStore
from sparseunet.preprocessing.write import write_case
from sparseunet.runs.record import RunRecord, current_versions, write_record
from sparseunet.training.fit import fit
from sparseunet.training.interruption import stop_on_signals
from sparseunet.training.recipe import Recipe
from sparseunet.training.run_log import read_log
from sparseunet.training.step import Hardware

_TIMES = {"duration_s", "val_duration_s", "waiting_for_data", "peak_memory_mib"}
"""Of a line of the log: differ from run to run."""

LABELS = LabelSchema(classes={"background": 0, "box": 1}, regions={})
SHAPE = (12, 20, 20)
CPU = Hardware(device=torch.device("cpu"), dtype=None, num_workers=0)


def make_configuration(dimensions=3):
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


def make_plan():
    intensities = IntensityProperties(
        mean=0.0, median=0.0, std=1.0, min=-9.0, max=9.0, percentile_00_5=-9.0, percentile_99_5=9.0
    )
    return Plan(
        dataset_name="Dataset001_Tiny",
        plans_name="nnUNetPlans",
        planner="default",
        original_median_spacing_mm=(1.0, 1.0, 1.0),
        original_median_shape=SHAPE,
        image_reader_writer="SimpleITKIO",
        transpose_forward=(0, 1, 2),
        transpose_backward=(0, 1, 2),
        intensities=(intensities,),
        configurations={"3d": make_configuration()},
    )


def write_tiny_record(folder, *, recipe=None, configuration=None, plan=None, **changes):
    """Write `run.json` as a training would; `changes` are fields of `RunRecord`."""
    recipe = recipe or make_recipe()
    known = {
        "run_id": folder.parent.name,
        "dataset_name": "Dataset001_Tiny",
        "fold": 0,
        "plan": plan or make_plan(),
        "configuration": configuration or make_configuration(),
        "recipe": recipe,
        "mirror_axes": recipe.mirror_axes,
        "split": Split(train=("a",), val=("b",)),
        "identity": {},
        "dataset_json": {"labels": {"background": 0, "box": 1}},
        "precision": "float32",
        "versions": current_versions(),
    }
    write_record(folder, RunRecord(**known | changes))


def make_store(folder, *, slices=None, scribbles=False, count=3, without_box=()):
    """Write cases; in those `without_box`, given by number, nobody looked for the box.

    Annotated are all slices, some, or with `scribbles` a tenth of the voxels of these.
    """
    rng = np.random.default_rng(0)
    for number in range(count):
        labels = np.zeros(SHAPE, np.uint8)
        corner = rng.integers(2, 8, 3) // (2, 1, 1)
        labels[tuple(slice(start, start + 8) for start in corner)] = 1
        source = np.full(SHAPE, Source.MANUAL, np.uint8)
        if slices is not None:
            source[:] = Source.NONE
            source[list(slices)] = Source.MANUAL
        if scribbles:
            source[rng.random(SHAPE) < 0.9] = Source.NONE
        image = labels + rng.normal(0, 0.3, SHAPE)
        if number in without_box:
            labels[:] = 0
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
        outputs = (True, False) if number in without_box else None
        write_case(folder, case, patch_size=(8, 16, 16), annotated_outputs=outputs)
    return CaseStore(folder)


def make_recipe(**changes):
    defaults = {
        "iterations": 9,
        "iterations_per_epoch": 3,
        "mirror_axes": (0, 1, 2),
        "seed": 1,
    }
    return Recipe(**(defaults | changes))


def train_tiny(
    store,
    folder,
    *,
    recipe=None,
    dimensions=3,
    architecture="plain_unet",
    hardware=CPU,
    val=(),
    batch_size=2,
    labels=LABELS,
    **more,
):
    folder.mkdir(exist_ok=True)
    configuration = with_architecture(make_configuration(dimensions), architecture)
    configuration = replace(configuration, batch_size=batch_size)
    return fit(
        store,
        Split(train=store.cases, val=tuple(val)),
        configuration=with_base_features(configuration, 4),
        labels=labels,
        recipe=recipe or make_recipe(),
        hardware=hardware,
        folder=folder,
        **more,
    )


def read_weights(path):
    return torch.load(path, weights_only=True)["weights"]


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


def log_without_times(folder):
    """Return what two runs of the same training must have in common."""
    return [
        {key: value for key, value in entry.items() if key not in _TIMES}
        for entry in read_log(folder)
    ]


def assert_same_training(one, other):
    """Compare final weights, best weights and logs bit for bit, given the folders."""
    assert log_without_times(one) == log_without_times(other)
    for name in ("checkpoint_final.pt", "checkpoint_best.pt"):
        assert (one / name).is_file() == (other / name).is_file(), name
        if (one / name).is_file():
            assert_same_weights(read_weights(one / name), read_weights(other / name))


def main(data, run, options="{}"):
    given = json.loads(options)
    hardware = Hardware(
        device=torch.device("cpu"), dtype=None, num_workers=given.pop("num_workers", 0)
    )
    recipe = make_recipe(**given.pop("recipe", {}))
    store = CaseStore(Path(data))
    val = store.cases[: given.pop("num_val", 0)]
    try:
        with stop_on_signals() as stop_signal:
            train_tiny(
                store,
                Path(run),
                recipe=recipe,
                hardware=hardware,
                val=val,
                stop_signal=stop_signal,
                **given,
            )
    except SparseUNetError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
