"""Which slices of which scans to annotate: one file per family of selectors."""

from typing import TYPE_CHECKING

from sparseunet.named_functions import load_function

if TYPE_CHECKING:
    from sparseunet.annotation.selection.slices import Selector

_HERE = "sparseunet.annotation.selection"
DEFAULT_SELECTOR = "staggered"
SELECTORS = {
    "staggered": f"{_HERE}.staggered:select_staggered",
    "fixed": f"{_HERE}.fixed:select_fixed",
    "random": f"{_HERE}.uniform:select_random",
    "foreground-aware": f"{_HERE}.foreground:select_foreground_aware",
    "positive-weighted": f"{_HERE}.foreground:select_positive_weighted",
    "kmeans": f"{_HERE}.clusters:select_kmeans",
    "histogram": f"{_HERE}.clusters:select_histogram",
    "ssim": f"{_HERE}.clusters:select_ssim",
    "perceptual": f"{_HERE}.clusters:select_perceptual",
    "coreset": f"{_HERE}.coreset:select_coreset",
    "representative": f"{_HERE}.representative:select_representative",
    "mae": f"{_HERE}.representative:select_mae",
    "dataset": f"{_HERE}.representative:select_over_dataset",
}
"""Name on the command line to selector; imported when it is used."""
WHERE_SLICES_LIE = {
    "staggered": "Every scan gets its slices at equal intervals. From scan to scan they are "
    "shifted by another part of an interval, so that together the scans show every height, the "
    "ends of objects too; slices on which nothing is to be drawn belong to that.",
    "fixed": "Every scan gets its slices at equal intervals, at the same heights in all scans; one "
    "slice per scan shows the middle of every object and never an end.",
}
"""What to tell a person who wonders about the places, by selector."""


def load_selector(name: str) -> "Selector":
    """Return the selector of that name, or the function at `package.module:function`.

    Raises:
        RequestError: There is no such selector; lists those there are.
    """
    return load_function(name, SELECTORS, what="selector")
