"""Plans in the form of nnU-Net v2's plans files: written for it, read from it."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from sparseunet.artifacts import parse
from sparseunet.errors import RequestError
from sparseunet.fingerprint.fingerprint import IntensityProperties
from sparseunet.named_functions import is_path
from sparseunet.planning.architectures import KNOWN
from sparseunet.planning.old_plans import with_architecture
from sparseunet.planning.plan import Configuration, NetworkPlan, Plan
from sparseunet.planning.planners import PLANNERS, PlannerName
from sparseunet.planning.wrong_values import wrong_network, wrong_plan_values, wrong_values

logger = logging.getLogger(__name__)

NNUNET_NORMALIZATION = {
    "zscore": "ZScoreNormalization",
    "ct": "CTNormalization",
    "none": "NoNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}
"""Our key to the class nnU-Net names."""

_OUR_NORMALIZATION = {name: key for key, name in NNUNET_NORMALIZATION.items()}
_UNETS = "dynamic_network_architectures.architectures.unet."
_NETWORK_CLASS = {
    "plain_unet": f"{_UNETS}PlainConvUNet",
    "residual_unet": f"{_UNETS}ResidualEncoderUNet",
}
_OWN_NETWORK = "sparseunet."
"""Before the names of networks that nnU-Net does not have; it refuses plans that hold one."""
_DEPTHS_KEY = {"plain_unet": "n_conv_per_stage", "residual_unet": "n_blocks_per_stage"}
_ARGUMENTS = (
    "n_stages",
    "features_per_stage",
    "kernel_sizes",
    "strides",
    "n_conv_per_stage_decoder",
)
_RESAMPLE = "resample_data_or_seg_to_shape"
_REQUIRED = ("batch_size", "patch_size", "spacing", "normalization_schemes", "architecture")


def plan_to_nnunet(plan: Plan, *, sparseunet: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the content of a plans file that nnU-Net 2.8.1 reads.

    Args:
        plan: What to write.
        sparseunet: What only this package knows; stored under the key `sparseunet`, which nnU-Net
            ignores. None leaves the key out.
    """
    content: dict[str, Any] = {
        "dataset_name": plan.dataset_name,
        "plans_name": plan.plans_name,
        "original_median_spacing_after_transp": list(plan.original_median_spacing_mm),
        "original_median_shape_after_transp": list(plan.original_median_shape),
        "image_reader_writer": plan.image_reader_writer,
        "transpose_forward": list(plan.transpose_forward),
        "transpose_backward": list(plan.transpose_backward),
        "configurations": {
            name: _configuration_to_nnunet(configuration, plan)
            for name, configuration in plan.configurations.items()
        },
        "experiment_planner_used": PLANNERS[plan.planner].nnunet_name,
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(channel): asdict(properties) for channel, properties in enumerate(plan.intensities)
        },
    }
    if sparseunet is not None:
        content["sparseunet"] = dict(sparseunet)
    return content


def plan_from_nnunet(
    content: Mapping[str, Any],
    *,
    source: str = "the plans file",
    only: Collection[str] | None = None,
) -> Plan:
    """Read a plans file written by this package, by nnU-Net 2.x or by hand.

    Configurations may inherit from each other, as in nnU-Net. What we cannot do is refused, never
    replaced: other networks, normalisations, resampling or label handling.

    Args:
        content: Of the file.
        source: What to call it in errors.
        only: Configurations to read; the others may be anything. None reads all.

    Raises:
        RequestError: Lists every configuration and key that is missing, not supported, or has a
            value that no plan can have.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("configurations"), Mapping):
        raise RequestError(f'{source} is no plans file: it has no "configurations".')
    problems: list[str] = []
    configurations: dict[str, Configuration] = {}
    for name in content["configurations"] if only is None else only:
        try:
            resolved = with_architecture(_resolve(name, content["configurations"]))
            found = wrong_values(resolved) or _unsupported(resolved)
            if not found:
                configurations[name] = _configuration_from_nnunet(name, resolved)
                found = wrong_network(configurations[name])
            problems += [f"{name}: {problem}" for problem in found]
        except (KeyError, TypeError, ValueError) as error:
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            problems.append(f"{name}: {kind}{error}")
    if content.get("label_manager", "LabelManager") != "LabelManager":
        problems.append(f"label_manager: {content['label_manager']} is not supported")
    problems += wrong_plan_values(
        content, {name: _schemes(found) for name, found in configurations.items()}
    )
    if problems:
        raise RequestError(f"{source} cannot be used:\n" + "\n".join(f"  {p}" for p in problems))
    try:
        return _plan_from_nnunet(content, configurations)
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{source} cannot be used: {type(error).__name__}: {error}.") from None


def supports_architecture(configuration: Mapping[str, Any]) -> bool:
    """Whether nnU-Net knows the network of a configuration of a plans file."""
    return configuration["architecture"]["network_class_name"] in _NETWORK_CLASS.values()


def budgeted_iterations(content: Mapping[str, Any], configuration_name: str) -> int | None:
    """Return the number of steps that planning for a time chose, or None if it was not asked to.

    Args:
        content: Of a plans file.
        configuration_name: E.g. `3d_fullres`.

    Raises:
        RequestError: The number in the file is none.
    """
    ours = content.get("sparseunet")
    budget = ours.get("time_budget") if isinstance(ours, Mapping) else None
    steps = budget.get("iterations") if isinstance(budget, Mapping) else None
    found = steps.get(configuration_name) if isinstance(steps, Mapping) else None
    if found is not None and (not isinstance(found, int) or found < 1):
        raise RequestError(
            f"The plans file gives {configuration_name} {found!r} iterations; expected a whole "
            "number of at least 1. Plan again for a time budget."
        )
    return found


def _configuration_to_nnunet(configuration: Configuration, plan: Plan) -> dict[str, Any]:
    """Return a configuration as it stands in a plans file of nnU-Net."""
    parent = _parent(configuration, plan)
    if parent is not None:
        return {"inherits_from": parent, "previous_stage": configuration.previous_stage}
    written: dict[str, Any] = {
        "data_identifier": configuration.data_identifier,
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size),
        "median_image_size_in_voxels": list(configuration.median_shape),
        "spacing": list(configuration.spacing_mm),
        "normalization_schemes": _schemes(configuration),
        "use_mask_for_norm": list(configuration.use_mask_for_norm),
        "resampling_fn_data": _RESAMPLE,
        "resampling_fn_seg": _RESAMPLE,
        "resampling_fn_data_kwargs": _resampling(is_seg=False, order=3),
        "resampling_fn_seg_kwargs": _resampling(is_seg=True, order=1),
        "resampling_fn_probabilities": _RESAMPLE,
        "resampling_fn_probabilities_kwargs": _resampling(is_seg=False, order=1),
        "architecture": _network_to_nnunet(configuration.network, configuration.dimensions),
        "batch_dice": configuration.batch_dice,
    }
    if configuration.previous_stage is not None:
        written["previous_stage"] = configuration.previous_stage
    if configuration.next_stage is not None:
        written["next_stage"] = configuration.next_stage
    return written


def _parent(configuration: Configuration, plan: Plan) -> str | None:
    """Return the configuration that this one differs from by nothing but a previous stage."""
    if configuration.previous_stage is None:
        return None
    for name, other in plan.configurations.items():
        if name == configuration.name or other.previous_stage is not None:
            continue
        if configuration == replace(
            other, name=configuration.name, previous_stage=configuration.previous_stage
        ):
            return name
    return None


def _resampling(*, is_seg: bool, order: int) -> dict[str, Any]:
    return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}


def _network_to_nnunet(network: NetworkPlan, dimensions: int) -> dict[str, Any]:
    if network.architecture not in _NETWORK_CLASS:
        arguments = asdict(network)
        name = arguments.pop("architecture")
        return {"network_class_name": f"{_OWN_NETWORK}{name}", "arch_kwargs": arguments}
    arguments = {
        "n_stages": len(network.strides),
        "features_per_stage": list(network.features_per_stage),
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": [list(kernel) for kernel in network.kernel_sizes],
        "strides": [list(stride) for stride in network.strides],
        _DEPTHS_KEY[network.architecture]: list(network.encoder_depths),
        "n_conv_per_stage_decoder": list(network.decoder_depths),
        **_fixed_arguments(dimensions),
    }
    return {
        "network_class_name": _NETWORK_CLASS[network.architecture],
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _fixed_arguments(dimensions: int) -> dict[str, Any]:
    return {
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def _resolve(
    name: str, configurations: Mapping[str, Any], *, seen: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the configuration with everything it inherits; its own keys win."""
    if name in seen:
        raise ValueError(f"inherits from itself ({' -> '.join((*seen, name))})")
    if name not in configurations:
        raise ValueError(f"inherits from {name!r}, which is not in the file")
    own = dict(configurations[name])
    parent = own.pop("inherits_from", None)
    if parent is None:
        return own
    return {**_resolve(parent, configurations, seen=(*seen, name)), **own}


def _unsupported(resolved: Mapping[str, Any]) -> list[str]:
    """Return what a configuration asks for that this package would do differently."""
    missing = [key for key in _REQUIRED if key not in resolved]
    if missing:
        return [f"misses {', '.join(missing)}"]
    expected: dict[str, Any] = {
        "preprocessor_name": "DefaultPreprocessor",
        "resampling_fn_data": _RESAMPLE,
        "resampling_fn_seg": _RESAMPLE,
        "resampling_fn_probabilities": _RESAMPLE,
        "resampling_fn_data_kwargs": _resampling(is_seg=False, order=3),
        "resampling_fn_seg_kwargs": _resampling(is_seg=True, order=1),
        "resampling_fn_probabilities_kwargs": _resampling(is_seg=False, order=1),
    }
    problems = _differences(resolved, expected)
    for scheme in resolved["normalization_schemes"]:
        if scheme not in _OUR_NORMALIZATION and not is_path(scheme):
            known = ", ".join((*_OUR_NORMALIZATION, "package.module:function"))
            problems.append(f"normalization {scheme} is not supported; expected one of {known}")
    network = resolved["architecture"]
    if _our_name(network["network_class_name"]) is not None:
        return problems
    if network["network_class_name"] not in _NETWORK_CLASS.values():
        known = ", ".join((*_NETWORK_CLASS.values(), *(f"{_OWN_NETWORK}{key}" for key in KNOWN)))
        return [
            *problems,
            f"network {network['network_class_name']} is not supported; expected one of {known}",
        ]
    dimensions = len(resolved["patch_size"])
    arguments = network["arch_kwargs"]
    conv = {"conv_op": f"torch.nn.modules.conv.Conv{dimensions}d"}
    problems += _differences(arguments, {**conv, **_fixed_arguments(dimensions)})
    understood = {*_ARGUMENTS, *_DEPTHS_KEY.values(), *conv, *_fixed_arguments(dimensions)}
    return problems + [
        f"{key} is {value!r}, which is not supported"
        for key, value in arguments.items()
        if key not in understood and value is not None
    ]


def _our_name(class_name: str) -> str | None:
    """Return our name of a network, or the user's; None for one of nnU-Net's and all others."""
    name = class_name.removeprefix(_OWN_NETWORK)
    return name if name in KNOWN or is_path(name) else None


def _schemes(configuration: Configuration) -> list[str]:
    """Return the names in a plans file; those of functions of the user's are written as they are.

    nnU-Net has no class of such a name, and says so.
    """
    return [NNUNET_NORMALIZATION.get(key, key) for key in configuration.normalization]


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} is {found[key]!r}, supported is only {value!r}"
        for key, value in expected.items()
        if key in found and found[key] != value
    ]


def _configuration_from_nnunet(name: str, resolved: Mapping[str, Any]) -> Configuration:
    channels = resolved["normalization_schemes"]
    patch_size = tuple(int(edge) for edge in resolved["patch_size"])
    return Configuration(
        name=name,
        data_identifier=resolved.get("data_identifier", name),
        batch_size=int(resolved["batch_size"]),
        patch_size=patch_size,
        median_shape=tuple(resolved.get("median_image_size_in_voxels", patch_size)),
        spacing_mm=tuple(resolved["spacing"]),
        normalization=tuple(_OUR_NORMALIZATION.get(scheme, scheme) for scheme in channels),
        use_mask_for_norm=tuple(resolved.get("use_mask_for_norm", [False] * len(channels))),
        network=_network_from_nnunet(resolved["architecture"]),
        batch_dice=bool(resolved.get("batch_dice", False)),
        previous_stage=resolved.get("previous_stage"),
        next_stage=resolved.get("next_stage"),
    )


def _network_from_nnunet(network: Mapping[str, Any]) -> NetworkPlan:
    name = _our_name(network["network_class_name"])
    if name is not None:
        return parse(
            NetworkPlan,
            {"architecture": name, **network["arch_kwargs"]},
            source=f"the architecture {name}",
        )
    architecture = next(
        key for key, name in _NETWORK_CLASS.items() if name == network["network_class_name"]
    )
    arguments = network["arch_kwargs"]
    stages = int(arguments["n_stages"])
    if stages != len(arguments["strides"]):
        raise ValueError(f"n_stages is {stages}, but strides has {len(arguments['strides'])}")
    return NetworkPlan(
        architecture=architecture,
        features_per_stage=_per_stage(arguments["features_per_stage"], stages),
        kernel_sizes=tuple(tuple(kernel) for kernel in arguments["kernel_sizes"]),
        strides=tuple(tuple(stride) for stride in arguments["strides"]),
        encoder_depths=_per_stage(arguments[_DEPTHS_KEY[architecture]], stages),
        decoder_depths=_per_stage(arguments["n_conv_per_stage_decoder"], stages - 1),
    )


def _per_stage(value: Any, stages: int) -> tuple[int, ...]:
    """Return one number per stage; nnU-Net also takes a single number for all of them."""
    return (value,) * stages if isinstance(value, int) else tuple(int(item) for item in value)


def _plan_from_nnunet(content: Mapping[str, Any], configurations: dict[str, Configuration]) -> Plan:
    intensities = content["foreground_intensity_properties_per_channel"]
    return Plan(
        dataset_name=content["dataset_name"],
        plans_name=content["plans_name"],
        planner=_planner(content),
        original_median_spacing_mm=_triple(content["original_median_spacing_after_transp"]),
        original_median_shape=_triple(content["original_median_shape_after_transp"]),
        image_reader_writer=content["image_reader_writer"],
        transpose_forward=_triple(content["transpose_forward"]),
        transpose_backward=_triple(content["transpose_backward"]),
        intensities=tuple(
            IntensityProperties(**intensities[key]) for key in sorted(intensities, key=int)
        ),
        configurations=configurations,
    )


def _planner(
    content: Mapping[str, Any],
) -> PlannerName:
    used = content.get("experiment_planner_used")
    for name in PLANNERS:
        if used == PLANNERS[name].nnunet_name:
            return name
    logger.warning("The plans were made by %s, which is recorded as the default planner.", used)
    return "default"


def _triple(values: Any) -> tuple[Any, Any, Any]:
    first, second, third = values
    return first, second, third
