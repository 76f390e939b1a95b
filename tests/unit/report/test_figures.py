import math

import numpy as np
import pytest
from PIL import Image

from sparseunet.report.figures import draw_training_curves, ticks_between


def _entry(epoch: int, **changes) -> dict:
    entry = {
        "epoch": epoch,
        "iteration": 50 * epoch,
        "train_loss": 1.0 / epoch - 0.5,
        "val_loss": 1.1 / epoch - 0.5,
        "pseudo_dice": {"1": 1 - 1 / epoch, "2": 0.9 - 0.9 / epoch},
        "learning_rate": 0.01 / epoch,
        "duration_s": 5.0 + epoch % 2,
    }
    return entry | changes


def _draw(log, path) -> np.ndarray:
    draw_training_curves(log, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def _panels(pixels: np.ndarray) -> list[np.ndarray]:
    """Loss, pseudo Dice, learning rate, seconds."""
    return [pixels[r : r + 390, c : c + 580] for r in (90, 490) for c in (20, 600)]


def test_the_picture_has_the_promised_size_and_something_in_each_panel(tmp_path):
    pixels = _draw([_entry(epoch) for epoch in range(1, 30)], tmp_path / "progress.png")
    empty = _draw([], tmp_path / "empty.png")

    assert pixels.shape == empty.shape == (900, 1200, 3)
    for panel, without in zip(_panels(pixels), _panels(empty), strict=True):
        assert (panel != 255).any(axis=-1).sum() > (without != 255).any(axis=-1).sum() + 500


def test_every_log_key_changes_its_own_panel_only(tmp_path):
    log = [_entry(epoch) for epoch in range(1, 10)]
    full = _panels(_draw(log, tmp_path / "full.png"))
    changes = {
        "val_loss": (0, 0.9),
        "pseudo_dice": (1, {"1": 0.1, "2": 0.2}),
        "learning_rate": (2, 0.5),
        "duration_s": (3, 50.0),
    }
    for key, (changed, value) in changes.items():
        other = [*log[:4], log[4] | {key: value}, *log[5:]]
        panels = _panels(_draw(other, tmp_path / f"{key}.png"))
        differs = [not np.array_equal(a, b) for a, b in zip(full, panels, strict=True)]
        assert differs == [index == changed for index in range(4)], key


@pytest.mark.parametrize(
    "log",
    [
        [_entry(1)],
        [{"epoch": 1}],
        [{}],
        [_entry(1, train_loss=math.nan, val_loss=None, pseudo_dice={"1": None, "2": math.nan})],
        [_entry(e, train_loss=math.inf if e == 2 else 1.0, pseudo_dice={}) for e in (1, 2, 3)],
        [_entry(e, pseudo_dice={f"organ number {i}": 0.5 for i in range(117)}) for e in (1, 2)],
        [_entry(e, train_loss=1e9 * e, learning_rate=1e-9, duration_s=0.0) for e in (1, 2)],
        [_entry(e, train_loss=-3.0) for e in range(1, 2000)],
    ],
    ids=[
        "one epoch",
        "no value",
        "nothing",
        "undefined",
        "infinite",
        "117 classes",
        "huge",
        "long",
    ],
)
def test_any_log_can_be_drawn(log, tmp_path):
    assert _draw(log, tmp_path / "progress.png").shape == (900, 1200, 3)


def test_a_value_that_is_not_finite_interrupts_its_curve(tmp_path):
    smooth = [_entry(epoch, val_loss=None) for epoch in range(1, 60)]
    broken = [
        entry | {"train_loss": math.nan} if 25 < entry["epoch"] < 35 else entry for entry in smooth
    ]
    skipped = [
        entry | {"train_loss": None} if 25 < entry["epoch"] < 35 else entry for entry in smooth
    ]

    blue = [
        np.sum((_panels(_draw(log, tmp_path / "p.png"))[0] == (38, 98, 180)).all(axis=-1))
        for log in (smooth, broken, skipped)
    ]

    assert blue[1] < 0.95 * blue[0]
    assert blue[2] > 0.97 * blue[0]


def test_the_same_log_gives_the_same_bytes(tmp_path):
    log = [_entry(epoch) for epoch in range(1, 6)]
    for name in ("first.png", "second.png"):
        draw_training_curves(log, tmp_path / name)

    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.93, 0.41, [-0.5, 0.0]),
        (1, 200, [50, 100, 150, 200]),
        (0, 3e-6, [0, 1e-6, 2e-6, 3e-6]),
    ],
)
def test_ticks_are_round_numbers_inside_the_range(low, high, expected):
    assert ticks_between(low, high, most=6) == pytest.approx(expected)


@pytest.mark.parametrize("width", [0.013, 0.7, 3.0, 41.0, 999.0])
def test_there_are_enough_ticks_and_not_too_many(width):
    ticks = ticks_between(0.37, 0.37 + width, most=6)

    assert 2 <= len(ticks) <= 7
    assert all(0.37 - 1e-9 <= tick <= 0.37 + width + 1e-9 for tick in ticks)
