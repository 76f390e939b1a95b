"""What interpolators are asked and what they promise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sparseunet.data.annotation import Annotation
from sparseunet.data.dataset import Case
from sparseunet.data.image import Image
from sparseunet.data.labels import LabelSchema


@dataclass(frozen=True, kw_only=True, slots=True)
class InterpolationRequest:
    """Between which slices to interpolate, and what it may cost and use."""

    axis: int
    """Interpolate between slices across this axis, 0, 1 or 2 of (z, y, x)."""
    until_gap_mm: float | None = None
    """Leave gaps alone whose two annotated slices lie farther apart (centre to centre), and fill
    beyond the first and the last annotated slice half as far. None: fill everything."""
    labels: LabelSchema | None = None
    """The classes of the scans' label files; None for `scans` without labels."""
    seed: int = 0
    """Seed of methods that draw at random."""
    scans: tuple[Case, ...] = ()
    """Scans of the dataset that a method may train on; without any, it has the one it is given."""
    time_budget_s: float | None = None
    """How long a method may train; None for the method's own default."""
    device: str = "cpu"
    """Where a method trains and works: cpu, cuda or mps."""
    num_threads: int = 1
    """For methods that can use several; the result does not depend on it."""
    cache: Path | None = None
    """Folder that keeps what was trained, by content hash; None keeps nothing."""

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2):
            raise ValueError(f"The axis must be 0, 1 or 2 for z, y, x, found {self.axis}.")
        if self.until_gap_mm is not None and not self.until_gap_mm > 0:
            raise ValueError(f"until_gap_mm must be positive, found {self.until_gap_mm}.")
        if self.num_threads < 1:
            raise ValueError(f"num_threads must be 1 or more, found {self.num_threads}.")


class Interpolator(Protocol):
    """Gives labels to voxels between annotated slices."""

    def __call__(
        self, image: Image, annotation: Annotation, /, *, request: InterpolationRequest
    ) -> Annotation:
        """Return the annotation with the gaps across an axis filled; see `gaps.find_gaps`.

        Only voxels without any source are filled, and only in slices of a gap. They get
        `Source.INTERPOLATED`, a class of one of the two slices at the ends of their gap (or
        background), and a confidence in [0, 1]: the share of such voxels that is right. Everything
        else stays bit for bit as it is, with confidence 1 where there was none. Without a complete
        slice the annotation is returned as it is. The same request gives the same result.

        Args:
            image: The scan; methods that work from labels alone use its spacing only.
            annotation: On the same grid.
            request: What to do.

        Raises:
            RequestError: The request cannot be met, e.g. a package is missing.
        """
