"""Find the part of a scan that holds anything."""

import numpy as np


def crop_box(
    image_CZYX: np.ndarray, *, fill_holes: bool = True
) -> tuple[np.ndarray, tuple[int, int, int], tuple[int, int, int]]:
    """Find where any channel is not zero, and the smallest box around it.

    Looks at the image only, never at labels, so training and prediction crop alike
    (nnU-Net 2.8.1: nonzero mask with holes filled).

    Args:
        image_CZYX: Intensities.
        fill_holes: Not needed for the box, and takes memory and time.

    Returns:
        inside_ZYX: bool, the nonzero mask with enclosed holes filled, on the grid of the image.
        start: First voxel of the box along (z, y, x).
        shape: Size of the box. An image of zeros gives the whole volume, all of it inside.
    """
    nonzero_ZYX = image_CZYX[0] != 0
    for channel_ZYX in image_CZYX[1:]:
        nonzero_ZYX |= channel_ZYX != 0
    if not nonzero_ZYX.any():
        return np.ones_like(nonzero_ZYX), (0, 0, 0), _triple(nonzero_ZYX.shape)
    starts, stops = [], []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(nonzero_ZYX.any(axis=others))
        starts.append(int(occupied[0]))
        stops.append(int(occupied[-1]) + 1)
    box = tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))
    # Filling within the box is enough: what is enclosed by nonzero voxels lies between them.
    if fill_holes and not nonzero_ZYX[box].all():
        from scipy import ndimage

        nonzero_ZYX[box] = ndimage.binary_fill_holes(nonzero_ZYX[box])
    shape = [stop - start for start, stop in zip(starts, stops, strict=True)]
    return nonzero_ZYX, _triple(starts), _triple(shape)


def _triple(values: list[int] | tuple[int, ...]) -> tuple[int, int, int]:
    z, y, x = values
    return int(z), int(y), int(x)
