"""Functions that are chosen by name on the command line, from this package or from anywhere."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from sparseunet.errors import RequestError


def load_function(name: str, known: Mapping[str, str], *, what: str) -> Any:
    """Import the function of that name, or the one at `package.module:function`.

    Args:
        name: A key of `known`, or a path.
        known: Name to path.
        what: What such functions are called in messages, e.g. `selector`.

    Raises:
        RequestError: There is no such function; lists those there are.
    """
    module, _, function = known.get(name, name).partition(":")
    if not function:
        raise RequestError(
            f"There is no {what} {name!r}; choose from {', '.join(known)}, or name a function of "
            "yours as package.module:function."
        )
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise RequestError(f"The {what} {name!r} cannot be imported: {error}.") from None
