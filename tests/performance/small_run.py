"""A run folder with a network of random weights, and scans, for measuring prediction alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparseunet.artifacts import write_json
from sparseunet.data.geometry import Geometry
from sparseunet.data.itk import write_itk
from sparseunet.data.load import parse_labels
from sparseunet.fingerprint.fingerprint import IntensityProperties
from sparseunet.networks.build import build_network
from sparseunet.planning.nnunet_plans import plan_to_nnunet
from sparseunet.planning.plan import Configuration, NetworkPlan, Plan
from sparseunet.workspace import CHECKPOINT_FINAL, RUN_JSON, fold_folder


def write_run(
    folder: Path,
    *,
    num_classes: int,
    patch_size: Sequence[int],
    spacing_mm: Sequence[float],
    num_features: int,
    num_stages: int = 4,
) -> Path:
    """Write a run of a small plain U-Net on CT that was never trained, and return its folder."""
    configuration = Configuration(
        name="3d_fullres",
        data_identifier="nnUNetPlans_3d_fullres",
        batch_size=2,
        patch_size=tuple(patch_size),
        median_shape=tuple(map(float, patch_size)),
        spacing_mm=tuple(spacing_mm),
        normalization=("ct",),
        use_mask_for_norm=(False,),
        network=NetworkPlan(
            architecture="plain_unet",
            features_per_stage=tuple(num_features * 2**stage for stage in range(num_stages)),
            kernel_sizes=((3, 3, 3),) * num_stages,
            strides=((1, 1, 1),) + ((2, 2, 2),) * (num_stages - 1),
            encoder_depths=(2,) * num_stages,
            decoder_depths=(2,) * (num_stages - 1),
        ),
        batch_dice=False,
    )
    intensities = IntensityProperties(
        mean=40.0,
        median=40.0,
        std=200.0,
        min=-1000.0,
        max=1500.0,
        percentile_00_5=-900.0,
        percentile_99_5=1200.0,
    )
    plan = Plan(
        dataset_name="Dataset900_Memory",
        plans_name="nnUNetPlans",
        planner="default",
        original_median_spacing_mm=tuple(spacing_mm),
        original_median_shape=tuple(patch_size),
        image_reader_writer="SimpleITKIO",
        transpose_forward=(0, 1, 2),
        transpose_backward=(0, 1, 2),
        intensities=(intensities,),
        configurations={configuration.name: configuration},
    )
    names = ("background", *(f"class_{number}" for number in range(1, num_classes)))
    dataset_json = {
        "channel_names": {"0": "CT"},
        "labels": {name: number for number, name in enumerate(names)},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    return write_planned_run(folder, plan, configuration, dataset_json)


def write_planned_run(
    folder: Path, plan: Plan, configuration: Configuration, dataset_json: dict[str, Any]
) -> Path:
    """Write a run of a planned network that was never trained, and return its folder."""
    planned = replace(plan, configurations={configuration.name: configuration})
    description = {
        "kind": "sparseunet.run",
        "version": 1,
        "run_id": folder.name,
        "plan": plan_to_nnunet(planned),
        "configuration": configuration.name,
        "dataset_json": dataset_json,
        "training": {"mirror_axes": list(range(configuration.dimensions))},
    }
    torch.manual_seed(0)
    network = build_network(
        configuration.network,
        num_input_channels=len(plan.intensities),
        num_outputs=parse_labels(dataset_json).num_outputs,
        deep_supervision=False,
    )
    write_json(fold_folder(folder, 0) / RUN_JSON, description)
    torch.save({"weights": network.state_dict()}, fold_folder(folder, 0) / CHECKPOINT_FINAL)
    return folder


def write_scan(file: Path, *, shape: Sequence[int], spacing_mm: Sequence[float]) -> Path:
    """Write noise over a few large blocks as int16, plane by plane in memory, and return the file.

    Noise does not compress, so reading costs as much as that of a real scan.
    """
    random = np.random.default_rng(0)
    voxels_ZYX = np.empty(tuple(shape), np.int16)
    for z, plane_YX in enumerate(voxels_ZYX):
        plane_YX[...] = random.normal(100 * (z // 32 % 4), 20, size=plane_YX.shape)
        plane_YX[: shape[1] // 3] += 300
    file.parent.mkdir(parents=True, exist_ok=True)
    geometry = Geometry(shape=tuple(shape), spacing_mm=tuple(spacing_mm))
    write_itk(file, voxels_ZYX, geometry)
    return file
