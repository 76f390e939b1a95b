"""Whether the files of one case lie on the same voxel grid."""

import math

from sparseunet.data.geometry import Geometry
from sparseunet.errors import Problem, Severity

_SPACING_TOLERANCE = 1e-4
"""Relative; less than a tenth of a voxel over a thousand voxels."""
_ORIGIN_TOLERANCE = 1e-2
"""Tolerance in voxels of the smallest spacing."""
_DIRECTION_TOLERANCE = 1e-3


def compare_grids(
    geometry: Geometry, reference: Geometry, *, case: str, file: str, reference_file: str
) -> list[Problem]:
    """Return how the grid of `file` differs from that of `reference_file`; empty if it does not.

    Another number of axes, shape or spacing is an error, and then nothing else is compared.
    Another origin or direction is a warning: voxels are matched by index (nnU-Net 2.8.1).
    """
    if geometry.dimensions != reference.dimensions or geometry.shape != reference.shape:
        return [
            Problem(
                case=case,
                file=file,
                found=f"shape {_shape(geometry)} along {_axes(geometry)}",
                expected=f"shape {_shape(reference)} as in {reference_file}",
                fix="export both from the same grid, or resample one to the other",
            )
        ]
    if not _close(geometry.spacing_mm, reference.spacing_mm, relative=_SPACING_TOLERANCE):
        return [
            Problem(
                case=case,
                file=file,
                found=f"spacing {_numbers(geometry.spacing_mm)} mm along (z, y, x)",
                expected=f"spacing {_numbers(reference.spacing_mm)} mm as in {reference_file}",
                fix="correct the voxel size of the wrong file",
            )
        ]
    origin_tolerance = _ORIGIN_TOLERANCE * min(reference.spacing_mm)
    pairs = (
        ("origin", geometry.origin_mm, reference.origin_mm, origin_tolerance),
        ("direction", geometry.direction, reference.direction, _DIRECTION_TOLERANCE),
    )
    return [
        Problem(
            severity=Severity.WARNING,
            case=case,
            file=file,
            found=f"{name} {_numbers(values)}",
            expected=f"{name} {_numbers(expected)} as in {reference_file}",
            fix="voxels are matched by index; look at both files together, and copy the header "
            "of the scan if they fit so",
        )
        for name, values, expected, tolerance in pairs
        if not _close(values, expected, absolute=tolerance)
    ]


def _close(
    values: tuple[float, ...],
    others: tuple[float, ...],
    *,
    relative: float = 0.0,
    absolute: float = 0.0,
) -> bool:
    return all(
        math.isclose(value, other, rel_tol=relative, abs_tol=absolute)
        for value, other in zip(values, others, strict=True)
    )


def _shape(geometry: Geometry) -> tuple[int, ...]:
    return geometry.shape[3 - geometry.dimensions :]


def _axes(geometry: Geometry) -> str:
    return "(z, y, x)" if geometry.dimensions == 3 else "(y, x), a 2D file"


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value + 0.0:g}" for value in values) + ")"
