"""What a network will see: counted before training, in batches that training will draw."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from sparseunet.artifacts import write_json
from sparseunet.data.annotation import Source
from sparseunet.data.geometry import in_3d
from sparseunet.data.labels import LabelSchema
from sparseunet.planning.plan import Configuration
from sparseunet.preprocessing.store import CaseStore
from sparseunet.training.fit import batch_rules
from sparseunet.training.loader import BatchDataset, summarise_cases
from sparseunet.training.recipe import Recipe
from sparseunet.training.sampling import BACKGROUND, CaseSummary, PatchPlace

_KIND, _VERSION = "training_forecast", 1
RARE_BATCHES = 0.1
"""A momentum of 0.99 averages about a hundred steps: of a class in fewer batches than a tenth it
remembers fewer than ten."""
FEW_VIEWS = 5.0
"""A slice that is seen less often was shown turned, scaled and mirrored in a handful of ways only;
then the length of the training is the limit, and not yet the labels."""
_BATCHES = 200
_PATCHES, _VOXELS = 1500, 300_000_000
"""At most so many are read, which takes one or two seconds, but for ten batches in any case."""
_MIN_BATCHES = 10
_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassForecast:
    """How often a training sees one class or region."""

    name: str
    voxels_per_batch: float
    """Mean number of its annotated voxels."""
    batches_with_it: float
    """Share of the batches that hold at least one voxel of it, in [0, 1]."""
    num_cases: int
    """Training cases with an annotated voxel of it."""
    num_slices: int | None
    """Slices with it in these cases; None for background, which is not counted."""
    views_per_slice: float | None
    """How often a patch shows such a slice with a voxel of the class, in the whole training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a training sees. Means over some of its batches, before augmentation."""

    iterations: int
    num_batches: int
    """Batches that were counted, spread evenly over the training."""
    batch_size: int
    num_cases: int
    left_out: tuple[str, ...]
    """Training cases without any annotated voxel."""
    num_slices: int
    """Annotated slices, in every case across the axis that was annotated."""
    annotated_share: float
    """Share of the voxels of a patch that are annotated, in [0, 1]."""
    voxels_per_batch: float
    """Annotated voxels of any class: those that the loss counts."""
    views_per_slice: float
    """How often a patch shows an annotated slice, in the whole training."""
    classes: tuple[ClassForecast, ...]
    """Classes, background first."""
    warnings: tuple[str, ...]
    """What is seen too rarely, each with what to do."""


def forecast_training(
    store: CaseStore,
    names: Sequence[str],
    *,
    configuration: Configuration,
    labels: LabelSchema,
    recipe: Recipe,
) -> Forecast | None:
    """Count what up to 200 batches of a training hold, fewer where batches or patches are large.

    They are the batches that training will draw, at steps spread evenly over it, so the same recipe
    and data give the same forecast. Of a training no longer than that it is exact, but for
    augmentation, which turns and scales patches, and for slices that hold too few voxels of a class
    to be in the sample of a case with more than 10 000 (they are not among `num_slices`).

    Args:
        store: Preprocessed cases of the configuration.
        names: Training cases.
        configuration: Patch and batch.
        labels: The dataset's classes.
        recipe: How to train.

    Returns:
        None if no case has an annotated voxel.

    Raises:
        RequestError: A patch share is of no class.
    """
    rules = batch_rules(configuration, recipe, labels)
    cases = summarise_cases(store, names, rules)
    if not cases:
        return None
    dataset = BatchDataset(store, cases, rules, memory_bytes=0)
    if configuration.dimensions == 2:
        cases = [replace(case, slice_axis=0) for case in cases]
    counter = _Counter(
        store=store,
        axes={case.name: case.slice_axis for case in cases},
        patch_size=in_3d(rules.patch_size),
        counted=np.array([source > 0 and rules.trust.get(source, 0) > 0 for source in Source]),
        num_values=max(labels.values) + 1,
    )
    patch_voxels = prod(rules.patch_size)
    steps = _steps(recipe.num_iterations, configuration.batch_size, patch_voxels)
    batches = [
        np.concatenate([counter.count(place) for place in dataset.places(step)]) for step in steps
    ]
    classes = [
        _forecast_class(name, values, batches, cases, store=store, iterations=recipe.num_iterations)
        for name, values in {BACKGROUND: (0,), **labels.foreground}.items()
    ]
    voxels = float(np.mean([counts_SV.sum() for counts_SV in batches]))
    num_slices = sum(len(store.annotated_slices(case.name, case.slice_axis)) for case in cases)
    views = recipe.num_iterations * float(np.mean([len(counts_SV) for counts_SV in batches]))
    return Forecast(
        iterations=recipe.num_iterations,
        num_batches=len(batches),
        batch_size=configuration.batch_size,
        num_cases=len(names),
        left_out=tuple(sorted({*names} - {case.name for case in cases})),
        num_slices=num_slices,
        annotated_share=voxels / configuration.batch_size / patch_voxels,
        voxels_per_batch=voxels,
        views_per_slice=views / num_slices,
        classes=tuple(classes),
        warnings=(
            *_absent_warnings(dataset.sampler.absent, classes),
            *_warnings(classes, views / num_slices, recipe.num_iterations),
        ),
    )


def write_forecast(path: Path, forecast: Forecast) -> None:
    """Write `forecast.json`, whole or not at all."""
    write_json(path, {"kind": _KIND, "version": _VERSION, **asdict(forecast)})


def format_forecast(forecast: Forecast) -> list[str]:
    """Return the forecast as lines of a table, without its warnings."""
    head = ("class", "cases", "slices", "voxels/batch", "batches with it", "views per slice")
    rows = [head, *(_row(each) for each in forecast.classes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    counted = f"{forecast.num_batches} of {forecast.iterations} batches, before augmentation"
    lines = [f"What the network will see (counted in {counted})"]
    for row in rows:
        first = row[0].ljust(widths[0])
        others = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append(f"  {first}  {'  '.join(others)}")
    annotated = forecast.num_cases - len(forecast.left_out)
    lines.append(
        f"{forecast.annotated_share:.2%} of a patch is annotated, {forecast.voxels_per_batch:,.0f} "
        f"voxels per batch; the {forecast.num_slices} annotated slices of {annotated} cases are "
        f"each seen {_number(forecast.views_per_slice)} times in the whole training."
    )
    if forecast.left_out:
        lines.append(_left_out_line(forecast))
    return lines


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counter:
    """Counts what is annotated in patches, without reading images."""

    store: CaseStore
    axes: Mapping[str, int]
    """Case to the axis that was annotated."""
    patch_size: tuple[int, int, int]
    counted: np.ndarray
    """bool by `Source`: whether the loss counts its labels."""
    num_values: int

    def count(self, place: PatchPlace) -> np.ndarray:
        """Return the annotated voxels per slice that holds any, by label value."""
        manifest, axis = self.store.manifest(place.case), self.axes[place.case]
        edges = zip(place.start, self.patch_size, manifest.shape, strict=True)
        z, y, x = ((max(0, low), min(size, low + edge)) for low, edge, size in edges)
        first, stop = (z, y, x)[axis]
        slices = self.store.annotated_slices(place.case, axis)
        inside = slices[(slices >= first) & (slices < stop)] - first
        counts = []
        if len(inside):
            arrays = self.store.read_labels(place.case, (z[0], y[0], x[0]), (z[1], y[1], x[1]))
            labels_SPQ, source_SPQ = (np.moveaxis(array, axis, 0) for array in arrays)
            for index in inside.tolist():  # one by one, as counting makes a larger copy
                chosen = labels_SPQ[index][self.counted[source_SPQ[index]]]
                if len(chosen):
                    counts.append(np.bincount(chosen, minlength=self.num_values))
        return np.array(counts, np.int64).reshape(-1, self.num_values)


def _steps(iterations: int, batch_size: int, patch_voxels: int) -> list[int]:
    affordable = min(_PATCHES, _VOXELS // patch_voxels) // batch_size
    number = min(_BATCHES, iterations, max(_MIN_BATCHES, affordable))
    return sorted({*np.linspace(0, iterations - 1, number).round().astype(int).tolist()})


def _forecast_class(
    name: str,
    values: Sequence[int],
    batches: Sequence[np.ndarray],
    cases: Sequence[CaseSummary],
    *,
    store: CaseStore,
    iterations: int,
) -> ClassForecast:
    of_class = [counts_SV[:, list(values)].sum(axis=1) for counts_SV in batches]
    slices_per_batch = float(np.mean([np.count_nonzero(voxels_S) for voxels_S in of_class]))
    is_background = tuple(values) == (0,)
    if is_background:
        num_cases, num_slices = sum(_has_background(store, case.name) for case in cases), None
    else:
        by_case = [_num_slices(case, values) for case in cases]
        num_cases, num_slices = sum(map(bool, by_case)), sum(by_case)
    return ClassForecast(
        name=name,
        voxels_per_batch=float(np.mean([voxels_S.sum() for voxels_S in of_class])),
        batches_with_it=float(np.mean([voxels_S.any() for voxels_S in of_class])),
        num_cases=num_cases,
        num_slices=num_slices,
        views_per_slice=iterations * slices_per_batch / num_slices if num_slices else None,
    )


def _has_background(store: CaseStore, name: str) -> bool:
    manifest = store.manifest(name)
    return manifest.num_annotated_voxels > sum(manifest.class_voxels.values())


def _num_slices(case: CaseSummary, values: Sequence[int]) -> int:
    found: set[int] = set()
    for value in values:
        if value in case.class_voxels:
            found.update(np.unique(case.class_voxels[value][:, case.slice_axis]).tolist())
    return len(found)


def _absent_warnings(absent: Sequence[str], classes: Sequence[ClassForecast]) -> list[str]:
    """Warn of patch shares without effect; of classes that no case has is warned anyway."""
    missing = {each.name for each in classes if not each.num_cases}
    return [
        f"No training case has voxels that are {name}, so its share of the patches goes to the "
        "others: leave it out of the patch shares."
        for name in absent
        if name not in missing
    ]


def _warnings(
    classes: Sequence[ClassForecast], views_per_slice: float, iterations: int
) -> list[str]:
    found = []
    for each in classes:
        if not each.num_cases:
            found.append(
                f"{each.name} is annotated in no training case, so the network cannot learn it: "
                "annotate some, or take a fold with a case that has it."
            )
        elif each.batches_with_it < RARE_BATCHES:
            found.append(
                f"{each.name} is in only {each.batches_with_it:.0%} of the batches: annotate more "
                f"slices with it, or draw it more often (patch shares {each.name}=50 rest=50)."
            )
    if views_per_slice < FEW_VIEWS:
        enough = iterations * FEW_VIEWS / max(views_per_slice, FEW_VIEWS / 1000)
        found.append(
            f"Each annotated slice is seen only {_number(views_per_slice)} times in the whole "
            f"training: take about {enough:,.0f} iterations to see it {FEW_VIEWS:g} times."
        )
    return found


def _left_out_line(forecast: Forecast) -> str:
    number = len(forecast.left_out)
    verbs = ("has", "is") if number == 1 else ("have", "are")
    names = ", ".join(forecast.left_out[:_NAMES_SHOWN])
    more = f" and {number - _NAMES_SHOWN} more" if number > _NAMES_SHOWN else ""
    return (
        f"{number} of {forecast.num_cases} training cases {verbs[0]} no annotated voxel and "
        f"{verbs[1]} left out: {names}{more}."
    )


def _row(each: ClassForecast) -> tuple[str, ...]:
    return (
        each.name,
        str(each.num_cases),
        "–" if each.num_slices is None else str(each.num_slices),
        f"{each.voxels_per_batch:,.0f}",
        f"{each.batches_with_it:.0%}",
        "–" if each.views_per_slice is None else _number(each.views_per_slice),
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
