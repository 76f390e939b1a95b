"""Look through a folder of segmentations without references, the oddest case first."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sparseunet.data.annotation_record import AnnotationRecord
from sparseunet.data.grids import compare_grids
from sparseunet.data.io import read_image, read_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, Problem, RequestError, Severity
from sparseunet.evaluation.pairing import names_in
from sparseunet.evaluation.sanity import (
    FAR_MM,
    Finding,
    find_body,
    find_islands,
    find_jumps,
    find_missing,
    find_outside,
    find_wrong_sides,
)
from sparseunet.evaluation.summary import to_csv
from sparseunet.progress import track

_MOST = 0.5
"""A class with islands in more cases than this share consists of several parts by nature."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectedCase:
    """The findings about the prediction of one case."""

    name: str
    findings: tuple[Finding, ...]
    """Findings, the most severe first."""
    is_body_known: bool
    """Whether the scan has a clear background, so that what lies in it could be looked for."""
    num_voxels: dict[str, int]
    """Class to its number of predicted voxels."""

    @property
    def score(self) -> float:
        """Sum of the severities of all findings; 0 without any."""
        return sum(finding.severity for finding in self.findings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """All cases, the oddest first, and what holds for the whole folder."""

    cases: tuple[InspectedCase, ...]
    notes: tuple[str, ...]


def inspect_predictions(
    images: Path,
    predictions: Path,
    *,
    labels: LabelSchema,
    file_ending: str,
    num_workers: int,
    records: Mapping[str, AnnotationRecord] | None = None,
    far_mm: float = FAR_MM,
) -> Inspection:
    """Check every segmentation of a folder and rank the cases.

    Jumps are looked for across the axis of the annotation record, else across the axis of the
    coarsest spacing (z if several are).

    Args:
        images: Folder of scans CASE_0000.ext, the first channel of each.
        predictions: Folder of label maps CASE.ext.
        labels: What the values mean.
        file_ending: Of both, with the dot.
        num_workers: Threads.
        records: Annotation records by case, for cases whose slices were annotated.
        far_mm: Pieces of a class farther than that from its largest piece are islands.

    Raises:
        RequestError: There is no segmentation, or scans are missing; lists every missing file.
        DatasetError: A file cannot be read or lies on another grid; lists every such file.
    """
    names = names_in(predictions, file_ending)
    scans = {name: images / f"{name}_0000{file_ending}" for name in names}
    missing = [path.name for path in scans.values() if not path.is_file()]
    if not names:
        raise RequestError(f"No label map CASE{file_ending} in {predictions}.")
    if missing:
        raise RequestError(
            f"{len(missing)} of {len(names)} segmentations have no scan in {images}: "
            f"{', '.join(missing)}. Add them, or name the folder they lie in."
        )

    def look(name: str) -> InspectedCase | list[Problem]:
        try:
            return _inspect(
                name,
                scan=scans[name],
                prediction=predictions / (name + file_ending),
                labels=labels,
                record=(records or {}).get(name),
                far_mm=far_mm,
            )
        except DatasetError as error:
            return list(error.problems)

    with ThreadPoolExecutor(num_workers) as pool:
        done = list(track(pool.map(look, names), total=len(names), label="Inspecting"))
    problems = [problem for each in done if isinstance(each, list) for problem in each]
    if problems:
        raise DatasetError(problems)
    return rank([each for each in done if isinstance(each, InspectedCase)])


def rank(cases: Sequence[InspectedCase]) -> Inspection:
    """Add what only the whole folder shows, and sort the cases, the oddest first."""
    notes = []
    names = list(cases[0].num_voxels)
    shares = {name: float(np.mean([case.num_voxels[name] > 0 for case in cases])) for name in names}
    with_islands = {name: _num_cases_with(cases, "island", name) / len(cases) for name in names}
    of_parts = [name for name, share in with_islands.items() if share > _MOST and len(cases) > 2]
    if of_parts:
        notes.append(
            f"In most cases {', '.join(of_parts)} consists of pieces far apart, so these are not "
            "told case by case."
        )
    pairs = {each.class_name for case in cases for each in case.findings if each.check == "side"}
    notes += [
        f"{pair} are on the wrong sides in every case: look at the names of the classes and the "
        "direction in the headers first."
        for pair in sorted(pairs)
        if _num_cases_with(cases, "side", pair) == len(cases) > 1
    ]
    complete = []
    for case in cases:
        kept = [f for f in case.findings if f.check != "island" or f.class_name not in of_parts]
        kept += find_missing(case.num_voxels, shares=shares)
        kept.sort(key=lambda finding: -finding.severity)
        complete.append(replace(case, findings=tuple(kept)))
    unknown = sum(not case.is_body_known for case in cases)
    if unknown:
        notes.append(
            f"{unknown} scans have no clear background, so nothing could be found outside the body."
        )
    complete.sort(key=lambda case: (-case.score, case.name))
    return Inspection(cases=tuple(complete), notes=tuple(notes))


def inspection_to_json(inspection: Inspection) -> dict[str, Any]:
    """Return the ranked list with every reason."""
    return {
        "kind": "inspection",
        "version": 1,
        "notes": inspection.notes,
        "cases": [
            {
                "rank": rank_,
                "case": case.name,
                "score": case.score,
                "body_known": case.is_body_known,
                "findings": case.findings,
            }
            for rank_, case in enumerate(inspection.cases, start=1)
        ],
    }


def inspection_to_csv(inspection: Inspection) -> str:
    """Return a table with one row per finding, in the order of the ranks."""
    rows = [
        [rank_, case.name, each.check, each.class_name, each.severity, each.reason]
        for rank_, case in enumerate(inspection.cases, start=1)
        for each in case.findings
    ]
    return to_csv(["rank", "case", "check", "class", "severity", "reason"], rows)


def _inspect(
    name: str,
    *,
    scan: Path,
    prediction: Path,
    labels: LabelSchema,
    record: AnnotationRecord | None,
    far_mm: float,
) -> InspectedCase:
    """Return the findings about the prediction of one case.

    Args:
        name: The case.
        scan: Its first channel.
        prediction: The label map.
        labels: Classes of the dataset.
        record: Annotated slices of the case, which the search for jumps takes into account; None if
            there are none.
        far_mm: Distance from the largest piece of a class beyond which a piece is a finding.

    Raises:
        DatasetError: Scan and prediction do not lie on one grid.
    """
    image = read_image([scan])
    labels_ZYX, geometry = read_label_map(prediction)
    problems = compare_grids(
        geometry, image.geometry, case=name, file=str(prediction), reference_file=str(scan)
    )
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise DatasetError(problems)
    axis = int(np.argmax(geometry.spacing_mm)) if record is None else record.axis
    annotated = () if record is None else record.annotated_slices
    body_ZYX = find_body(image.voxels_CZYX[0])
    findings = find_wrong_sides(labels_ZYX, classes=labels.foreground, geometry=geometry)
    num_voxels = {}
    for class_name, values in labels.foreground.items():
        mask_ZYX = np.isin(labels_ZYX, values)
        num_voxels[class_name] = int(np.count_nonzero(mask_ZYX))
        findings += find_islands(
            mask_ZYX, class_name=class_name, spacing_mm=geometry.spacing_mm, far_mm=far_mm
        )
        findings += find_jumps(
            mask_ZYX, class_name=class_name, axis=axis, annotated_slices=annotated
        )
        if body_ZYX is not None:
            findings += find_outside(mask_ZYX, class_name=class_name, body_ZYX=body_ZYX)
    return InspectedCase(
        name=name,
        findings=tuple(findings),
        is_body_known=body_ZYX is not None,
        num_voxels=num_voxels,
    )


def _num_cases_with(cases: Sequence[InspectedCase], check: str, class_name: str) -> int:
    return sum(
        any(f.check == check and f.class_name == class_name for f in case.findings)
        for case in cases
    )
