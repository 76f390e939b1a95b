"""Functions that are chosen by name on the command line, from this package or from anywhere."""

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from operator import attrgetter
from typing import Any

from sparseunet.errors import RequestError


def load_function(name: str | Callable[..., Any], known: Mapping[str, str], *, what: str) -> Any:
    """Import the function of that name, or the one at `package.module:function`.

    Args:
        name: A key of `known`, a path, or the function itself.
        known: Name to path.
        what: What such functions are called in messages, e.g. `selector`.

    Raises:
        RequestError: There is no such function; lists those there are.
    """
    if not isinstance(name, str):
        return name
    problem = wrong_name(name, known, what=what)
    if problem is not None:
        raise RequestError(problem)
    try:
        return _import(known.get(name, name))
    except (ImportError, AttributeError) as error:
        raise RequestError(f"The {what} {name!r} cannot be imported: {error}.") from None


def wrong_name(name: str, known: Mapping[str, str], *, what: str) -> str | None:
    """Say why a name cannot be a function's, without importing anything; None if it can."""
    if name in known or re.fullmatch(r"[\w.]+:[\w.]+", str(name)):
        return None
    return (
        f"There is no {what} {name!r}; choose from {', '.join(known)}, or name a function of "
        "yours as package.module:function."
    )


def path_of(function: Callable[..., Any], *, what: str) -> str:
    """Return `package.module:function`, by which a function is recorded and found again.

    Raises:
        RequestError: It cannot be found by a name: a lambda, a function within another, a partial
            or a method of an object.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    path = f"{module}:{name}"
    try:
        found = _import(path)
    except (ImportError, AttributeError):
        found = None
    if found is not function:
        raise RequestError(
            f"The {what} {name or function!r} has no name by which it could be found again, so a "
            "run could not record it; define a function with def at the top of a module."
        )
    return path


def _import(path: str) -> Any:
    module, _, function = path.partition(":")
    return attrgetter(function)(import_module(module))
