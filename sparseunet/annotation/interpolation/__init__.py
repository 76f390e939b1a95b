"""Labels between annotated slices: one file per family of methods."""

from importlib import import_module
from typing import TYPE_CHECKING

from sparseunet.errors import RequestError

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
    path = INTERPOLATORS.get(name, name)
    module, _, function = path.partition(":")
    if not function:
        raise RequestError(
            f"There is no interpolator {name!r}; choose from {', '.join(INTERPOLATORS)}, or name a "
            "function of yours as package.module:function."
        )
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise RequestError(f"The interpolator {name!r} cannot be imported: {error}.") from None
