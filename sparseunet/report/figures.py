"""Curves of a training run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparseunet.data.colours import Colour, label_colour
from sparseunet.data.rounding import is_rounding_noise
from sparseunet.progress import format_duration
from sparseunet.report.canvas import (
    GREY,
    INK,
    RULE,
    Canvas,
    Point,
    shorten,
    text_width,
)

WIDTH, HEIGHT = 1200, 900
_BLUE: Colour = (38, 98, 180)
_ORANGE: Colour = (224, 112, 42)
_WIDEST_NAME = 120
_MOST_POINTS_WITH_DOTS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One line of a panel."""

    name: str
    """In the legend; "" for none."""
    points: tuple[Point, ...]
    """(epoch, value); a value that is not finite interrupts the line."""
    colour: Colour
    width: float = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One pair of axes with its curves."""

    title: str
    curves: tuple[Curve, ...]
    legend: tuple[tuple[str, Colour], ...] = field(default=())
    floor: float | None = None
    """The axis reaches at least down to this value."""
    ceiling: float | None = None
    """The axis reaches at least up to this value."""


def draw_training_curves(log: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw losses, pseudo Dice, learning rate and seconds per epoch as a PNG of 1200 × 900.

    Args:
        log: One mapping per epoch with `epoch` and any of `iteration`, `train_loss`, `val_loss`,
            `pseudo_dice` (class to value), `learning_rate`, `duration_s`. What is missing or None
            is skipped; what is not finite interrupts its curve. Without values panels stay empty.
        path: The PNG to write, whole or not at all.
    """
    canvas = Canvas(WIDTH, HEIGHT)
    canvas.text((40, 46), "Training progress", size=24, bold=True)
    canvas.text((40, 72), _summarise(log), size=14, colour=GREY)
    for index, panel in enumerate(_panels(log)):
        row, column = divmod(index, 2)
        _draw_panel(canvas, panel, corner=(40 + 580 * column, 98 + 400 * row), size=(540, 376))
    canvas.save(path)


def ticks_between(low: float, high: float, *, most: int) -> list[float]:
    """Return about `most` round numbers in [low, high], low < high.

    Their step is 1, 2, 2.5 or 5 times a power of ten.
    """
    raw_step = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw_step))
    step = next(
        power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw_step * 0.999
    )
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _panels(log: Sequence[Mapping[str, Any]]) -> list[Panel]:
    losses = (
        Curve(name="training", points=_read(log, "train_loss"), colour=_BLUE),
        Curve(name="validation", points=_read(log, "val_loss"), colour=_ORANGE),
    )
    return [
        Panel(
            title="Loss",
            curves=losses,
            legend=tuple((curve.name, curve.colour) for curve in losses if curve.points),
        ),
        _dice_panel(log),
        Panel(
            title="Learning rate",
            curves=(Curve(name="", points=_read(log, "learning_rate"), colour=_BLUE),),
            floor=0.0,
        ),
        Panel(
            title="Seconds per epoch",
            curves=(Curve(name="", points=_read(log, "duration_s"), colour=_BLUE),),
            floor=0.0,
        ),
    ]


def _dice_panel(log: Sequence[Mapping[str, Any]]) -> Panel:
    entries = [(epoch, value) for epoch, value in _entries(log, "pseudo_dice") if value]
    names = list(dict.fromkeys(name for _, by_class in entries for name in by_class))
    curves, means = [], []
    for index, name in enumerate(names):
        points = tuple((epoch, _number(by_class.get(name))) for epoch, by_class in entries)
        curves.append(
            Curve(name=str(name), points=points, colour=label_colour(index + 1), width=1.5)
        )
    for epoch, by_class in entries:
        defined = [_number(value) for value in by_class.values() if math.isfinite(_number(value))]
        means.append((epoch, sum(defined) / len(defined) if defined else math.nan))
    legend = [("mean", INK)] if means else []
    legend += [(curve.name, curve.colour) for curve in curves]
    mean = Curve(name="mean", points=tuple(means), colour=INK, width=3.0)
    return Panel(
        title="Pseudo Dice",
        curves=(*curves, mean),
        legend=tuple(legend),
        floor=0.0,
        ceiling=1.0,
    )


def _summarise(log: Sequence[Mapping[str, Any]]) -> str:
    if not log:
        return "no epoch yet"
    parts = [
        f"epoch {_entries(log, 'epoch')[-1][0]:g}" if "epoch" in log[-1] else f"{len(log)} epochs"
    ]
    iterations = _read(log, "iteration")
    if iterations:
        parts.append(f"iteration {iterations[-1][1]:.0f}")
    for key, name in (("train_loss", "training loss"), ("val_loss", "validation loss")):
        points = _read(log, key)
        if points:
            parts.append(f"{name} {points[-1][1]:.4f}")
    means = [y for _, y in _dice_panel(log).curves[-1].points if math.isfinite(y)]
    if means:
        parts.append(f"pseudo Dice {means[-1]:.3f} (best {max(means):.3f})")
    durations = [y for _, y in _read(log, "duration_s") if math.isfinite(y)]
    if durations:
        parts.append(f"{format_duration(sum(durations))} in all")
    return "  ·  ".join(parts)


def _entries(log: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, Any]]:
    """Return (epoch, value) of the entries that have a value."""
    return [
        (float(entry.get("epoch", index)), entry[key])
        for index, entry in enumerate(log)
        if entry.get(key) is not None
    ]


def _read(log: Sequence[Mapping[str, Any]], key: str) -> tuple[Point, ...]:
    return tuple((epoch, _number(value)) for epoch, value in _entries(log, key))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _draw_panel(canvas: Canvas, panel: Panel, *, corner: Point, size: Point) -> None:
    (x, y), (width, height) = corner, size
    canvas.text((x, y + 18), panel.title, size=16, bold=True)
    _draw_legend(canvas, panel.legend, left=x + 170, right=x + width, baseline=y + 18)
    plot_corner, plot_size = (x + 58, y + 38), (width - 62, height - 90)
    points = [point for curve in panel.curves for point in curve.points if math.isfinite(point[1])]
    if not points:
        canvas.box(plot_corner, plot_size, outline=RULE)
        middle = (plot_corner[0] + plot_size[0] / 2, plot_corner[1] + plot_size[1] / 2)
        canvas.text(middle, "no values", size=14, colour=GREY, anchor="mm")
        return
    axes = _Axes(
        corner=plot_corner,
        size=plot_size,
        range_x=_range_of([epoch for epoch, _ in points], margin=0.0),
        range_y=_range_of(
            [value for _, value in points], margin=0.06, floor=panel.floor, ceiling=panel.ceiling
        ),
    )
    _draw_axes(canvas, axes)
    for curve in panel.curves:
        _draw_curve(canvas, curve, axes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Axes:
    corner: Point
    size: Point
    range_x: Point
    range_y: Point

    def place(self, point: Point) -> Point:
        across = (point[0] - self.range_x[0]) / (self.range_x[1] - self.range_x[0])
        up = (point[1] - self.range_y[0]) / (self.range_y[1] - self.range_y[0])
        return self.corner[0] + across * self.size[0], self.corner[1] + (1 - up) * self.size[1]


def _range_of(
    values: Sequence[float],
    *,
    margin: float,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Point:
    """Return what an axis spans: the values and bounds, with a margin where no bound holds."""
    low = min([*values, *([] if floor is None else [floor])])
    high = max([*values, *([] if ceiling is None else [ceiling])])
    if is_rounding_noise(high - low, largest=max(abs(low), abs(high)), dtype=float):
        low, high = low - (abs(low) * 0.5 or 0.5), high + (abs(high) * 0.5 or 0.5)
    extra = margin * (high - low)
    return low - extra * (low != floor), high + extra * (high != ceiling)


def _draw_legend(
    canvas: Canvas,
    legend: Sequence[tuple[str, Colour]],
    *,
    left: float,
    right: float,
    baseline: float,
) -> None:
    """Write as many names as fit in one row that ends at `right`, and how many are left out."""
    named = [(shorten(name, size=13, width=_WIDEST_NAME), colour) for name, colour in legend]
    shown, rest = len(named), ""
    while sum(text_width(name, size=13) + 36 for name, _ in named[:shown]) > right - left - 60:
        shown -= 1
        rest = f"+ {len(named) - shown} more"
    canvas.text((right, baseline), rest, size=13, colour=GREY, anchor="rs")
    right -= text_width(rest, size=13) + 14 if rest else 0
    for name, colour in reversed(named[:shown]):
        right -= text_width(name, size=13)
        canvas.text((right, baseline), name, size=13, colour=GREY)
        canvas.line([(right - 22, baseline - 5), (right - 6, baseline - 5)], colour=colour, width=3)
        right -= 36


def _draw_axes(canvas: Canvas, axes: _Axes) -> None:
    left, top = axes.corner
    right, bottom = left + axes.size[0], top + axes.size[1]
    ticks_y = ticks_between(*axes.range_y, most=6)
    for tick, words in zip(ticks_y, _tick_labels(ticks_y), strict=True):
        _, y = axes.place((axes.range_x[0], tick))
        canvas.line([(left, y), (right, y)], colour=RULE)
        canvas.text((left - 8, y), words, size=12, colour=GREY, anchor="rm")
    ticks_x = [tick for tick in ticks_between(*axes.range_x, most=8) if tick == round(tick)]
    for tick, words in zip(ticks_x, _tick_labels(ticks_x), strict=True):
        x, _ = axes.place((tick, axes.range_y[0]))
        canvas.line([(x, bottom), (x, bottom + 5)], colour=GREY)
        canvas.text((x, bottom + 10), words, size=12, colour=GREY, anchor="ma")
    canvas.line([(left, bottom), (right, bottom)], colour=GREY)
    canvas.text((right, bottom + 30), "epoch", size=12, colour=GREY, anchor="ra")


def _tick_labels(ticks: Sequence[float]) -> list[str]:
    """Return the ticks with just the decimals that tell them apart."""
    largest = max((abs(tick) for tick in ticks), default=0.0)
    if largest and (largest < 1e-3 or largest >= 1e6):
        return [f"{tick:.3g}" if tick else "0" for tick in ticks]
    decimals = next(
        (n for n in range(6) if all(math.isclose(round(t, n), t, abs_tol=1e-9) for t in ticks)), 6
    )
    return [f"{tick:.{decimals}f}" for tick in ticks]


def _draw_curve(canvas: Canvas, curve: Curve, axes: _Axes) -> None:
    stretches: list[list[Point]] = [[]]
    for point in curve.points:
        if math.isfinite(point[1]):
            stretches[-1].append(axes.place(point))
        elif stretches[-1]:
            stretches.append([])
    has_dots = len(curve.points) <= _MOST_POINTS_WITH_DOTS
    for stretch in stretches:
        canvas.line(stretch, colour=curve.colour, width=curve.width)
        if has_dots or len(stretch) == 1:
            for point in stretch:
                canvas.dot(point, radius=curve.width + 0.8, colour=curve.colour)
