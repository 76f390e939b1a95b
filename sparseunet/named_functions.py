"""Functions that are chosen by name on the command line, from this package or from anywhere."""

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from operator import attrgetter
from typing import Any

from sparseunet.errors import RequestError

_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_PATH = re.compile(f"({_DOTTED}):({_DOTTED})")


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
        found = _import(known.get(name, name))
    except (ImportError, AttributeError, SyntaxError) as error:
        raise RequestError(
            f"The {what} {name!r} cannot be imported: {error}. Install its package, or start "
            "sparseunet in the folder where its module lies."
        ) from None
    if not callable(found):
        raise RequestError(f"The {what} {name!r} is a {type(found).__name__}, not a function.")
    return found


def wrong_name(name: str, known: Mapping[str, str], *, what: str) -> str | None:
    """Say why a name cannot be a function's, without importing anything; None if it can."""
    if name in known or is_path(name):
        return None
    choose = f"choose from {', '.join(known)}, or name" if known else "name"
    return f"There is no {what} {name!r}; {choose} a function of yours as package.module:function."


def is_path(name: str) -> bool:
    """Return whether a name is `package.module:function`, as functions of the user's are named."""
    return _PATH.fullmatch(str(name)) is not None


def path_of(function: str | Callable[..., Any], *, what: str) -> str:
    """Return `package.module:function`, by which a function is recorded; a name stays as it is.

    Only names are recorded, so that a run can be repeated, and other processes find the function.

    Raises:
        RequestError: It cannot be found by a name: a lambda, a function within another, a partial,
            a method of an object, or a function of the script that runs.
    """
    if isinstance(function, str):
        return function
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    path = f"{module}:{name}"
    try:
        found = _import(path) if module != "__main__" and is_path(path) else None
    except (ImportError, AttributeError):
        found = None
    if found is not function:
        raise RequestError(
            f"The {what} {name or function!r} has no name by which it could be found again, so a "
            "run could not record it; define a function with def at the top of a module that can "
            "be imported, not in the script or notebook that runs."
        )
    return path


def _import(path: str) -> Any:
    module, _, function = path.partition(":")
    return attrgetter(function)(import_module(module))
