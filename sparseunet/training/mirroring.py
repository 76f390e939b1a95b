"""Which axes may be mirrored: not the one across which labels come in left/right pairs."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sparseunet.preprocessing.case import Restoration

_OTHER_SIDE = {"left": "right", "l": "r", "lt": "rt", "lh": "rh"}
_CLEAR_COSINE = 0.8
"""An axis within 37° of left-right counts as it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorChoice:
    """Axes of the patch to mirror, and what to tell the user."""

    axes: tuple[int, ...]
    notice: str | None
    """One sentence where labels come in pairs, else None."""


def choose_mirror_axes(
    class_names: Sequence[str], scans: Iterable[Restoration], *, dimensions: int
) -> MirrorChoice:
    """Leave out the left-right axis if some labels differ only by their side.

    A mirrored left kidney looks like a right one, so a network that saw both mirrored cannot tell
    them apart (nnU-Net mirrors every axis whatever the labels).

    Args:
        class_names: Of classes and regions.
        scans: How each training case was brought to the network's grid; their directions say which
            axis is left-right.
        dimensions: 2 or 3, of the patch. The axes of a 2D patch are the last two of the grid.
    """
    every = tuple(range(dimensions))
    pairs = paired_names(class_names)
    if not pairs:
        return MirrorChoice(axes=every, notice=None)
    first, second = pairs[0]
    reason = f"{first!r} and {second!r}" + (f" and {len(pairs) - 1} more" * (len(pairs) > 1))
    axes = {left_right_axis(scan) for scan in scans}
    axis = axes.pop() if len(axes) == 1 else None
    if axis is None:
        notice = (
            f"Labels come in left/right pairs ({reason}), but the scans do not say clearly which "
            "axis is left-right, so every axis is mirrored; choose the axes to mirror otherwise."
        )
        return MirrorChoice(axes=every, notice=notice)
    kept = tuple(patch_axis for patch_axis in every if patch_axis + 3 - dimensions != axis)
    where = f"axis {axis}" if dimensions == 3 or axis == 0 else f"axis {axis - 1} of the patch"
    notice = (
        f"No mirroring across left-right ({where}), because labels come in pairs ({reason}); "
        "name the axes to mirror otherwise."
    )
    return MirrorChoice(axes=kept, notice=notice)


def paired_names(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of names that differ only in left and right (or l/r, lh/rh), left first."""
    by_words = {_words(name): name for name in names}
    pairs = []
    for words, name in by_words.items():
        for position, word in enumerate(words):
            other = _OTHER_SIDE.get(word)
            if other is None:
                continue
            partner = by_words.get((*words[:position], other, *words[position + 1 :]))
            if partner is not None:
                pairs.append((name, partner))
    return pairs


def left_right_axis(scan: Restoration) -> int | None:
    """Return the axis (0 to 2) of the network's grid along the patient's left-right, if clear."""
    direction = scan.geometry.direction
    if scan.geometry.dimensions == 2 or len(direction) != 9:
        return None
    # Row 0 is the patient's left-right; file axes are counted from x, array axes from z.
    shares = [abs(direction[2 - axis]) for axis in scan.transpose_forward]
    largest = max(shares)
    return shares.index(largest) if largest > _CLEAR_COSINE else None


def _words(name: str) -> tuple[str, ...]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return tuple(word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word)
