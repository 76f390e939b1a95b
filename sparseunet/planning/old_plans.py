"""The form in which nnU-Net before 2.4 wrote networks into its plans."""

from collections.abc import Mapping
from typing import Any

_NETWORKS = {
    "PlainConvUNet": ("PlainConvUNet", "n_conv_per_stage"),
    "ResidualEncoderUNet": ("ResidualEncoderUNet", "n_blocks_per_stage"),
}
"""Old class name to today's, and to the name of its depths."""


def with_architecture(configuration: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a configuration of a plans file with its network as nnU-Net 2.4 and later write it.

    The old form names base features, their maximum and pooling kernels (nnU-Net 2.8.1 reads it the
    same way). Today's form, and what is neither, is returned as it is.

    Raises:
        KeyError: It is of the old form, and a part of that is missing.
    """
    if "architecture" in configuration or configuration.get("UNet_class_name") not in _NETWORKS:
        return configuration
    network, depths_key = _NETWORKS[configuration["UNet_class_name"]]
    depths = configuration["n_conv_per_stage_encoder"]
    base, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
    dimensions = len(configuration["patch_size"])
    arguments = {
        "n_stages": len(depths),
        "features_per_stage": [min(base * 2**stage, most) for stage in range(len(depths))],
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": configuration["conv_kernel_sizes"],
        "strides": configuration["pool_op_kernel_sizes"],
        depths_key: depths,
        "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
    }
    architecture = {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
        "arch_kwargs": arguments,
    }
    return {**configuration, "architecture": architecture}
