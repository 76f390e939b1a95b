"""One case on the grid of the network, and the record of how to undo that."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from sparseunet.data.annotation import Annotation
from sparseunet.data.geometry import Geometry
from sparseunet.data.image import Image
from sparseunet.errors import RequestError
from sparseunet.planning.plan import Configuration, Plan
from sparseunet.preprocessing.crop import crop_box
from sparseunet.preprocessing.interpolation import resampled_shape
from sparseunet.preprocessing.normalise import normalise
from sparseunet.preprocessing.resample import resample_image, resample_mask
from sparseunet.preprocessing.resample_annotation import resample_annotation

MAX_VOXELS = 2**32
"""Of a scan on the network's grid: 16 GiB per channel; CT of a whole body at 1 mm has a tenth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Restoration:
    """How to bring an array on the network's grid back to the grid of the source file."""

    geometry: Geometry
    """Grid of the source file, before anything was done to it."""
    transpose_forward: tuple[int, int, int]
    """Axis i of the network's grid is axis `transpose_forward[i]` of the file."""
    crop_start: tuple[int, int, int]
    """First voxel of the crop box, on transposed axes."""
    crop_shape: tuple[int, int, int]
    """Size of the crop box, on transposed axes, before resampling."""
    network_shape: tuple[int, int, int]
    """Size after resampling: the shape of the preprocessed arrays."""
    network_spacing_mm: tuple[float, float, float] | None = None
    """Spacing after resampling as the plan asks for it. None: follows from the shapes."""

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Spacing of the file on transposed axes."""
        z, y, x = (self.geometry.spacing_mm[axis] for axis in self.transpose_forward)
        return z, y, x

    @property
    def target_spacing_mm(self) -> tuple[float, float, float]:
        """Spacing on the network's grid."""
        if self.network_spacing_mm is not None:
            return self.network_spacing_mm
        z, y, x = (
            spacing * before / after
            for spacing, before, after in zip(
                self.spacing_mm, self.crop_shape, self.network_shape, strict=True
            )
        )
        return z, y, x


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PreprocessedCase:
    """Arrays on the network's grid. Axes are the plan's transposed axes."""

    name: str
    image_CZYX: np.ndarray
    """float32, normalised and resampled."""
    inside_ZYX: np.ndarray | None
    """bool, the image's own nonzero mask (holes filled). Independent of labels. None in prediction,
    which has no use for it."""
    annotation: Annotation | None
    """None for a case without labels (inference)."""
    restoration: Restoration


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CroppedImage:
    """The part of a scan that holds anything, on the plan's transposed axes, before resampling."""

    image_CZYX: np.ndarray
    """float32, as in the file; a view of it."""
    inside_ZYX: np.ndarray | None
    """bool, the nonzero mask with holes filled; None where it is not wanted."""
    geometry: Geometry
    """Grid of the source file."""
    start: tuple[int, int, int]
    """First voxel of the box."""


def preprocess_case(
    name: str,
    image: Image,
    annotation: Annotation | None,
    *,
    plan: Plan,
    configuration: Configuration,
) -> PreprocessedCase:
    """Transpose, crop, normalise and resample one case (nnU-Net 2.8.1, in this order).

    What happens to the image depends on the image alone. 2D configurations change the in-plane
    spacing only and keep every slice.

    Args:
        name: Case identifier.
        image: Channels in the plan's order.
        annotation: On the grid of the image; None in prediction.
        plan: Gives the transpose and the dataset's intensity statistics.
        configuration: Gives spacing and normalisation.

    Returns:
        Arrays on the network's grid.

    Raises:
        ValueError: Channels do not fit the plan, or the annotation lies on another grid.
    """
    cropped = crop_image(image, transpose_forward=plan.transpose_forward)
    case = preprocess_image(name, cropped, plan=plan, configuration=configuration)
    if annotation is None:
        return case
    return replace(case, annotation=preprocess_annotation(annotation, case.restoration))


def crop_image(
    image: Image, *, transpose_forward: tuple[int, int, int], with_mask: bool = True
) -> CroppedImage:
    """Transpose a scan and cut out the box of its nonzero voxels.

    Args:
        image: As read.
        transpose_forward: Of the plan.
        with_mask: Whether `inside_ZYX` is wanted.
    """
    image_CZYX = image.voxels_CZYX.transpose(0, *(axis + 1 for axis in transpose_forward))
    inside_ZYX, start, shape = crop_box(image_CZYX, fill_holes=with_mask)
    box = _box(start, shape)
    return CroppedImage(
        image_CZYX=image_CZYX[:, *box],
        inside_ZYX=inside_ZYX[box] if with_mask else None,
        geometry=image.geometry,
        start=start,
    )


def preprocess_image(
    name: str, cropped: CroppedImage, *, plan: Plan, configuration: Configuration
) -> PreprocessedCase:
    """Normalise and resample a cropped scan; see `preprocess_case`."""
    normalised = normalise_cropped(cropped, plan=plan, configuration=configuration)
    return resample_cropped(name, normalised, plan=plan, configuration=configuration)


def normalise_cropped(
    cropped: CroppedImage, *, plan: Plan, configuration: Configuration, in_place: bool = False
) -> CroppedImage:
    """Return a cropped scan with normalised intensities.

    Args:
        cropped: With its mask, unless the configuration has no use for it.
        plan: Gives the dataset's intensity statistics.
        configuration: Gives the schemes.
        in_place: Whether the scan's own voxels may be overwritten; else it is a copy.
    """
    normalised_CZYX = normalise(
        cropped.image_CZYX,
        cropped.inside_ZYX,
        schemes=configuration.normalization,
        use_mask=configuration.use_mask_for_norm,
        intensities=plan.intensities,
        in_place=in_place,
    )
    return replace(cropped, image_CZYX=normalised_CZYX)


def resample_cropped(
    name: str, normalised: CroppedImage, *, plan: Plan, configuration: Configuration
) -> PreprocessedCase:
    """Bring a normalised scan on the network's grid.

    Raises:
        RequestError: It would have more voxels there than any memory holds, as with a header that
            states metres for millimetres.
    """
    axes = plan.transpose_forward
    spacing_mm = tuple(normalised.geometry.spacing_mm[axis] for axis in axes)
    new_spacing_mm = _target_spacing(spacing_mm, configuration)
    z, y, x = normalised.image_CZYX.shape[1:]
    inside_ZYX = normalised.inside_ZYX
    new_shape = resampled_shape((z, y, x), spacing_mm, new_spacing_mm)
    if prod(new_shape) > MAX_VOXELS:
        raise RequestError(
            f"{name} has {z}×{y}×{x} voxels of {_text(spacing_mm)} mm, which is "
            f"{'×'.join(map(str, new_shape))} at the network's {_text(new_spacing_mm)} mm; at most "
            f"{MAX_VOXELS} voxels are possible. Correct the spacing in its header."
        )
    return PreprocessedCase(
        name=name,
        image_CZYX=resample_image(
            normalised.image_CZYX, new_shape, spacing_mm=spacing_mm, new_spacing_mm=new_spacing_mm
        ),
        inside_ZYX=None if inside_ZYX is None else resample_mask(inside_ZYX, new_shape),
        annotation=None,
        restoration=Restoration(
            geometry=normalised.geometry,
            transpose_forward=axes,
            crop_start=normalised.start,
            crop_shape=(z, y, x),
            network_shape=new_shape,
            network_spacing_mm=new_spacing_mm,
        ),
    )


def preprocess_annotation(annotation: Annotation, restoration: Restoration) -> Annotation:
    """Bring an annotation to where `preprocess_image` has brought the image.

    Args:
        annotation: On the grid of the source file.
        restoration: The preprocessed image's.

    Raises:
        ValueError: The annotation lies on another grid.
    """
    if annotation.labels_ZYX.shape != restoration.geometry.shape:
        raise ValueError(
            f"the labels have shape {annotation.labels_ZYX.shape}, the image has "
            f"{restoration.geometry.shape}; both must describe the same grid"
        )
    box = _box(restoration.crop_start, restoration.crop_shape)
    return resample_annotation(
        _cut(annotation, restoration.transpose_forward, box),
        restoration.network_shape,
        spacing_mm=restoration.spacing_mm,
        new_spacing_mm=restoration.target_spacing_mm,
    )


def _text(spacing_mm: Sequence[float]) -> str:
    return "×".join(f"{size:g}" for size in spacing_mm)


def _box(start: tuple[int, int, int], shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    z, y, x = (slice(first, first + size) for first, size in zip(start, shape, strict=True))
    return z, y, x


def _target_spacing(
    spacing_mm: Sequence[float], configuration: Configuration
) -> tuple[float, float, float]:
    kept = 3 - configuration.dimensions
    z, y, x = (*spacing_mm[:kept], *configuration.spacing_mm)
    return z, y, x


def _cut(annotation: Annotation, axes: tuple[int, int, int], box: tuple[slice, ...]) -> Annotation:
    def cut(array_ZYX: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array_ZYX.transpose(axes)[box])

    confidence_ZYX = annotation.confidence_ZYX
    return Annotation(
        labels_ZYX=cut(annotation.labels_ZYX),
        source_ZYX=cut(annotation.source_ZYX),
        confidence_ZYX=None if confidence_ZYX is None else cut(confidence_ZYX),
    )
