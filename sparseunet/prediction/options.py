"""Options of prediction."""

from dataclasses import dataclass

from sparseunet.errors import RequestError


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionOptions:
    """How to predict; what to predict with is the `TrainedModel`.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: `auto` (by device and processor), `float32`, `bfloat16` or `float16`.
        compiles: Let torch compile the network: a minute at the start, worth it for many or large
            scans in float32; other last bits.
        mirror: Average over mirrored passes, along the axes that were mirrored in training.
        step: Distance of neighbouring patches as a fraction of the patch, above 0 and at most 1.
        num_workers: Scans prepared ahead of the network, scans behind it that are written, and
            threads that resample what the network says.
        max_memory_gib: GiB of main memory to stay within. Fewer scans are then prepared ahead, and
            what does not fit lies in a temporary file in the output folder, with the same result. A
            scan needs some memory in any case.
        save_probabilities: Write the probabilities of all classes, CASE.npy (float16; classes, z,
            y, x), beside the segmentations.
        uncertainty: Write maps of entropy and of disagreement between folds, mirrored passes and
            patches.
        dicom_seg: Write CASE.dcm, a DICOM SEG that refers to the scan's series; every scan must be
            one; needs the extra `dicom`.
        confidence: Write maps of the probability of what was decided.
    """

    device: str = "auto"
    precision: str = "auto"
    compiles: bool = False
    mirror: bool = True
    step: float = 0.5
    num_workers: int = 2
    max_memory_gib: float | None = None
    save_probabilities: bool = False
    uncertainty: bool = False
    dicom_seg: bool = False
    confidence: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1:
            raise RequestError(
                f"The step is a fraction of the patch, above 0 and at most 1; found {self.step}.",
                setting="step",
            )
        if self.num_workers < 1:
            raise RequestError(
                f"Expected at least one worker, found {self.num_workers}.", setting="num_workers"
            )
        if self.max_memory_gib is not None and not self.max_memory_gib > 0:
            raise RequestError(
                f"Memory must be above 0 GiB, found {self.max_memory_gib}.",
                setting="max_memory_gib",
            )

    @property
    def max_bytes(self) -> int | None:
        """`max_memory_gib` in bytes."""
        return None if self.max_memory_gib is None else int(self.max_memory_gib * 2**30)
