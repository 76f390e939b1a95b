"""Choose the model, or the ensemble of two, with the best held-out Dice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparseunet.errors import RequestError
from sparseunet.evaluation.dice import DiceTable
from sparseunet.evaluation.statistics import mean_interval_95


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidate:
    """A model or an ensemble, and its Dice on cases that it did not learn from."""

    name: str
    members: tuple[str, ...]
    """Name of one configuration, or names of the members of an ensemble."""
    dice: DiceTable


def select_configuration(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the highest foreground mean; of equals the first.

    Args:
        candidates: At least one, scored on the same references; put the simpler ones first.

    Raises:
        RequestError: No reference holds any foreground.

    Source: nnU-Net 2.8.1.
    """
    if not candidates[0].dice.occurs.any():
        raise RequestError(
            "No reference of the validation cases holds any annotated foreground, so there is no "
            "Dice to choose by."
        )
    return max(candidates, key=lambda candidate: candidate.dice.foreground_mean)


def lead_of(best: Candidate, other: Candidate) -> tuple[float, tuple[float, float]]:
    """Return by how much the best one's Dice per case is higher, and its 95 % interval.

    A case counts with the mean over its classes; those that lack a value are left out. The interval
    is a bootstrap over cases, NaN with fewer than two.
    """
    differences = best.dice.case_means - other.dice.case_means
    defined = differences[np.isfinite(differences)]
    mean = float(defined.mean()) if len(defined) else float("nan")
    return mean, mean_interval_95(defined)
