"""A run folder as training leaves it, with a tiny network of random weights."""

from pathlib import Path

import pytest
import torch

from sparseunet.artifacts import write_json
from sparseunet.data.load import parse_labels
from sparseunet.fingerprint.fingerprint import IntensityProperties
from sparseunet.networks.build import build_network
from sparseunet.planning.nnunet_plans import plan_to_nnunet
from sparseunet.planning.plan import Configuration, NetworkPlan, Plan
from sparseunet.workspace import CHECKPOINT_FINAL, RUN_JSON, fold_folder

CLASSES = {"background": 0, "anterior": 1, "posterior": 2}


def _configuration(dimensions):
    name = "2d" if dimensions == 2 else "3d_fullres"
    return Configuration(
        name=name,
        data_identifier=f"nnUNetPlans_{name}",
        batch_size=2,
        patch_size=(24, 32, 24)[-dimensions:],
        median_shape=(35.0, 51.0, 35.0)[-dimensions:],
        spacing_mm=(1.0,) * dimensions,
        normalization=("zscore",),
        use_mask_for_norm=(False,),
        network=NetworkPlan(
            architecture="plain_unet",
            features_per_stage=(4, 8),
            kernel_sizes=((3,) * dimensions,) * 2,
            strides=((1,) * dimensions, (2,) * dimensions),
            encoder_depths=(1, 1),
            decoder_depths=(1,),
        ),
        batch_dice=False,
    )


def _plan(dimensions, transpose):
    backward = tuple(transpose.index(axis) for axis in range(3))
    intensities = IntensityProperties(
        mean=0.0, median=0.0, std=1.0, min=-9.0, max=9.0, percentile_00_5=-9.0, percentile_99_5=9.0
    )
    configuration = _configuration(dimensions)
    return Plan(
        dataset_name="Dataset004_Hippocampus",
        plans_name="nnUNetPlans",
        planner="default",
        original_median_spacing_mm=(1.0, 1.0, 1.0),
        original_median_shape=(35, 51, 35),
        image_reader_writer="SimpleITKIO",
        transpose_forward=transpose,
        transpose_backward=backward,
        intensities=(intensities,),
        configurations={configuration.name: configuration},
    )


@pytest.fixture
def write_run():
    """A function that writes a run folder: (folder, folds, ...) -> folder."""

    def write(
        folder: Path, folds=(0,), *, dimensions=3, transpose=(0, 1, 2), labels=None, seed=0
    ) -> Path:
        plan = _plan(dimensions, transpose)
        (configuration,) = plan.configurations.values()
        dataset_json = {
            "channel_names": {"0": "MRI"},
            "labels": labels or CLASSES,
            "numTraining": 4,
            "file_ending": ".nii.gz",
        }
        if labels is not None:
            dataset_json["regions_class_order"] = [1, 2]
        for position, fold in enumerate(folds):
            torch.manual_seed(seed + position)
            network = build_network(
                configuration.network,
                num_input_channels=1,
                num_outputs=parse_labels(dataset_json).num_outputs,
                deep_supervision=False,
            )
            description = {
                "kind": "sparseunet.run",
                "version": 1,
                "run_id": folder.name,
                "plan": plan_to_nnunet(plan),
                "configuration": configuration.name,
                "dataset_json": dataset_json,
                "training": {"mirror_axes": list(range(dimensions))},
            }
            write_json(fold_folder(folder, fold) / RUN_JSON, description)
            checkpoint = fold_folder(folder, fold) / CHECKPOINT_FINAL
            torch.save({"weights": network.state_dict()}, checkpoint)
        return folder

    return write
