"""What planning must know of every network: its sizes, and what it can be given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from sparseunet.errors import RequestError
from sparseunet.named_functions import is_path, load_function
from sparseunet.planning.plan import NetworkPlan
from sparseunet.planning.planners import PLANNERS

_FEATURES_CAP = {2: 512, 3: 320}
PACKAGES = {"monai": "monai", "vision2d": "segmentation_models_pytorch"}
"""Extra of this package to the module it installs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """One network: the numbers of its plan, and its limits."""

    features: Callable[[int, int, int], tuple[int, ...]] | None
    """From features at full resolution, number of stages and dimensions to features per stage;
    None where the widths are fixed, then `fixed_features` holds them."""
    encoder_depths: tuple[int, ...]
    """Layers per stage; may be longer than a network, and is cut to its number of stages."""
    decoder_depth: int
    dimensions: tuple[int, ...] = (2, 3)
    base_features: int | None = None
    """Features at full resolution; None keeps the planned number."""
    fixed_features: tuple[int, ...] = ()
    strides: tuple[int, ...] | None = None
    """Per stage, the same along all axes; None keeps the planned strides."""
    planned_kernels: bool = False
    """Whether kernels are the planned ones; else 3 along every axis."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What else defines the network; `patch_size` is filled in where its weights depend on it."""
    extra: str | None = None
    """The extra of this package that must be installed."""
    norm: Literal["batch", "instance", "pooled"] | None = "instance"
    """What a mean and a deviation are taken over at the lowest resolution, which needs more than
    one value. `pooled`: batch norm after the average over the whole patch, so that only the batch
    gives values. None: nothing that limits the patch."""


def _doubling(base: int, stages: int, dimensions: int) -> tuple[int, ...]:
    cap = max(base, _FEATURES_CAP[dimensions])
    return tuple(min(base * 2**stage, cap) for stage in range(stages))


def _times(*factors: int) -> Callable[[int, int, int], tuple[int, ...]]:
    def features(base: int, stages: int, dimensions: int) -> tuple[int, ...]:  # noqa: ARG001
        return tuple(factor * base for factor in factors)

    return features


def _inception(base: int, stages: int, dimensions: int) -> tuple[int, ...]:
    if base % 4:
        raise RequestError(
            f"inception_unet shares its features among four branches; found {base} base features, "
            "expected a multiple of 4."
        )
    return _times(1, 2, 4, 8, 16)(base, stages, dimensions)


def _growing(base: int, stages: int, dimensions: int) -> tuple[int, ...]:  # noqa: ARG001
    growth = max(1, 12 * base // 16)
    return base, base + 12 * growth, base + 24 * growth


def _smp(
    *features: int,
    depths: tuple[int, ...],
    encoder: str,
    decoder: str,
    strides: tuple[int, ...] = (1, 2, 2, 2, 2, 2),
    norm: Literal["batch", "pooled"] = "batch",
) -> Architecture:
    return Architecture(
        features=None,
        fixed_features=features,
        strides=strides,
        encoder_depths=depths,
        decoder_depth=2,
        dimensions=(2,),
        arguments={"encoder": encoder, "decoder": decoder},
        extra="vision2d",
        norm=norm,
    )


def _payer(decoder: str, encoder: str) -> Architecture:
    """P23: one of three decoders on one of two encoders (channels and blocks of those)."""
    depths = {"resnet152": (3, 8, 36, 3), "resnext101_32x8d": (3, 4, 23, 3)}[encoder]
    dilated = decoder == "DeepLabV3Plus"  # its last stage keeps the resolution
    return _smp(
        *(64, 64, 256, 512, 1024, 2048),
        depths=(1, 1, *depths),
        encoder=encoder,
        decoder=decoder,
        strides=(1, 2, 2, 2, 2, 1 if dilated else 2),
        norm="pooled" if dilated else "batch",
    )


KNOWN: dict[str, Architecture] = {
    "plain_unet": Architecture(
        features=_doubling,
        encoder_depths=PLANNERS["default"].encoder_depths,
        decoder_depth=PLANNERS["default"].decoder_depth,
        planned_kernels=True,
    ),
    "residual_unet": Architecture(
        features=_doubling,
        encoder_depths=PLANNERS["ResEncL"].encoder_depths,
        decoder_depth=PLANNERS["ResEncL"].decoder_depth,
        planned_kernels=True,
    ),
    "segresnet": Architecture(
        features=_times(1, 2, 4, 8),
        base_features=8,
        strides=(1, 2, 2, 2),
        encoder_depths=(1, 2, 2, 4),
        decoder_depth=1,
        extra="monai",
        norm=None,
    ),
    "unetr": Architecture(
        features=_times(1, 2, 4, 8, 48),
        base_features=16,
        strides=(1, 2, 2, 2, 2),
        encoder_depths=(1, 1, 1, 1, 12),
        decoder_depth=1,
        arguments={"num_heads": 12, "patch_size": []},
        extra="monai",
        norm=None,
    ),
    "attention_unet": Architecture(
        features=_doubling,
        base_features=16,
        encoder_depths=(2,) * 23,
        decoder_depth=2,
        extra="monai",
        norm="batch",
    ),
    "densevoxnet": Architecture(
        features=_growing,
        base_features=16,
        strides=(1, 2, 2),
        encoder_depths=(1, 12, 12),
        decoder_depth=1,
        dimensions=(3,),
        norm="batch",
    ),
    "inception_unet": Architecture(
        features=_inception,
        base_features=32,
        strides=(1, 2, 2, 2, 2),
        encoder_depths=(1,) * 5,
        decoder_depth=1,
        dimensions=(2,),
    ),
    "cam_wnet": Architecture(
        features=_times(1, 2, 4, 8, 8),
        base_features=64,
        strides=(1, 2, 2, 2, 2),
        encoder_depths=(2, 2, 3, 3, 3),
        decoder_depth=2,
        dimensions=(2,),
    ),
    "segformer_b3": _smp(
        *(64, 64, 128, 320, 512),
        depths=(1, 3, 4, 18, 3),
        encoder="mit_b3",
        decoder="Segformer",
        strides=(1, 4, 2, 2, 2),
    ),
    "unet_resnet152": _payer("Unet", "resnet152"),
    "deeplabv3plus": _payer("DeepLabV3Plus", "resnet152"),
    "manet": _payer("MAnet", "resnet152"),
    "unet_resnext101": _payer("Unet", "resnext101_32x8d"),
    "deeplabv3plus_resnext101": _payer("DeepLabV3Plus", "resnext101_32x8d"),
    "manet_resnext101": _payer("MAnet", "resnext101_32x8d"),
}
"""Name to what planning must know; `sparseunet.networks.build.ARCHITECTURES` builds them."""


_USERS_OWN = Architecture(
    features=_doubling,
    encoder_depths=PLANNERS["default"].encoder_depths,
    decoder_depth=PLANNERS["default"].decoder_depth,
    planned_kernels=True,
    arguments={"patch_size": []},
    norm=None,
)
"""What is assumed of a network by a function of the user's: the planned numbers are offered."""


def find_architecture(name: str) -> Architecture:
    """Return what is known of a network; of `package.module:function`, that it may be anything.

    Raises:
        RequestError: There is none of that name; lists those there are.
    """
    if is_path(name):
        return _USERS_OWN
    if name not in KNOWN:
        raise RequestError(
            f"There is no architecture {name!r}; choose from {', '.join(KNOWN)}, or name a "
            "function of yours as package.module:function."
        )
    return KNOWN[name]


def design_network(name: str, planned: NetworkPlan) -> NetworkPlan:
    """Return the numbers of a network, those that it does not fix taken from the planned U-Net.

    Raises:
        RequestError: There is no such network, or not for images of that many dimensions.
    """
    architecture, dimensions = find_architecture(name), len(planned.strides[0])
    if dimensions not in architecture.dimensions:
        only = architecture.dimensions[0]
        others = [key for key, other in KNOWN.items() if dimensions in other.dimensions]
        raise RequestError(
            f"{name} is a network for {only}D images, and this configuration is {dimensions}D. "
            f"Train a {only}D configuration, or choose from {', '.join(others)}."
        )
    strides = planned.strides
    if architecture.strides is not None:
        strides = tuple((stride,) * dimensions for stride in architecture.strides)
    stages = len(strides)
    return NetworkPlan(
        architecture=name,
        features_per_stage=architecture.fixed_features
        if architecture.features is None
        else architecture.features(
            architecture.base_features or planned.features_per_stage[0], stages, dimensions
        ),
        kernel_sizes=planned.kernel_sizes
        if architecture.planned_kernels
        else ((3,) * dimensions,) * stages,
        strides=strides,
        encoder_depths=architecture.encoder_depths[:stages],
        decoder_depths=(architecture.decoder_depth,) * (stages - 1),
        arguments=dict(architecture.arguments),
    )


def require_extra(name: str) -> None:
    """Check that what a network is built with is installed; import a function of the user's.

    Raises:
        RequestError: Names the extra to install, or the function that cannot be imported.
    """
    if is_path(name):
        load_function(name, {}, what="architecture")
    extra = find_architecture(name).extra
    if extra is not None and find_spec(PACKAGES[extra]) is None:
        raise RequestError(
            f"The network {name} needs the package {PACKAGES[extra]}, which is not installed: "
            f"pip install 'sparseunet[{extra}]', or choose another network.",
            setting="architecture",
        )
