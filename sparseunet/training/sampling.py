"""Where training patches come from.

A batch is a pure function of the seed and the number of the step: nothing depends on which worker
made it or on what was drawn before. So a resumed training continues as if it had never stopped.

Rules (nnU-Net 2.8.1 for dense cases; Z25 §2.2 for annotated slices):
- Only cases with annotation are drawn; every one equally often, unless weighted by its slices. 2D
  batches are drawn from annotated slices, every one equally often.
- The last third of a batch holds a voxel of a class drawn among those present in the case.
- Other patches lie anywhere in a dense case; in a sparse one they hold an annotated voxel, and each
  annotated slice is as likely as any other to be the one held, however much of it is annotated.
- The chosen voxel has no preferred place in the patch: it is as likely at the border as in the
  middle. (nnU-Net centres it, so its networks meet annotated slices in one position only.) Patches
  stay inside the image, so near its border the places that are left are equally likely.
- With patch shares (Z25, class-weighted patches) these take the place of the third that must hold a
  class: for each patch first what it is to hold is drawn by weight, then a case that has it, so a
  class that few cases have still gets its share.
- A function of the user's (`load_sampler`) chooses places by a rule of its own; cases are drawn as
  above.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.named_functions import load_function
from sparseunet.training.choices import CASE_WEIGHTINGS, SAMPLERS, Named

REST, BACKGROUND, UNANNOTATED = "rest", "background", "unannotated"
"""What patches may hold besides classes: anything, annotated background, an unannotated voxel."""

_Voxel = tuple[int | None, int | None, int | None]
"""What a patch must hold on (z, y, x); None where any place will do."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CaseSummary:
    """Where in a preprocessed case annotated voxels lie. Coordinates are (z, y, x)."""

    name: str
    shape: tuple[int, int, int]
    is_dense: bool
    """Whether every voxel is annotated."""
    class_voxels: Mapping[int, np.ndarray]
    """Foreground label value to voxels of it, shape (N, 3); only values with voxels."""
    annotated_voxels: np.ndarray
    """A sample of all annotated voxels, shape (N, 3), with some from every annotated slice."""
    annotated_slices: np.ndarray
    """Sorted indices along the first axis of slices with annotation."""
    slice_axis: int = 0
    """Axis across which slices were annotated: the one with the smallest share of such slices."""
    other_voxels: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Voxels of `BACKGROUND` and `UNANNOTATED`, shape (N, 3), where patch shares ask for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchShare:
    """The share of patches that hold a class, background or unannotated voxels."""

    name: str
    """A class or region, or `REST`, `BACKGROUND` or `UNANNOTATED`."""
    weight: float
    """Weight relative to the other shares'; above 0."""
    values: tuple[int, ...] = ()
    """Label values of the class; empty for what is no class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchPlace:
    """One patch to read: which case, and its first voxel (may be negative: padding)."""

    case: str
    start: tuple[int, int, int]
    """First voxel of the network's patch on (z, y, x)."""


DrawStart = Callable[[CaseSummary, tuple[int, int, int], np.random.Generator], Sequence[int]]
"""(case, patch size along (z, y, x), generator) to the first voxel of a patch on (z, y, x).

It may be negative: what lies outside the case is 0 and not annotated. A 2D network's patch has size
1 along z. Everything random comes from the generator."""


def load_sampler(name: Named) -> DrawStart | None:
    """Return the function of the user's that draws places; None for the rules above.

    Raises:
        RequestError: There is no such sampler, or it cannot be imported.
    """
    if name in SAMPLERS:
        return None
    draw: DrawStart = load_function(name, SAMPLERS, what="sampler")
    return draw


def resolve_shares(
    shares: Mapping[str, float] | None, labels: LabelSchema
) -> tuple[PatchShare, ...]:
    """Give patch shares by name the label values they stand for; empty for None.

    A class called like one of the other words is the class. Shares of weight 0 are left out.

    Raises:
        RequestError: A name is neither a class nor one of the other words; lists all there are.
    """
    known = {**dict.fromkeys((REST, BACKGROUND, UNANNOTATED), ()), **labels.foreground}
    unknown = [name for name in shares or {} if name not in known]
    if unknown:
        raise RequestError(
            f"Patches cannot have a share of {', '.join(unknown)}; expected some of: "
            f"{', '.join([*labels.foreground, BACKGROUND, UNANNOTATED, REST])}."
        )
    return tuple(
        PatchShare(name=name, weight=weight, values=known[name])
        for name, weight in (shares or {}).items()
        if weight > 0
    )


class PatchSampler:
    """Chooses which case and which place every patch of a batch is read from."""

    def __init__(
        self,
        cases: Sequence[CaseSummary],
        *,
        patch_size: tuple[int, int, int],
        batch_size: int,
        foreground_share: float,
        shares: Sequence[PatchShare] = (),
        case_weighting: str = "uniform",
        draw_start: DrawStart | None = None,
    ) -> None:
        """Prepare to draw.

        Args:
            cases: Cases with at least one annotated voxel.
            patch_size: Size along (z, y, x); 1 along z for a 2D network.
            batch_size: Number of patches.
            foreground_share: Share of the batch, at its end, that must hold a class of the case.
                Means nothing where there are patch shares.
            shares: What patches hold. What no case has is left out; if nothing is left, patches are
                drawn as without shares.
            case_weighting: Key of `CASE_WEIGHTINGS`, for every draw of a case. In 2D patches that
                need not hold a class come from all annotated slices alike, whatever it says.
            draw_start: Draws the place of every patch in its case, whatever share or shares say.

        Raises:
            ValueError: No case is given.
        """
        if not cases:
            raise ValueError("There is no case with annotation to draw a patch from.")
        self._patch_size = patch_size
        self._batch_size = batch_size
        self._first_forced = round(batch_size * (1 - foreground_share))
        self._flat = patch_size[0] == 1
        self._draw_start = draw_start
        self._summaries = {case.name: case for case in cases}
        indexed = [_IndexedCase(case, 0 if self._flat else case.slice_axis) for case in cases]
        weigh = CASE_WEIGHTINGS[case_weighting]
        self._all = _Pool(indexed, weigh)
        self._slices_before = [0, *accumulate(len(case.annotated_slices) for case in cases)]
        pools = [(share, _Pool(_holding(share, indexed), weigh)) for share in shares]
        self._shares = [(share, pool) for share, pool in pools if pool.cases]
        self.absent = tuple(share.name for share, pool in pools if not pool.cases)
        """Names of shares that no case has anything for."""
        self._share_edges = _edges([share.weight for share, _ in self._shares])

    def places(self, rng: np.random.Generator) -> list[PatchPlace]:
        """Choose the patches of one batch; `rng` decides everything."""
        return [
            self._place(rng, forced=position >= self._first_forced)
            for position in range(self._batch_size)
        ]

    def _place(self, rng: np.random.Generator, *, forced: bool) -> PatchPlace:
        """Draw a case, a voxel of it that the patch must hold, and a start that holds the voxel.

        Args:
            rng: Decides everything.
            forced: Whether the patch must hold a foreground class, if the case has any.
        """
        if self._draw_start is not None:
            return self._place_by(self._draw_start, rng)
        if self._shares:
            case, voxel = self._by_share(rng)
        elif self._flat and not forced:
            case, z = self._random_slice(rng)
            voxel = (z, None, None) if case.is_dense else case.draw_in_slice(z, rng)
        else:
            case = self._all.draw(rng)
            voxel = case.draw_class(rng) if forced and case.values else case.draw_annotated(rng)
        start = _start_holding(voxel, case.shape, self._patch_size, rng)
        return PatchPlace(case=case.name, start=start)

    def _place_by(self, draw_start: DrawStart, rng: np.random.Generator) -> PatchPlace:
        """Draw a case, and ask the user's function for the first voxel of a patch of it."""
        case = self._summaries[self._all.draw(rng).name]
        start = tuple(draw_start(case, self._patch_size, rng))
        if len(start) != 3 or not all(isinstance(edge, int | np.integer) for edge in start):
            raise RequestError(
                f"The sampler gave {start!r} for case {case.name}; expected three whole numbers, "
                "the first voxel of the patch on (z, y, x)."
            )
        z, y, x = (int(edge) for edge in start)
        sizes = zip((z, y, x), self._patch_size, case.shape, strict=True)
        if not all(-patch < first < size for first, patch, size in sizes):
            raise RequestError(
                f"The sampler gave the first voxel {(z, y, x)} for case {case.name}; a patch of "
                f"{self._patch_size} there holds no voxel of its {case.shape}."
            )
        return PatchPlace(case=case.name, start=(z, y, x))

    def _by_share(self, rng: np.random.Generator) -> tuple["_IndexedCase", _Voxel]:
        """Draw a patch share by weight, then a case that has it, then a voxel of it."""
        share, pool = self._shares[bisect_right(self._share_edges, rng.random())]
        if not share.values and share.name == REST:
            if not self._flat:
                return pool.draw(rng), (None, None, None)
            case, z = self._random_slice(rng)
            return case, (z, None, None)
        case = pool.draw(rng)
        if share.values:
            return case, case.draw_class(rng, among=share.values)
        return case, _draw(case.other_voxels[share.name], rng)

    def _random_slice(self, rng: np.random.Generator) -> tuple["_IndexedCase", int]:
        """Draw a slice among the annotated slices of all cases, each equally likely.

        Slices are numbered through all cases: with 3, 2 and 4 annotated slices `_slices_before` is
        0, 3, 5, 9, and number 4 is the slice at position 4 - 3 = 1 of the second case.
        """
        number = int(rng.integers(self._slices_before[-1]))
        position = bisect_right(self._slices_before, number) - 1
        case = self._all.cases[position]
        return case, int(case.annotated_slices[number - self._slices_before[position]])


class _IndexedCase:
    """A case whose annotated voxels can be drawn slice by slice.

    The voxels are sorted by slice. Five voxels in slices 7, 7, 7, 12, 12 give `_slices` [7, 12] and
    `_first` [0, 3, 5]: the voxels of the second slice are those from 3 to before 5.
    """

    def __init__(self, case: CaseSummary, axis: int) -> None:
        self.name, self.shape, self.is_dense = case.name, case.shape, case.is_dense
        self.annotated_slices = case.annotated_slices
        self.other_voxels = case.other_voxels
        self._class_voxels = case.class_voxels
        self.values = sorted(case.class_voxels)
        self.num_slices = len(case.annotated_slices)
        if not case.is_dense:
            along = case.annotated_voxels[:, axis]
            order = np.argsort(along, kind="stable")
            self._voxels = case.annotated_voxels[order]
            slices, first = np.unique(along[order], return_index=True)
            self._slices = slices.tolist()
            self._first = [*first.tolist(), len(order)]
            self.num_slices = len(self._slices)

    def draw_class(self, rng: np.random.Generator, among: Sequence[int] | None = None) -> _Voxel:
        """Draw a class of those the case has, each equally likely, then one of its voxels."""
        values = [value for value in self.values if among is None or value in among]
        return _draw(self._class_voxels[values[int(rng.integers(len(values)))]], rng)

    def draw_annotated(self, rng: np.random.Generator) -> _Voxel:
        """Draw an annotated slice, each equally likely, then one of its annotated voxels."""
        if self.is_dense:
            return None, None, None
        return self._draw_ranked(int(rng.integers(len(self._slices))), rng)

    def draw_in_slice(self, index: int, rng: np.random.Generator) -> _Voxel:
        """Draw an annotated voxel of one annotated slice."""
        return self._draw_ranked(bisect_right(self._slices, index) - 1, rng)

    def _draw_ranked(self, rank: int, rng: np.random.Generator) -> _Voxel:
        """Draw a voxel of the annotated slice at position `rank`."""
        first, stop = self._first[rank], self._first[rank + 1]
        z, y, x = self._voxels[first + int(rng.integers(stop - first))].tolist()
        return z, y, x


class _Pool:
    """Cases to draw from, with a probability proportional to their weight."""

    def __init__(self, cases: Sequence[_IndexedCase], weigh: Callable[[int], float]) -> None:
        self.cases = list(cases)
        weights = [weigh(case.num_slices) for case in cases]
        self._edges = None if len(set(weights)) <= 1 else _edges(weights)

    def draw(self, rng: np.random.Generator) -> _IndexedCase:
        if self._edges is None:
            return self.cases[int(rng.integers(len(self.cases)))]
        return self.cases[bisect_right(self._edges, rng.random())]


def _holding(share: PatchShare, cases: Sequence[_IndexedCase]) -> list[_IndexedCase]:
    """Return the cases that have voxels of a patch share."""
    if share.values:
        return [case for case in cases if not set(case.values).isdisjoint(share.values)]
    if share.name == REST:
        return list(cases)
    return [case for case in cases if len(case.other_voxels.get(share.name, ()))]


def _edges(weights: Sequence[float]) -> list[float]:
    """Return the upper end of each weight's part of [0, 1): weights 1, 1, 2 give 0.25, 0.5, 1."""
    sums = list(accumulate(weights))
    return [each / sums[-1] for each in sums]


def _draw(voxels: np.ndarray, rng: np.random.Generator) -> _Voxel:
    """Draw one of the voxels (N, 3), each equally likely."""
    z, y, x = voxels[int(rng.integers(len(voxels)))].tolist()
    return z, y, x


def _start_holding(
    voxel: _Voxel,
    shape: tuple[int, int, int],
    patch_size: tuple[int, int, int],
    rng: np.random.Generator,
) -> tuple[int, int, int]:
    """Draw a start so that the patch holds the voxel and stays inside (or around a small image).

    Per axis all possible starts are equally likely. With 20 voxels and a patch of 8 that must hold
    voxel 5, starts 0 to 5 are possible: from 5 - 8 + 1 = -2 to 5, and from 0 to 20 - 8 = 12. With 6
    voxels and a patch of 8 the patch starts between -2 and 0 and covers the whole axis.
    """
    start = []
    for position, size, patch in zip(voxel, shape, patch_size, strict=True):
        low, high = min(0, size - patch), max(0, size - patch)
        if position is not None:
            low, high = max(low, position - patch + 1), min(high, position)
        start.append(int(rng.integers(low, high + 1)))
    return start[0], start[1], start[2]
