"""Two scans, what a person would draw on them, and a plan.

from drawn_scans import DENSE, PLAN, draw, drawn_only, labels_in, tick
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from drawing_tools import DRAW, make_plan, only_slices
from phantoms import blobs

from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_label_map

SHAPE = (12, 9, 7)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(3.0, 0.8, 0.7), origin_mm=(-5.0, 4.0, 30.5))
VALUES = {"organ": 1, "lesion": 2}
DENSE = {name: blobs(SHAPE, seed=seed, share=0.7, width=1.0) for seed, name in enumerate("ab")}
PLAN = make_plan({"a": [2, 8], "b": [3]}, {"a": SHAPE, "b": SHAPE})


def draw(
    export: Path, case: str, slices: Sequence[int], *, tool="nifti", ending=".nii.gz", dense=None
) -> None:
    """Draw these slices of a case into the file that was handed out."""
    labels = only_slices(DENSE[case] if dense is None else dense, slices)
    DRAW[tool](export / "labels" / f"{case}{ending}", labels, VALUES)


def tick(export: Path, rows: str) -> None:
    """Replace the work list by rows of case, axis, slice, done."""
    (export / "work_list.csv").write_text(f"case,axis,slice,done\n{rows}\n")


def labels_in(folder: Path, case: str) -> np.ndarray:
    """Return the label map of a dataset's case."""
    return read_label_map(folder / "labelsTr" / f"{case}.nii.gz")[0]


def drawn_only(case: str, slices: Sequence[int], *, ignore=3) -> np.ndarray:
    """Return the label map in which only these slices are annotated."""
    labels = np.full(SHAPE, ignore, np.uint8)
    labels[slices] = DENSE[case][slices]
    return labels
