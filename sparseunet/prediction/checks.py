"""Compare each scan with what the model was trained on, and say what a person should look at.

A run records the plan, not the training scans: spacing is compared with their median, intensities
with the training foreground where a unit makes them comparable (CT). Training orientation is not
recorded; scans of one request are compared with each other.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sparseunet.artifacts import read_json, write_json
from sparseunet.data.geometry import Geometry, orientation
from sparseunet.data.image import Image
from sparseunet.data.labels import LabelSchema
from sparseunet.networks.trained_model import TrainedModel
from sparseunet.preprocessing.normalise import uses_statistics

CASES_KIND = "sparseunet.prediction_cases"
CASES_VERSION = 1
_FAR_SPACING = 2.0
"""Factor from the training scans' median spacing beyond which a scan is unlike them."""
_FEW = 1e-3
"""Share of voxels in the range of the training foreground below which there can be hardly any."""
_SAMPLED_VOXELS = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseCheck:
    """Warnings and sizes of one predicted scan."""

    case: str
    spacing_mm: tuple[float, ...]
    """Voxel size along (z, y, x) of the file."""
    orientation: str
    """Where x, y and z of the file point to, e.g. LPS."""
    num_voxels: dict[str, int] = field(default_factory=dict)
    """Predicted voxels of every class or region, background left out."""
    warnings: tuple[str, ...] = ()


def check_scan(name: str, image: Image, model: TrainedModel) -> CaseCheck:
    """Compare a scan as read with the model's plan."""
    warnings = [*_check_spacing(image.geometry, model), *_check_intensities(image, model)]
    return CaseCheck(
        case=name,
        spacing_mm=image.geometry.spacing_mm,
        orientation=orientation(image.geometry),
        warnings=tuple(warnings),
    )


def count_classes(counts: Mapping[int, int], labels: LabelSchema) -> dict[str, int]:
    """Return the voxels of every class or region, given those of every label value."""
    return {
        name: sum(counts.get(value, 0) for value in values)
        for name, values in labels.foreground.items()
    }


def what_cannot_be_checked(model: TrainedModel) -> tuple[str, ...]:
    """Return, one sentence each, what the run does not say about its training scans."""
    sentences = [
        "Only the median spacing of the training scans is recorded, not their range.",
        "The orientation of the training scans is not recorded.",
    ]
    own = [
        name
        for name, scheme in zip(
            _channel_names(model), model.configuration.normalization, strict=True
        )
        if not uses_statistics(scheme)
    ]
    if own:
        sentences.append(
            f"Intensities of {', '.join(own)} have no common unit (every scan is normalised by "
            "itself), so they are not compared."
        )
    return tuple(sentences)


def write_checks(path: Path, checks: Sequence[CaseCheck], model: TrainedModel) -> None:
    """Write the checks of scans into a file; entries of other scans in it stay."""
    cases = {check.case: asdict(check) for check in checks}
    if path.is_file():
        cases = {case["case"]: case for case in read_json(path).get("cases", [])} | cases
    content: dict[str, Any] = {
        "kind": CASES_KIND,
        "version": CASES_VERSION,
        "not_checked": what_cannot_be_checked(model),
        "never_predicted": _never_predicted(list(cases.values()), model.labels),
        "cases": [cases[name] for name in sorted(cases)],
    }
    write_json(path, content)


def describe_checks(path: Path) -> str:
    """Return the file of `write_checks` as a table of warnings; "" if there is nothing to say."""
    if not path.is_file():
        return ""
    content = read_json(path)
    cases = content["cases"]
    rows = [(case["case"], warning) for case in cases for warning in case["warnings"]]
    usual, others = _unusual_orientations(cases)
    rows += [
        (case, f"axes point to {found}, those of most scans to {usual}") for case, found in others
    ]
    for case in cases:
        if case["num_voxels"] and not any(case["num_voxels"].values()):
            rows.append((case["case"], "nothing but background was found"))
    width = max((len(name) for name, _ in rows), default=0)
    lines = [f"  {name:<{width}}  {text}" for name, text in sorted(rows)]
    if content["never_predicted"]:
        lines.append(f"  Found in no scan: {', '.join(content['never_predicted'])}")
    if not lines:
        return ""
    notes = [f"  ({text})" for text in content["not_checked"]]
    return "\n".join(["Worth a look:", *lines, *notes, ""])


def _check_spacing(geometry: Geometry, model: TrainedModel) -> list[str]:
    axes = model.plan.transpose_forward
    dimensions = model.configuration.dimensions
    warnings = []
    for axis, usual in list(zip(axes, model.plan.original_median_spacing_mm, strict=True))[
        3 - dimensions :
    ]:
        found = geometry.spacing_mm[axis]
        if not 1 / _FAR_SPACING <= found / usual <= _FAR_SPACING:
            warnings.append(
                f"spacing along {'zyx'[axis]} is {found:g} mm; the median of the training scans is "
                f"{usual:g} mm"
            )
    return warnings


def _check_intensities(image: Image, model: TrainedModel) -> list[str]:
    warnings = []
    names, schemes = _channel_names(model), model.configuration.normalization
    for channel_ZYX, name, scheme, known in zip(
        image.voxels_CZYX, names, schemes, model.plan.intensities, strict=False
    ):
        step = max(1, channel_ZYX.size // _SAMPLED_VOXELS)
        values = channel_ZYX.reshape(-1)[::step]
        if values.min() == values.max():
            warnings.append(f"{name} has the value {values[0]:g} everywhere")
        elif uses_statistics(scheme):
            low, high = known.percentile_00_5, known.percentile_99_5
            if ((values >= low) & (values <= high)).mean() < _FEW:
                warnings.append(
                    f"{name} has values from {values.min():g} to {values.max():g}; hardly any lie "
                    f"where the training foreground does, {low:g} to {high:g}"
                )
    return warnings


def _channel_names(model: TrainedModel) -> list[str]:
    names = model.dataset_json.get("channel_names") or model.dataset_json.get("modality") or {}
    found = [str(name) for name in names.values()]
    return found + [
        f"channel {number}" for number in range(len(found), len(model.plan.intensities))
    ]


def _never_predicted(cases: Sequence[Mapping[str, Any]], labels: LabelSchema) -> list[str]:
    counted = [case["num_voxels"] for case in cases if case["num_voxels"]]
    if not counted:
        return []
    return [name for name in labels.foreground if not any(found.get(name) for found in counted)]


def _unusual_orientations(
    cases: Sequence[Mapping[str, Any]],
) -> tuple[str, list[tuple[str, str]]]:
    """Return the orientation of most scans, and the cases that have another."""
    counts = Counter(case["orientation"] for case in cases)
    if len(counts) < 2:
        return "", []
    usual = counts.most_common(1)[0][0]
    others = [(case["case"], case["orientation"]) for case in cases]
    return usual, [(case, found) for case, found in others if found != usual]
