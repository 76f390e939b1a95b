"""Morphological contour interpolation (Albu et al. 2008), as in ITK and 3D Slicer."""

from importlib import import_module
from typing import Any

import numpy as np

from sparseunet.annotation.interpolation.confidence import confidence
from sparseunet.annotation.interpolation.gaps import Filling, find_gaps
from sparseunet.annotation.interpolation.interpolator import InterpolationRequest
from sparseunet.annotation.interpolation.outlines import distance_to_other_label
from sparseunet.data.annotation import Annotation
from sparseunet.data.image import Image
from sparseunet.errors import RequestError

PACKAGE = "itk-morphologicalcontourinterpolation"


def interpolate_morphological(
    image: Image, annotation: Annotation, /, *, request: InterpolationRequest
) -> Annotation:
    """Let ITK morph the outlines of the two ends of each gap into each other; see `Interpolator`.

    Works on label values alone and knows no millimetres in the plane. Where a class is absent from
    one end, and beyond the first and the last annotated slice, it gives background.

    Raises:
        RequestError: The package itk-morphologicalcontourinterpolation is not installed.
    """
    itk = _import_itk()
    axis, spacing_mm = request.axis, image.geometry.spacing_mm
    filling = Filling(annotation, axis)
    in_plane_mm = (spacing_mm[0 if axis else 1], spacing_mm[1 if axis == 2 else 2])
    labels_KYX = np.moveaxis(annotation.labels_ZYX, axis, 0)
    for gap in find_gaps(annotation, spacing_mm, request):
        morphed_KYX = None
        if gap.before is not None and gap.after is not None:
            morphed_KYX = _morph(itk, labels_KYX[list(gap.ends)], gap.after - gap.before)
        for index in gap.slices:
            labels = np.zeros_like(labels_KYX[index])
            if morphed_KYX is not None:
                labels = morphed_KYX[index - gap.ends[0]].astype(labels.dtype)
            reliable = confidence(
                labels,
                distance_to_other_label(labels, in_plane_mm),
                gap=gap,
                index=index,
                spacing_mm=spacing_mm,
                axis=axis,
                method="morphological",
            )
            filling.fill_slice(index, labels, reliable)
    return filling.annotation()


def _morph(itk: Any, ends_KYX: np.ndarray, distance: int) -> np.ndarray:
    """Return the two slices with those between them, `distance` + 1 in all."""
    volume_KYX = np.zeros((distance + 1, *ends_KYX.shape[1:]), np.uint16)
    volume_KYX[0], volume_KYX[-1] = ends_KYX
    image = itk.image_from_array(volume_KYX)
    morph = itk.MorphologicalContourInterpolator[type(image)].New(image)
    morph.SetAxis(2)  # ITK counts from x, and the slices are the array's first axis
    morph.Update()
    return np.asarray(itk.array_from_image(morph.GetOutput()))


def _import_itk() -> Any:
    try:
        itk = import_module("itk")
        itk.MorphologicalContourInterpolator  # noqa: B018 - found only with the package
    except (ImportError, AttributeError):
        raise RequestError(
            f"The method morphological needs the package {PACKAGE}, which is not installed "
            f"(1.6 GB): pip install sparseunet[morphological], or choose another method."
        ) from None
    return itk
