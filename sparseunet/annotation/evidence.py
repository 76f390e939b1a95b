"""What published experiments say a budget is worth: their tables, and reading between their rows.

Z25 is Zhang, Kramer and Mazurowski, "How to select slices for annotation to train best-performing
deep learning segmentation models for cross-sectional medical images?" (arXiv 2412.08081). Numbers
of table 2 are means over nine trainings: three selectors, three times each.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sparseunet.data.density import ENOUGH_DENSITY_3D

DENSITIES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Share of the slices of an annotated volume that are annotated: columns of the tables (ρ)."""
VOLUME_SHARES = (1.0, 0.5, 0.25, 0.125)
"""Share of the training volumes that are annotated at all: rows of the tables (s)."""

Z25_TABLE_2_DENSE: Mapping[str, float] = {
    "LiTS17 liver tumour": 0.4957,
    "DBC breast": 0.9345,
    "DBC fibroglandular tissue": 0.7114,
    "ATLAS stroke": 0.6454,
}
"""IoU of 2D networks trained on every slice (Z25 table 2)."""

Z25_TABLE_2: Mapping[str, tuple[tuple[float, ...], ...]] = {
    "LiTS17 liver tumour": (
        (0.4867, 0.4937, 0.4990, 0.5005, 0.4924),
        (0.4487, 0.4690, 0.4757, 0.4787, 0.4778),
        (0.3517, 0.3946, 0.3985, 0.4043, 0.4065),
        (0.2998, 0.3202, 0.3408, 0.3094, 0.3024),
    ),
    "DBC breast": (
        (0.9269, 0.9293, 0.9268, 0.9286, 0.9307),
        (0.9222, 0.9239, 0.9189, 0.9216, 0.9239),
        (0.9028, 0.9107, 0.9132, 0.9142, 0.9173),
        (0.9032, 0.9106, 0.9136, 0.9104, 0.9153),
    ),
    "DBC fibroglandular tissue": (
        (0.6974, 0.7060, 0.7098, 0.7116, 0.7136),
        (0.6689, 0.6728, 0.6788, 0.6813, 0.6861),
        (0.6423, 0.6538, 0.6595, 0.6652, 0.6685),
        (0.6031, 0.6320, 0.6332, 0.6396, 0.6363),
    ),
    "ATLAS stroke": (
        (0.6301, 0.6515, 0.6524, 0.6428, 0.6467),
        (0.6065, 0.6329, 0.6431, 0.6428, 0.6422),
        (0.5500, 0.5963, 0.6010, 0.6123, 0.6063),
        (0.5072, 0.5504, 0.5697, 0.5755, 0.5656),
    ),
}
"""IoU of 2D networks (Z25 table 2): a row per `VOLUME_SHARES`, a column per `DENSITIES`."""

Z25_TABLE_2_DEVIATION: Mapping[str, tuple[tuple[float, ...], ...]] = {
    "LiTS17 liver tumour": (
        (0.0091, 0.0080, 0.0068, 0.0061, 0.0059),
        (0.0116, 0.0092, 0.0070, 0.0054, 0.0074),
        (0.0151, 0.0129, 0.0184, 0.0134, 0.0109),
        (0.0296, 0.0173, 0.0171, 0.0240, 0.0216),
    ),
    "DBC breast": (
        (0.0021, 0.0018, 0.0052, 0.0035, 0.0028),
        (0.0027, 0.0015, 0.0076, 0.0049, 0.0035),
        (0.0102, 0.0043, 0.0040, 0.0045, 0.0045),
        (0.0180, 0.0162, 0.0157, 0.0078, 0.0041),
    ),
    "DBC fibroglandular tissue": (
        (0.0022, 0.0038, 0.0022, 0.0015, 0.0011),
        (0.0041, 0.0066, 0.0038, 0.0034, 0.0072),
        (0.0108, 0.0076, 0.0100, 0.0058, 0.0058),
        (0.0112, 0.0080, 0.0116, 0.0093, 0.0077),
    ),
    "ATLAS stroke": (
        (0.0088, 0.0074, 0.0075, 0.0125, 0.0075),
        (0.0097, 0.0080, 0.0082, 0.0071, 0.0067),
        (0.0133, 0.0108, 0.0138, 0.0131, 0.0106),
        (0.0271, 0.0122, 0.0210, 0.0203, 0.0172),
    ),
}
"""Standard deviations of the nine trainings behind each number of `Z25_TABLE_2`."""

Z25_TABLE_4_3D: Mapping[str, tuple[float, ...]] = {
    "LiTS17 liver tumour": (0.5363, 0.5573, 0.5689, 0.5643, 0.5776),
    "DBC breast": (0.9089, 0.9100, 0.9148, 0.9122, 0.9150),
    "DBC fibroglandular tissue": (0.7107, 0.7127, 0.7161, 0.7130, 0.7166),
    "ATLAS stroke": (0.4487, 0.5189, 0.5692, 0.5857, np.nan),
}
"""IoU of 3D networks with every volume annotated, no interpolation (Z25 table 4), a column per
`DENSITIES`. ATLAS slices were drawn with more weight on those with a lesion; without that no
network learned anything at 0.05 (Z25 §4.1.2)."""

_MORE_SLICES = (
    "Not everybody finds that more volumes beat more slices: on cardiac cine MR Stein et al. "
    "(arXiv 2307.12619) gained more from slices than from volumes (48 volumes came close to 160 "
    "and 240; slices of the middle were worth most), and in Zhang et al. (2025) "
    "some ATLAS budgets too."
)
_CLEVER_SLICES = (
    "Choosing slices cleverly inside a volume was no better than at equal intervals or at random "
    "(Zhang et al. 2025, §4.3); over whole datasets no method reliably beat random "
    "choice that knows the foreground (nnActive, arXiv 2511.19183)."
)
_TRY_IT = (
    "The trade-off depends on the data: try it on a dense dataset like yours with "
    "`sparseunet simulate_annotation`, at several densities and shares of volumes."
)
DISAGREEMENTS = (_MORE_SLICES, _CLEVER_SLICES, _TRY_IT)
"""Where results contradict the planner's rules, to be shown beside its proposals."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedShare:
    """What share of the IoU of dense labels the tables let one expect."""

    mean: float
    """Over the four targets of Z25."""
    lowest: float
    highest: float
    extrapolated: bool
    """Whether the tables end before this density or share of volumes."""


def expect_share_of_dense(*, density: float, volume_share: float, dimensions: int) -> ExpectedShare:
    """Interpolate the tables of Z25 at a density and a share of annotated volumes.

    Linear in the logarithms of both; beyond the smallest rows and columns the last step is carried
    on, beyond density 0.8 its value is kept. Every slice of every volume is 1 by definition.

    2D: table 2, relative to dense labels. 3D: table 4, relative to the highest density there is,
    because the source has no dense 3D number in a table; what fewer volumes cost is taken from 2D.

    Args:
        density: Share of the slices of annotated volumes that are annotated, in (0, 1].
        volume_share: Share of the volumes that are annotated, in (0, 1].
        dimensions: 2 or 3, of the network to be trained.
    """
    if density == volume_share == 1:
        return ExpectedShare(mean=1.0, lowest=1.0, highest=1.0, extrapolated=False)
    shares = []
    for target, rows in Z25_TABLE_2.items():
        columns = np.array([_along(DENSITIES, row, density) for row in rows])
        share = _along(VOLUME_SHARES, columns, volume_share) / Z25_TABLE_2_DENSE[target]
        if dimensions == 3:
            row_3d = np.array(Z25_TABLE_4_3D[target])
            known = np.isfinite(row_3d)
            value = _along(np.array(DENSITIES)[known], row_3d[known], density)
            loss_by_volumes = _along(VOLUME_SHARES, columns, volume_share) / columns[0]
            share = value / row_3d[known][-1] * loss_by_volumes
        shares.append(float(np.clip(share, 0, None)))
    return ExpectedShare(
        mean=float(np.mean(shares)),
        lowest=min(shares),
        highest=max(shares),
        extrapolated=density < min(DENSITIES) or volume_share < min(VOLUME_SHARES),
    )


def describe_evidence(dimensions: int) -> tuple[str, ...]:
    """Return where expected shares come from and how weak that is, a sentence per item."""
    common = (
        "IoU of four targets (liver tumour, breast, fibroglandular tissue, stroke), mean and "
        "lowest to highest; axial slices, 72 to 500 volumes; your target is none of them."
    )
    if dimensions == 2:
        return (f"Zhang et al. (2025), table 2 (2D networks): {common}",)
    borrowed = (
        "Weak for 3D: relative to density 0.8 (ATLAS 0.4), not to dense labels, and the loss by "
        "fewer volumes is borrowed from 2D (table 2)."
    )
    failed = f"Below density {ENOUGH_DENSITY_3D:g} one of the four was not learned at all in 3D."
    source = f"Zhang et al. (2025), table 4 (3D networks, all volumes annotated): {common}"
    return (source, borrowed, failed)


def _along(points: object, values: object, position: float) -> float:
    """Interpolate linearly in the logarithm of positions; below the smallest, carry the step on."""
    order = np.argsort(np.asarray(points, float))
    logs = np.log2(np.asarray(points, float)[order])
    heights, place = np.asarray(values, float)[order], np.log2(position)
    if place < logs[0]:
        slope = (heights[1] - heights[0]) / (logs[1] - logs[0])
        return float(heights[0] - max(0.0, slope) * (logs[0] - place))
    return float(np.interp(place, logs, heights))
