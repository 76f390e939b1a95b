"""Values of a plans file that no planner writes: the file may come from anywhere."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sparseunet.planning.plan import Configuration
from sparseunet.workspace import is_plain_name

_PER_AXIS = ("kernel_sizes", "strides")
_PER_STAGE = (
    "features_per_stage",
    "n_conv_per_stage",
    "n_blocks_per_stage",
    "n_conv_per_stage_decoder",
)
_U_NETS = ("plain_unet", "residual_unet")
_MAX_DEPTH = 1000
"""Blocks per stage; a plan with more is a mistake, and building them would take for ever."""
_MAX_FEATURES = 2**16
_MAX_KERNEL = 99
_MAX_PATCH_VOXELS = 2**28
"""645³. The first features of a network would take 30 GiB; planners end far below."""
_STATISTICS = ("mean", "median", "std", "min", "max", "percentile_00_5", "percentile_99_5")
_NEEDS_STATISTICS = "CTNormalization"


def wrong_values(configuration: Mapping[str, Any]) -> list[str]:
    """Return, one sentence each, what is wrong with the values of a configuration.

    Args:
        configuration: With all that it inherits, as the file has it. Missing keys are not wrong.
    """
    patch_size = configuration.get("patch_size", [1, 1])
    if not _are_sizes(patch_size) or len(patch_size) not in (2, 3):
        return [f"patch_size is {_short(patch_size)}, expected 2 or 3 whole numbers above 0"]
    problems = []
    if math.prod(patch_size) > _MAX_PATCH_VOXELS:
        problems.append(
            f"patch_size is {_short(patch_size)}, expected at most {_MAX_PATCH_VOXELS} voxels"
        )
    edges = f"{len(patch_size)} numbers above 0, one per axis of the patch"
    for key in ("spacing", "median_image_size_in_voxels"):
        value = configuration.get(key, patch_size)
        if not _are_lengths(value) or len(value) != len(patch_size):
            problems.append(f"{key} is {_short(value)}, expected {edges}")
    if not _are_sizes([configuration.get("batch_size", 1)]):
        problems.append(
            f"batch_size is {_short(configuration['batch_size'])}, expected a whole number above 0"
        )
    for key in ("data_identifier", "previous_stage", "next_stage"):
        name = configuration.get(key)
        if name is not None and not is_plain_name(name):
            problems.append(f"{key} is {_short(name)}, expected a name")
    return [*problems, *_wrong_channels(configuration), *_wrong_network(configuration)]


def wrong_plan_values(
    content: Mapping[str, Any], normalization_schemes: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return, one sentence each, what is wrong with the values that all configurations share.

    Args:
        content: Of the plans file. Missing keys are not wrong.
        normalization_schemes: By configuration, nnU-Net's names, one per channel.
    """
    problems = []
    forward = content.get("transpose_forward", [0, 1, 2])
    if not _is_list(forward) or sorted(forward, key=str) != [0, 1, 2]:
        problems.append(f"transpose_forward is {_short(forward)}, expected an order of 0, 1, 2")
    else:
        backward, inverse = content.get("transpose_backward"), [forward.index(i) for i in range(3)]
        if backward is not None and (not _is_list(backward) or list(backward) != inverse):
            problems.append(
                f"transpose_backward is {_short(backward)}, expected {inverse}, which undoes "
                "transpose_forward"
            )
    for key in ("original_median_spacing_after_transp", "original_median_shape_after_transp"):
        value = content.get(key, [1, 1, 1])
        if not _are_lengths(value) or len(value) != 3:
            problems.append(f"{key} is {_short(value)}, expected 3 numbers above 0")
    return problems + _wrong_intensities(content, normalization_schemes)


def wrong_network(configuration: Configuration) -> list[str]:
    """Return why a network cannot be built as planned, or cannot be applied to its patch."""
    network, patch_size = configuration.network, configuration.patch_size
    lengths = {
        len(network.features_per_stage),
        len(network.kernel_sizes),
        len(network.strides),
        len(network.encoder_depths),
        len(network.decoder_depths) + 1,
    }
    shapes = (*network.kernel_sizes, *network.strides)
    if len(lengths) > 1 or any(len(shape) != len(patch_size) for shape in shapes):
        found = ", ".join(map(str, sorted(lengths)))
        axes = f"{len(patch_size)} axes like the patch"
        return [
            f"the network has lists for {found} stages; expected as many everywhere, and {axes}"
        ]
    problems = []
    depths = (*network.encoder_depths, *network.decoder_depths)
    if not all(_MAX_DEPTH >= depth >= 1 for depth in depths):
        problems.append(f"depths per stage are {_short(depths)}, expected 1 to {_MAX_DEPTH}")
    features = network.features_per_stage
    if not all(_MAX_FEATURES >= number >= 1 for number in features):
        problems.append(f"features_per_stage is {_short(features)}, expected 1 to {_MAX_FEATURES}")
    return problems + (_wrong_u_net(configuration) if network.architecture in _U_NETS else [])


def _wrong_u_net(configuration: Configuration) -> list[str]:
    network, patch_size = configuration.network, configuration.patch_size
    problems = []
    sizes = [size for kernel in network.kernel_sizes for size in kernel]
    if not all(size % 2 and size <= _MAX_KERNEL for size in sizes):
        problems.append(
            f"kernel_sizes is {_short(network.kernel_sizes)}, expected odd numbers up to "
            f"{_MAX_KERNEL}"
        )
    strides = tuple(math.prod(along_axis) for along_axis in zip(*network.strides, strict=True))
    divides = all(size % stride == 0 for size, stride in zip(patch_size, strides, strict=True))
    if not divides or math.prod(patch_size) == math.prod(strides):
        problems.append(
            f"strides multiply to {_short(strides)}, expected divisors of the patch_size "
            f"{_short(patch_size)} that leave more than one voxel"
        )
    return problems


def _wrong_channels(configuration: Mapping[str, Any]) -> list[str]:
    schemes = configuration.get("normalization_schemes", ["none"])
    if not _is_list(schemes) or not schemes or not all(isinstance(name, str) for name in schemes):
        return [f"normalization_schemes is {_short(schemes)}, expected a list of names"]
    masks = configuration.get("use_mask_for_norm", [False] * len(schemes))
    if (
        not _is_list(masks)
        or len(masks) != len(schemes)
        or not all(isinstance(mask, bool) for mask in masks)
    ):
        each = f"for each of the {len(schemes)} normalization_schemes"
        return [f"use_mask_for_norm is {_short(masks)}, expected true or false {each}"]
    return []


def _wrong_network(configuration: Mapping[str, Any]) -> list[str]:
    network = configuration.get("architecture", {"network_class_name": "", "arch_kwargs": {}})
    if (
        not isinstance(network, Mapping)
        or not isinstance(network.get("network_class_name"), str)
        or not isinstance(network.get("arch_kwargs", {}), Mapping)
    ):
        return ["architecture is no network_class_name and arch_kwargs"]
    arguments = network.get("arch_kwargs", {})
    wrong = {key: arguments[key] for key in _PER_AXIS if not _are_lists(arguments.get(key, []))}
    for key in _PER_STAGE:
        value = arguments.get(key, 1)  # nnU-Net also takes one number for all stages
        if not _are_sizes(value if _is_list(value) else [value]):
            wrong[key] = value
    return [
        f"{key} is {_short(value)}, expected whole numbers above 0 for every stage"
        for key, value in wrong.items()
    ]


def _wrong_intensities(
    content: Mapping[str, Any], normalization_schemes: Mapping[str, Sequence[str]]
) -> list[str]:
    key = "foreground_intensity_properties_per_channel"
    statistics = content.get(key)
    if statistics is None:
        return []
    problems = []
    for name, schemes in normalization_schemes.items():
        channels = [str(channel) for channel in range(len(schemes))]
        if not isinstance(statistics, Mapping) or sorted(statistics, key=str) != sorted(channels):
            problems.append(f"{key} does not hold channels 0 to {len(schemes) - 1} of {name}")
            continue
        for channel, scheme in zip(channels, schemes, strict=True):
            of_channel = statistics[channel]
            if not isinstance(of_channel, Mapping) or not all(
                _is_number(of_channel.get(each)) for each in _STATISTICS
            ):
                problems.append(f"{key} of {channel} misses numbers: {', '.join(_STATISTICS)}")
            elif scheme == _NEEDS_STATISTICS and not all(
                math.isfinite(of_channel[each]) for each in _STATISTICS
            ):
                problems.append(f"{key} of {channel} is not finite, as {scheme} needs it")
    return list(dict.fromkeys(problems))


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_sizes(value: Any) -> bool:
    return _is_list(value) and all(
        isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in value
    )


def _are_lists(value: Any) -> bool:
    return _is_list(value) and all(_are_sizes(sizes) for sizes in value)


def _are_lengths(value: Any) -> bool:
    return _is_list(value) and all(_is_number(size) and 0 < size < math.inf for size in value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
