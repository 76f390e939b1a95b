"""What people and their tools do to an exported folder, done by other people's libraries.

from drawing_tools import draw, make_plan
"""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
import slicerio
import tifffile

from sparseunet.annotation.annotation_plan import AnnotationPlan, PlannedCase

Draw = Callable[[Path, np.ndarray, Mapping[str, int]], None]


def make_plan(
    slices: Mapping[str, Sequence[int] | Mapping[int, Sequence[int]]],
    shapes: Mapping[str, Sequence[int]],
    *,
    axis: int = 0,
    dataset: str = "Dataset001_Dense",
) -> AnnotationPlan:
    """Return a plan of these slices across `axis`, or of axis to slices, ranked as listed."""
    cases, rank = [], 0
    for case, planned in sorted(slices.items()):
        by_axis = planned if isinstance(planned, Mapping) else {axis: planned}
        for across, indices in sorted(by_axis.items()):
            ranks = tuple(range(rank + 1, rank + 1 + len(indices)))
            rank += len(indices)
            cases.append(
                PlannedCase(
                    case=case,
                    axis=across,
                    num_slices=shapes[case][across],
                    slices=tuple(indices),
                    ranks=ranks,
                    reasons=("because",) * len(indices),
                    expected_minutes=2.0 * len(indices),
                )
            )
    return AnnotationPlan(
        dataset=dataset, selector="fixed", seed=0, budget=f"{rank}slices", cases=tuple(cases)
    )


def only_slices(labels_ZYX: np.ndarray, indices: Sequence[int], *, axis: int = 0) -> np.ndarray:
    """Return the labels with everything outside these slices erased."""
    kept = np.zeros_like(labels_ZYX)
    here = (slice(None),) * axis + (list(indices),)
    kept[here] = labels_ZYX[here]
    return kept


def draw_with_nibabel(path: Path, labels_ZYX: np.ndarray, values: Mapping[str, int]) -> None:
    """Save over a NIfTI file as a Python tool does."""
    del values
    opened = nibabel.load(path)
    array = labels_ZYX.transpose(2, 1, 0).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, opened.affine), path)


def draw_with_slicer(path: Path, labels_ZYX: np.ndarray, values: Mapping[str, int]) -> None:
    """Save over a `.seg.nrrd` with new label values, without segments that stayed empty."""
    opened = slicerio.read_segmentation(path)
    assert [segment["name"] for segment in opened["segments"]] == list(values)
    drawn = slicerio.create_segmentation(labels_ZYX.shape[::-1], opened["ijkToLPS"])
    for name, value in reversed(values.items()):  # so that values are not those of the dataset
        mask = np.equal(labels_ZYX.T, value)
        if mask.any():
            slicerio.add_segment(drawn, mask, {"id": f"Segment_{name}", "name": name})
    drawn["containedRepresentationNames"] = ["Binary labelmap"]
    slicerio.write_segmentation(str(path), drawn)


def draw_with_mitk(path: Path, labels_ZYX: np.ndarray, values: Mapping[str, int]) -> None:
    """Save over a multilabel file with the same header, as one layer of a vector image."""
    opened = SimpleITK.ReadImage(str(path))
    key = "org.mitk.multilabel.segmentation.labelgroups"
    (group,) = json.loads(opened.GetMetaData(key))
    assert {label["name"]: label["value"] for label in group["labels"]} == values
    steps = np.reshape(opened.GetDirection(), (3, 3)) * opened.GetSpacing()
    vectors = [",".join(f"{value:.17g}" for value in column) for column in steps.T]
    own = [
        f"{each}:={opened.GetMetaData(each)}"
        for each in opened.GetMetaDataKeys()
        if each.startswith(("org.mitk", "modality"))
    ]
    header = [
        "NRRD0004",
        "type: unsigned short",
        "dimension: 4",
        "space: left-posterior-superior",
        f"sizes: 1 {' '.join(map(str, labels_ZYX.shape[::-1]))}",
        f"space directions: none {' '.join(f'({vector})' for vector in vectors)}",
        "kinds: vector domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: ({','.join(f'{value:.17g}' for value in opened.GetOrigin())})",
        *own,
        "",
        "",
    ]
    voxels = np.ascontiguousarray(labels_ZYX, "<u2").tobytes()
    path.write_bytes("\n".join(header).encode() + gzip.compress(voxels))


def draw_with_napari(path: Path, labels_ZYX: np.ndarray, values: Mapping[str, int]) -> None:
    """Save over a TIFF as napari's own writer does."""
    del values
    assert tifffile.imread(path).shape == labels_ZYX.shape
    tifffile.imwrite(
        path, labels_ZYX.astype(np.int32), compression="zlib", compressionargs={"level": 1}
    )


DRAW: dict[str, Draw] = {
    "itksnap": draw_with_nibabel,
    "slicer": draw_with_slicer,
    "mitk": draw_with_mitk,
    "napari": draw_with_napari,
    "nifti": draw_with_nibabel,
}
ENDING = {
    "itksnap": ".nii.gz",
    "slicer": ".seg.nrrd",
    "mitk": ".nrrd",
    "napari": ".tif",
    "nifti": ".nii.gz",
}
