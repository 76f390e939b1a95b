"""Networks of MONAI (extra `monai`): SegResNet, UNETR and the attention U-Net. Single output each.

Z25 table 2 names SegResNet (Myronenko 2019) for DBC and UNETR (Hatamizadeh 2022) for ATLAS, and the
3D attention U-Net (Oktay 2018) as a check. Weights are initialised as MONAI does.
"""

import math
from importlib import import_module
from typing import Any

from torch import nn

from sparseunet.errors import RequestError
from sparseunet.planning.plan import NetworkPlan


def segresnet(
    plan: NetworkPlan,
    *,
    num_input_channels: int,
    num_outputs: int,
    deep_supervision: bool,  # noqa: ARG001 - it has one output
) -> nn.Module:
    """Return MONAI's SegResNet, without its variational branch, as Z25 uses it.

    Group norm of eight groups, or as many as divide the features.
    """
    base = plan.features_per_stage[0]
    network: nn.Module = _nets().SegResNet(
        spatial_dims=len(plan.strides[0]),
        init_filters=base,
        in_channels=num_input_channels,
        out_channels=num_outputs,
        norm=("GROUP", {"num_groups": math.gcd(8, base)}),
        blocks_down=plan.encoder_depths,
        blocks_up=plan.decoder_depths,
    )
    return network


def unetr(
    plan: NetworkPlan,
    *,
    num_input_channels: int,
    num_outputs: int,
    deep_supervision: bool,  # noqa: ARG001 - it has one output
) -> nn.Module:
    """Return MONAI's UNETR for exactly the patch of `plan.arguments`, which its positions fix.

    A transformer of twelve layers over cubes of 16 voxels; its width is the last of the features
    per stage, 768 by default, and narrows with them.
    """
    hidden = plan.features_per_stage[-1]
    network: nn.Module = _nets().UNETR(
        spatial_dims=len(plan.strides[0]),
        in_channels=num_input_channels,
        out_channels=num_outputs,
        img_size=tuple(plan.arguments["patch_size"]),
        feature_size=plan.features_per_stage[0],
        hidden_size=hidden,
        mlp_dim=4 * hidden,
        num_heads=plan.arguments["num_heads"],
    )
    return network


def attention_unet(
    plan: NetworkPlan,
    *,
    num_input_channels: int,
    num_outputs: int,
    deep_supervision: bool,  # noqa: ARG001 - it has one output
) -> nn.Module:
    """Return MONAI's attention U-Net with the strides of the plan, kernels of 3 everywhere."""
    network: nn.Module = _nets().AttentionUnet(
        spatial_dims=len(plan.strides[0]),
        in_channels=num_input_channels,
        out_channels=num_outputs,
        channels=plan.features_per_stage,
        strides=plan.strides[1:],
    )
    return network


def _nets() -> Any:
    try:
        return import_module("monai.networks.nets")
    except ImportError as error:
        raise RequestError(
            f"MONAI cannot be imported ({error}); install it with pip install 'sparseunet[monai]'."
        ) from None
