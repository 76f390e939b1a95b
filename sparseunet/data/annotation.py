"""What a person (or a later stage) said about each voxel, and who said it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np


class Source(IntEnum):
    """Who labelled a voxel."""

    NONE = 0
    """Not labelled: the voxel must not influence statistics, loss or scores."""
    MANUAL = 1
    INTERPOLATED = 2
    PSEUDO = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Annotation:
    """Labels of one case, their source and, where it means something, the confidence in them.

    Attributes:
        labels_ZYX: Unsigned integers, one declared label value per voxel; 0 where the
            source is none.
        source_ZYX: uint8, a `Source` per voxel.
        confidence_ZYX: float32 in [0, 1], or None for full confidence everywhere.
    """

    labels_ZYX: np.ndarray
    source_ZYX: np.ndarray
    confidence_ZYX: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("source_ZYX", "confidence_ZYX"):
            array = getattr(self, name)
            if array is not None and array.shape != self.labels_ZYX.shape:
                raise ValueError(
                    f"Labels have shape {self.labels_ZYX.shape} but {name} has shape "
                    f"{array.shape}. Both must describe the same voxel grid."
                )

    @classmethod
    def from_label_map(cls, labels_ZYX: np.ndarray, *, ignore: int | None) -> "Annotation":
        """Read nnU-Net's convention: voxels of value `ignore` are unannotated, others manual."""
        annotated_ZYX = np.ones(labels_ZYX.shape, bool) if ignore is None else labels_ZYX != ignore
        return cls(
            labels_ZYX=np.where(annotated_ZYX, labels_ZYX, 0).astype(labels_ZYX.dtype),
            source_ZYX=np.where(annotated_ZYX, Source.MANUAL, Source.NONE).astype(np.uint8),
        )

    def to_label_map(self, *, ignore: int | None) -> np.ndarray:
        """Return one array in nnU-Net's convention, unannotated voxels holding `ignore`.

        Raises:
            ValueError: Some voxel is unannotated and no ignore value was given.
        """
        if self.is_dense:
            return self.labels_ZYX.copy()
        if ignore is None:
            raise ValueError("Some voxels are unannotated; writing them needs an ignore value.")
        wide_enough = np.promote_types(self.labels_ZYX.dtype, np.min_scalar_type(ignore))
        return np.where(self.annotated_ZYX, self.labels_ZYX, wide_enough.type(ignore))

    @property
    def annotated_ZYX(self) -> np.ndarray:
        """bool, where any source gave a label."""
        return self.source_ZYX != Source.NONE

    @property
    def is_dense(self) -> bool:
        """Whether every voxel has a label."""
        return bool(self.annotated_ZYX.all())

    def annotated_slices(self, axis: int) -> np.ndarray:
        """Return the sorted indices of slices across `axis` (0 to 2 for z, y, x) with any label."""
        others = tuple(other for other in range(3) if other != axis)
        return np.flatnonzero(self.annotated_ZYX.any(axis=others))

    def weight_ZYX(self, trust: Mapping[Source, float]) -> np.ndarray:
        """Return the loss weight per voxel, trust[source] · confidence, as float32."""
        table = np.zeros(len(Source), np.float32)
        for source, value in trust.items():
            table[source] = value
        table[Source.NONE] = 0.0
        weight_ZYX = table[self.source_ZYX]
        return weight_ZYX if self.confidence_ZYX is None else weight_ZYX * self.confidence_ZYX

    def fill(
        self,
        labels_ZYX: np.ndarray,
        where_ZYX: np.ndarray,
        *,
        source: Source,
        confidence_ZYX: np.ndarray | None = None,
    ) -> "Annotation":
        """Return a copy with labels added in `where_ZYX`, only where nothing is annotated yet."""
        free_ZYX = where_ZYX & ~self.annotated_ZYX
        confidence = self.confidence_ZYX
        if confidence is None and confidence_ZYX is not None:
            confidence = np.ones(self.labels_ZYX.shape, np.float32)
        if confidence is not None:
            new = np.float32(1.0) if confidence_ZYX is None else confidence_ZYX
            confidence = np.where(free_ZYX, new, confidence).astype(np.float32)
        return replace(
            self,
            labels_ZYX=np.where(free_ZYX, labels_ZYX, self.labels_ZYX).astype(
                self.labels_ZYX.dtype
            ),
            source_ZYX=np.where(free_ZYX, np.uint8(source), self.source_ZYX),
            confidence_ZYX=confidence,
        )
