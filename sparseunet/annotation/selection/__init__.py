"""Which slices of which scans to annotate: one file per family of selectors."""

from importlib import import_module
from typing import TYPE_CHECKING

from sparseunet.errors import RequestError

if TYPE_CHECKING:
    from sparseunet.annotation.selection.slices import Selector

SELECTORS = {"fixed": "sparseunet.annotation.selection.fixed:select_fixed"}
"""Name on the command line to selector; imported when it is used."""


def load_selector(name: str) -> "Selector":
    """Return the selector of that name, or the function at `package.module:function`.

    Raises:
        RequestError: There is no such selector; lists those there are.
    """
    path = SELECTORS.get(name, name)
    module, _, function = path.partition(":")
    if not function:
        raise RequestError(
            f"There is no selector {name!r}; choose from {', '.join(SELECTORS)}, or name a "
            "function of yours as package.module:function."
        )
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise RequestError(f"The selector {name!r} cannot be imported: {error}.") from None
