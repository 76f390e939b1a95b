"""Labels between annotated slices: one file per family of methods."""

from typing import TYPE_CHECKING

from sparseunet.named_functions import load_function

if TYPE_CHECKING:
    from sparseunet.annotation.interpolation.interpolator import Interpolator

_HERE = "sparseunet.annotation.interpolation"
INTERPOLATORS = {
    "nearest": f"{_HERE}.nearest:interpolate_nearest",
    "shape": f"{_HERE}.shape:interpolate_shape",
    "spline": f"{_HERE}.shape:interpolate_spline",
    "fused": f"{_HERE}.fused:interpolate_fused",
    "morphological": f"{_HERE}.morphological:interpolate_morphological",
    "learned": f"{_HERE}.learned:interpolate_learned",
    "combined": f"{_HERE}.learned:interpolate_combined",
}
"""Name on the command line to interpolator; imported when it is used."""


def load_interpolator(name: str) -> "Interpolator":
    """Return the interpolator of that name, or the function at `package.module:function`.

    Raises:
        RequestError: There is no such interpolator; lists those there are.
    """
    return load_function(name, INTERPOLATORS, what="interpolator")
