"""How to predict."""

from dataclasses import dataclass

from sparseunet.errors import RequestError


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionOptions:
    """How to predict; what to predict with is the `TrainedModel`."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    precision: str = "auto"
    """`auto` (what is fastest on the device), `float32`, `bfloat16` or `float16`."""
    compiles: bool = False
    """Whether networks are compiled: a minute at the start, faster patches, other last bits."""
    mirror: bool = True
    """Whether to average over mirrored passes, along the axes that were mirrored in training."""
    step: float = 0.5
    """Distance of neighbouring patches as a fraction of the patch, in (0, 1]."""
    num_workers: int = 2
    """Scans prepared ahead of the network, scans behind it that are written, and threads that
    resample what the network says. At least 1."""
    max_memory_gib: float | None = None
    """Main memory that this process may hold. Fewer scans are then prepared ahead, and logits that
    do not fit lie in a temporary file; the segmentations are the same. A scan needs some memory in
    any case (`documentation/explanation/memory_in_prediction.md`). None: no limit."""
    save_probabilities: bool = False
    """Whether files of class probabilities are written beside the segmentations."""
    uncertainty: bool = False
    """Whether maps of entropy and disagreement are written beside the segmentations."""
    dicom_seg: bool = False
    """Whether a DICOM SEG of every scan, each of which is a DICOM series, is written beside its
    segmentation."""
    confidence: bool = False
    """Whether maps of the probability of what was decided are written beside the segmentations."""

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1:
            raise RequestError(
                f"The step is a fraction of the patch, above 0 and at most 1; found {self.step}."
            )
        if self.num_workers < 1:
            raise RequestError(f"Expected at least one worker, found {self.num_workers}.")
        if self.max_memory_gib is not None and not self.max_memory_gib > 0:
            raise RequestError(f"Memory must be above 0 GiB, found {self.max_memory_gib}.")

    @property
    def max_bytes(self) -> int | None:
        """`max_memory_gib` in bytes."""
        return None if self.max_memory_gib is None else int(self.max_memory_gib * 2**30)
