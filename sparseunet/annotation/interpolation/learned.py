"""Labels carried from slice to slice by what the scan shows, learned without labels (Z25 app. F)."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sparseunet.annotation.interpolation.gaps import Filling, Gap, find_gaps
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.data.annotation import Annotation
from sparseunet.data.image import Image

Mask = TypeVar("Mask")

def spread(
    masks: Mapping[int, Mask],
    *,
    new: Iterable[int],
    steps: tuple[int, ...],
    carry_mask: Callable[[Mask, int, int], Mask],
    holds_object: Callable[[Mask], bool],
) -> dict[int, Mask]:
    """Carry masks from slice to slice until nothing new is reached (Z25 algorithm 1).

    A queue starts with the known masks. Each mask taken from it is carried to the neighbouring
    slices that are new; a neighbour that then holds an object joins the end of the queue. Every
    slice is reached once at most; those left out of the result hold background.

    Args:
        masks: Known masks by slice.
        new: Slices to reach; known slices are never new.
        steps: To which neighbours masks are carried: -1 down, +1 up, or both.
        carry_mask: Makes the mask of slice `to` from the mask of slice `from_`.
        holds_object: Whether a mask is more than background.

    Returns:
        The masks of the slices that were reached, in the order in which they were.
    """
    waiting = deque((index, mask) for index, mask in masks.items() if holds_object(mask))
    left = set(new) - set(masks)
    reached: dict[int, Mask] = {}
    while waiting:
        from_, mask = waiting.popleft()
        for to in (from_ + step for step in steps):
            if to in left:
                left.remove(to)
                reached[to] = carry_mask(mask, from_, to)
                if holds_object(reached[to]):
                    waiting.append((to, reached[to]))
    return reached
