"""Images that other libraries hold in memory, as images of ours."""

from typing import Any

import numpy as np

from sparseunet.data.geometry import SLICE_SPACING_2D_MM, Geometry
from sparseunet.data.image import Image
from sparseunet.errors import RequestError

AnyImage = Any
"""`Image`, an array, `SimpleITK.Image`, or an image of nibabel."""
_LARGEST_SHEAR = 1e-3
"""Largest cosine between two axes that still counts as a right angle."""


def image_of(image: AnyImage) -> Image:
    """Return an image of SimpleITK or nibabel as one of ours, which is returned as it is.

    Args:
        image: Voxels may be of any real type; several components or a fourth axis are channels.

    Raises:
        RequestError: It is none of these, is not finite, or its axes are not at right angles.
    """
    if isinstance(image, Image):
        return image
    if hasattr(image, "GetNumberOfComponentsPerPixel"):
        found = _of_itk(image)
    elif hasattr(image, "affine") and hasattr(image, "dataobj"):
        found = _of_nibabel(image)
    else:
        raise RequestError(
            f"Found a {type(image).__module__}.{type(image).__name__}; expected an array (z, y, x) "
            "or (channels, z, y, x), or an image of sparseunet, SimpleITK or nibabel.",
            setting="image",
        )
    if not np.isfinite(found.voxels_CZYX).all():
        raise RequestError("The image holds NaN or infinity; expected finite intensities.")
    return found


def _of_itk(image: Any) -> Image:
    """Convert a SimpleITK image; a 2D one gets one slice, vectors one channel per component."""
    import SimpleITK

    voxels = np.asarray(SimpleITK.GetArrayFromImage(image), np.float32)
    dimensions = image.GetDimension()
    if image.GetNumberOfComponentsPerPixel() > 1:
        voxels_CZYX = np.moveaxis(voxels, -1, 0)
    else:
        voxels_CZYX = voxels[None]
    if dimensions == 2:
        voxels_CZYX = voxels_CZYX[:, None]
    if voxels_CZYX.ndim != 4:
        raise RequestError(f"Found an image of {dimensions} dimensions; expected 2 or 3.")
    spacing = [float(each) for each in image.GetSpacing()]
    x, y, z = (*spacing, SLICE_SPACING_2D_MM)[:3]
    return Image(
        voxels_CZYX=np.ascontiguousarray(voxels_CZYX),
        geometry=Geometry(
            shape=_shape(voxels_CZYX),
            spacing_mm=(z, y, x),
            origin_mm=tuple(image.GetOrigin()),
            direction=tuple(image.GetDirection()),
            dimensions=dimensions,
        ),
    )


def _of_nibabel(image: Any) -> Image:
    """Read voxels (x, y, z[, c]) and an affine to RAS; ours are (c, z, y, x) and LPS."""
    voxels = np.asarray(image.dataobj, np.float32)
    if voxels.ndim not in (3, 4):
        raise RequestError(f"Found an image of {voxels.ndim} dimensions; expected 3, or 4.")
    voxels_XYZC = voxels if voxels.ndim == 4 else voxels[..., None]
    voxels_CZYX = np.ascontiguousarray(voxels_XYZC.transpose(3, 2, 1, 0))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(image.affine, float)
    spacing_xyz = np.linalg.norm(affine[:3, :3], axis=0)
    if not (spacing_xyz > 0).all():
        raise RequestError("The affine of the image has an axis of length 0.")
    cosines = affine[:3, :3] / spacing_xyz
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > _LARGEST_SHEAR:
        raise RequestError("The affine of the image is sheared; resample it to straight axes.")
    x, y, z = (float(each) for each in spacing_xyz)
    return Image(
        voxels_CZYX=voxels_CZYX,
        geometry=Geometry(
            shape=_shape(voxels_CZYX),
            spacing_mm=(z, y, x),
            origin_mm=tuple(affine[:3, 3].tolist()),
            direction=tuple(cosines.ravel().tolist()),
        ),
    )


def _shape(voxels_CZYX: np.ndarray) -> tuple[int, int, int]:
    _, z, y, x = voxels_CZYX.shape
    return z, y, x
