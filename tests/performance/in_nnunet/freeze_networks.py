"""Freeze tiny networks of nnU-Net with what they answer, for `tests/golden`.

Runs in nnU-Net's environment (2.8.1, dynamic-network-architectures 0.4.4), without arguments, and
writes into `tests/golden/nnunet_networks`.

Each file is a checkpoint as nnU-Net's trainer writes it (NumPy numbers in its log included) beside
an input and the logits. The networks are built by nnU-Net's own code from plans, with random
weights; biases and norms too, so that none of them could be left out unnoticed.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

FOLDER = Path(__file__).resolve().parents[2] / "golden" / "nnunet_networks"
PLAIN = {"background": 0, "one": 1, "two": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    _freeze("plain_3d", dimensions=3)
    _freeze("regions_2d", dimensions=2, channels=2, labels=REGIONS)
    _freeze("residual_2d", dimensions=2, residual=True)
    _freeze("second_stage_3d", dimensions=3, residual=True, name="3d_cascade_fullres")
    _freeze("old_plans_3d", dimensions=3, old=True)


def _freeze(
    title, *, dimensions, residual=False, channels=1, labels=PLAIN, name=None, old=False
) -> None:
    name = name or ("2d" if dimensions == 2 else "3d_fullres")
    dataset_json = {
        "channel_names": {str(channel): "MRI" for channel in range(channels)},
        "labels": labels,
        "numTraining": 3,
        "file_ending": ".nii.gz",
        "licence": "CC0",
    }
    if labels is REGIONS:
        dataset_json["regions_class_order"] = [1, 2]
    plans = _plans(name, dimensions, channels, residual=residual, old=old)
    manager = PlansManager(copy.deepcopy(plans))
    configuration = manager.get_configuration(name)
    inputs = determine_num_input_channels(manager, configuration, dataset_json)
    torch.manual_seed(len(title))
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        inputs,
        manager.get_label_manager(dataset_json).num_segmentation_heads,
        deep_supervision=False,
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        image = torch.randn(1, inputs, *configuration.patch_size)
        logits = network(image)
    checkpoint = {
        "network_weights": network.state_dict(),
        "optimizer_state": {},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float32(0.5)], "ema_fg_dice": [np.float64(0.25)]},
        "_best_ema": np.float32(0.25),
        "current_epoch": 1,
        "init_args": {
            "plans": plans,
            "configuration": name,
            "fold": 0,
            "dataset_json": dataset_json,
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": tuple(range(dimensions)),
        "input": image,
        "logits": logits,
    }
    torch.save(checkpoint, FOLDER / f"{title}.pth")


def _plans(name, dimensions, channels, *, residual, old):
    kernels = [[1, 3, 3][-dimensions:], [3] * dimensions, [3] * dimensions]
    strides = [[1] * dimensions, [1, 2, 2][-dimensions:], [2] * dimensions]
    if residual and dimensions == 2:  # more features at the same resolution
        strides[1] = [1, 1]
    encoder, decoder = ([1, 2, 1], [1, 1]) if residual else ([1, 1, 2], [2, 1])
    configuration = {
        "data_identifier": "nnUNetPlans_x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 8, 12][:dimensions],
        "median_image_size_in_voxels": [8.0] * dimensions,
        "spacing": [1.0] * dimensions,
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "batch_dice": False,
    }
    if name == "3d_cascade_fullres":
        configuration["previous_stage"] = "3d_lowres"
    if old:
        configuration |= {
            "UNet_class_name": "PlainConvUNet",
            "UNet_base_num_features": 2,
            "unet_max_num_features": 3,
            "n_conv_per_stage_encoder": encoder,
            "n_conv_per_stage_decoder": decoder,
            "num_pool_per_axis": [1, 2, 2],
            "pool_op_kernel_sizes": strides,
            "conv_kernel_sizes": kernels,
        }
    else:
        configuration["architecture"] = {
            "network_class_name": "dynamic_network_architectures.architectures.unet."
            + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [2, 3, 3],
                "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
                "kernel_sizes": kernels,
                "strides": strides,
                ("n_blocks_per_stage" if residual else "n_conv_per_stage"): encoder,
                "n_conv_per_stage_decoder": decoder,
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }
    intensities = dict.fromkeys(
        ("mean", "median", "min", "max", "percentile_00_5", "percentile_99_5"), 0.0
    )
    return {
        "dataset_name": "Dataset007_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [16, 16, 16],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {name: configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(channel): intensities | {"std": 1.0} for channel in range(channels)
        },
    }


if __name__ == "__main__":
    main()
