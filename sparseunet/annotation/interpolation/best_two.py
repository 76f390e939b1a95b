"""The two classes with the greatest signed distances in every pixel of a slice."""

from dataclasses import dataclass

import numpy as np

from sparseunet.annotation.interpolation.outlines import Box

FAR_MM = 1e4
"""A distance greater than any in a scan."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BestTwoClasses:
    """The greatest and the second greatest distance so far, and the classes they belong to.

    Example for one pixel, classes 1, 2 and 3 with distances 2, 5 and 3 mm added in this order:
    after class 2 the first is 2 (5 mm) and the second 1 (2 mm); class 3 then becomes the second
    (3 mm). With a background of 4 mm the label is 2, its rival background, the margin (5 - 4) / 2.
    """

    tie_mm: np.float32
    """Distances that differ by less are equal; then the class added first wins."""
    best: np.ndarray
    second: np.ndarray
    winner: np.ndarray
    runner_up: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: np.dtype, tie_mm: np.float32) -> "BestTwoClasses":
        """Return a slice without any class yet: distances `-FAR_MM`, labels 0 of `dtype`."""
        return cls(
            tie_mm=tie_mm,
            best=np.full(shape, -FAR_MM, np.float32),
            second=np.full(shape, -FAR_MM, np.float32),
            winner=np.zeros(shape, dtype),
            runner_up=np.zeros(shape, dtype),
        )

    def add(self, value: int, score: np.ndarray, box: Box) -> None:
        """Take a class into account, in place.

        Args:
            value: Its label value.
            score: float32, its signed distances in mm inside the box.
            box: Where the class may lie; elsewhere nothing changes.
        """
        best, second = self.best[box], self.second[box]
        winner, runner_up = self.winner[box], self.runner_up[box]
        wins = score > best + self.tie_mm
        # The former winner becomes the second; a class that does not win may become it instead.
        np.copyto(runner_up, winner, where=wins)
        np.copyto(runner_up, winner.dtype.type(value), where=(score > second) & ~wins)
        np.maximum(second, np.minimum(best, score), out=second)
        np.copyto(winner, winner.dtype.type(value), where=wins)
        np.maximum(best, score, out=best)

    def with_background(
        self, background: np.ndarray, covered: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compare the classes with background.

        Args:
            background: float32, signed distances of background in mm; wins a tie.
            covered: bool, where background cannot win.

        Returns:
            Label and second label of every pixel, and half the difference of their distances in mm:
            how far inside its label the pixel is.
        """
        is_class = (self.best > background + self.tie_mm) | covered
        labels = self.winner * is_class
        # Where a class wins, the rival is background or the class that came second.
        rivals = self.runner_up * ((background < self.second) | covered)
        np.copyto(rivals, self.winner, where=~is_class)
        margin_mm = background - self.best
        ahead = self.best - np.maximum(self.second, background)
        np.copyto(margin_mm, np.maximum(ahead, 0, out=ahead), where=is_class)
        margin_mm /= 2
        return labels, rivals, margin_mm
