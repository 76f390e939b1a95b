"""The planners by name, and the constants that tell one from another."""

from dataclasses import dataclass, replace
from typing import Literal

PlannerName = Literal["default", "ResEncM", "ResEncL", "ResEncXL"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Planner:
    """The constants that tell one planner from another."""

    plans_name: str
    nnunet_name: str
    """What nnU-Net calls it in `experiment_planner_used`."""
    architecture: str
    encoder_depths: tuple[int, ...]
    """Per stage; longer than any network, and cut to its number of stages."""
    decoder_depth: int
    gpu_memory_gb: float
    """Memory that the reference costs were calibrated for."""
    reference_cost: dict[int, float]
    """Dimensions to feature-map elements per sample that fill that memory with the reference batch
    (12 in 2D, 2 in 3D)."""
    max_cost: dict[int, float]
    """Dimensions to the largest cost of one sample; above it the patch shrinks."""
    max_dataset_share: float
    """Largest part of the dataset's voxels that one batch may hold."""

    def with_memory(self, gpu_memory_gb: float) -> "Planner":
        """Return the planner for another amount of memory; costs scale with it."""
        factor = gpu_memory_gb / self.gpu_memory_gb
        return replace(
            self,
            gpu_memory_gb=gpu_memory_gb,
            reference_cost={key: cost * factor for key, cost in self.reference_cost.items()},
            max_cost={key: cost * factor for key, cost in self.max_cost.items()},
        )


def _residual_encoder(
    size: str, *, gpu_memory_gb: float, cost_2d: float, cost_3d: float
) -> Planner:
    return Planner(
        plans_name=f"nnUNetResEncUNet{size}Plans",
        nnunet_name=f"nnUNetPlannerResEnc{size}",
        architecture="residual_unet",
        encoder_depths=(1, 3, 4, *[6] * 20),
        decoder_depth=1,
        gpu_memory_gb=gpu_memory_gb,
        reference_cost={2: cost_2d, 3: cost_3d},
        max_cost={2: cost_2d, 3: cost_3d},
        max_dataset_share=1.0,
    )


PLANNERS: dict[PlannerName, Planner] = {
    "default": Planner(
        plans_name="nnUNetPlans",
        nnunet_name="ExperimentPlanner",
        architecture="plain_unet",
        encoder_depths=(2,) * 23,
        decoder_depth=2,
        gpu_memory_gb=8,
        reference_cost={2: 85e6, 3: 560e6},
        # A batch of two must fit. In 2D that is six times the share of one sample in twelve.
        max_cost={2: 6 * 85e6, 3: 560e6},
        max_dataset_share=0.05,
    ),
    "ResEncM": _residual_encoder("M", gpu_memory_gb=8, cost_2d=135e6, cost_3d=680e6),
    "ResEncL": _residual_encoder("L", gpu_memory_gb=24, cost_2d=380e6, cost_3d=2.1e9),
    "ResEncXL": _residual_encoder("XL", gpu_memory_gb=40, cost_2d=560e6, cost_3d=3.6e9),
}
"""Name to constants, as nnU-Net 2.8.1 calibrated them."""
