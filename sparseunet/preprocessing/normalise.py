"""Bring intensities on a common scale. Labels are no input here, so they cannot matter."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sparseunet.fingerprint.fingerprint import IntensityProperties
from sparseunet.named_functions import is_path, load_function

_SMALLEST_DIVISOR = 1e-8


def normalise(
    image_CZYX: np.ndarray,
    inside_ZYX: np.ndarray | None,
    *,
    schemes: Sequence[str],
    use_mask: Sequence[bool],
    intensities: Sequence[IntensityProperties],
    in_place: bool = False,
) -> np.ndarray:
    """Normalise every channel by its scheme.

    Args:
        image_CZYX: Intensities, finite.
        inside_ZYX: bool, the image's own nonzero mask; None where `use_mask` asks for none.
        schemes: Per channel a key of `NORMALIZATIONS`, or `package.module:function`: a function of
            (channel_ZYX, mask_ZYX or None, statistics) that returns the channel, float32 of the
            same shape, and may change it in place.
        use_mask: Per channel, whether `zscore` looks at the inside only and leaves 0 outside. Other
            functions are given the mask, and what is outside is set to 0 after them.
        intensities: Per channel the dataset's statistics, for `ct` and functions of the user's.
        in_place: Whether the image may be overwritten if it is contiguous float32.

    Returns:
        float32, contiguous; a new array unless `in_place`. A constant image becomes 0, never NaN.

    Raises:
        ValueError: The number of channels differs from the plan's, a scheme is unknown, or the
            values do not fit the scheme.
        RequestError: A function of the user's cannot be imported.
    """
    if not len(image_CZYX) == len(schemes) == len(use_mask) == len(intensities):
        raise ValueError(
            f"the image has {len(image_CZYX)} channels; expected {len(schemes)} as in the plan"
        )
    # One memory layout in any case: the order of sums depends on it, and so does the last bit.
    assert inside_ZYX is not None or not any(use_mask), "a mask is asked for"
    if in_place:
        result_CZYX = np.ascontiguousarray(image_CZYX, np.float32)
    else:
        result_CZYX = np.array(image_CZYX, dtype=np.float32, order="C")
    for channel, scheme in enumerate(schemes):
        mask_ZYX = inside_ZYX if use_mask[channel] else None
        if is_path(scheme):
            _users_own(scheme, result_CZYX[channel], mask_ZYX, intensities[channel])
            continue
        if scheme not in NORMALIZATIONS:
            raise ValueError(
                f"the plan asks for normalisation {scheme!r}; expected one of "
                + ", ".join(NORMALIZATIONS)
            )
        NORMALIZATIONS[scheme](result_CZYX[channel], mask_ZYX, intensities[channel])
    return result_CZYX


def require_normalizations(schemes: Sequence[str]) -> None:
    """Import the functions of the user's among the schemes.

    Raises:
        RequestError: One cannot be imported.
    """
    for scheme in filter(is_path, schemes):
        load_function(scheme, {}, what="normalisation")


def _users_own(
    scheme: str,
    channel_ZYX: np.ndarray,
    mask_ZYX: np.ndarray | None,
    intensities: IntensityProperties,
) -> None:
    function = load_function(scheme, {}, what="normalisation")
    shape = channel_ZYX.shape
    normalised_ZYX = np.asarray(function(channel_ZYX, mask_ZYX, intensities))
    if normalised_ZYX.shape != shape or normalised_ZYX.dtype != np.float32:
        raise ValueError(
            f"the normalisation {scheme} gave {normalised_ZYX.dtype} of the shape "
            f"{normalised_ZYX.shape}; expected float32 of the shape {shape}"
        )
    if not np.isfinite(normalised_ZYX).all():
        raise ValueError(f"the normalisation {scheme} gave NaN or infinity; expected numbers")
    channel_ZYX[...] = normalised_ZYX
    if mask_ZYX is not None:
        channel_ZYX[~mask_ZYX] = 0


def _zscore(channel_ZYX: np.ndarray, mask_ZYX: np.ndarray | None, _: IntensityProperties) -> None:
    mean, std = _mean_and_std(channel_ZYX, mask_ZYX)
    channel_ZYX -= np.float32(mean)
    channel_ZYX /= np.float32(max(std, _SMALLEST_DIVISOR))
    if mask_ZYX is not None:
        channel_ZYX[~mask_ZYX] = 0


def _ct(channel_ZYX: np.ndarray, _: np.ndarray | None, intensities: IntensityProperties) -> None:
    low, high = intensities.percentile_00_5, intensities.percentile_99_5
    np.clip(channel_ZYX, low, high, out=channel_ZYX)
    channel_ZYX -= np.float32(intensities.mean)
    channel_ZYX /= np.float32(max(intensities.std, _SMALLEST_DIVISOR))


def _none(channel_ZYX: np.ndarray, _: np.ndarray | None, __: IntensityProperties) -> None:
    pass


def _rescale_to_0_1(channel_ZYX: np.ndarray, _: np.ndarray | None, __: IntensityProperties) -> None:
    channel_ZYX -= channel_ZYX.min()
    channel_ZYX /= np.float32(max(float(channel_ZYX.max()), _SMALLEST_DIVISOR))


def _rgb_to_0_1(channel_ZYX: np.ndarray, _: np.ndarray | None, __: IntensityProperties) -> None:
    low, high = float(channel_ZYX.min()), float(channel_ZYX.max())
    if low < 0 or high > 255:
        raise ValueError(
            f"rgb_to_0_1 expects values from 0 to 255, found {low:g} to {high:g}; name the channel "
            "otherwise in dataset.json and plan again"
        )
    channel_ZYX /= np.float32(255)


NORMALIZATIONS: dict[str, Callable[[np.ndarray, np.ndarray | None, IntensityProperties], None]] = {
    "zscore": _zscore,
    "ct": _ct,
    "none": _none,
    "rescale_to_0_1": _rescale_to_0_1,
    "rgb_to_0_1": _rgb_to_0_1,
}
"""Name to a function that changes one float32 channel in place, given mask and statistics
(nnU-Net 2.8.1: ZScore, CT, No, RescaleTo01 and RGBTo01 normalisation)."""


def uses_statistics(scheme: str) -> bool:
    """Return whether a scheme looks at the dataset's intensity statistics."""
    return NORMALIZATIONS.get(scheme) is _ct


def _mean_and_std(channel_ZYX: np.ndarray, mask_ZYX: np.ndarray | None) -> tuple[float, float]:
    """Mean and deviation in float64, slice by slice so that no second volume is held."""

    def slices() -> Iterator[np.ndarray]:
        for index, plane in enumerate(channel_ZYX):
            yield plane if mask_ZYX is None else plane[mask_ZYX[index]]

    count = channel_ZYX.size if mask_ZYX is None else int(mask_ZYX.sum())
    if count == 0:
        return 0.0, 1.0
    mean = sum(float(plane.sum(dtype=np.float64)) for plane in slices()) / count
    squares = sum(float(np.square(plane.astype(np.float64) - mean).sum()) for plane in slices())
    return mean, float(np.sqrt(squares / count))
