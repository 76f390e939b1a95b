"""Flags made of the fields of a dataclass, so that an option is written down once.

A field gives a flag its name (`--learning-rate` of `learning_rate`), type and default, and from
the `Attributes:` of the class' docstring its help. Of a field's metadata `choices` are the words
it takes and `functions` the names beside `package.module:function`.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from inspect import getdoc
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sparseunet.errors import RequestError

_OWN_FUNCTION = "`package.module:function`"


@dataclass(frozen=True, kw_only=True, slots=True)
class FlagNames:
    """How flags are spelt where the field does not say it; every mapping is by field.

    Attributes:
        flags: All spellings of a flag, the one to be shown first, in place of that of the field.
        metavars: What help shows in place of a value.
        readers: What reads a word, in place of the field's type.
        defaults: What stands for the default of a field.
    """

    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    metavars: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    readers: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)


def describe_fields(kind: type) -> dict[str, str]:
    """Return what the section `Attributes:` of a class' docstring says of each field, on one line.

    Empty without such a section.
    """
    lines = (getdoc(kind) or "").partition("\nAttributes:\n")[2].splitlines()
    described: dict[str, str] = {}
    name = ""
    for line in lines:
        if line and not line.startswith(" "):
            break
        start = re.match(r" {4}(\w+): (.*)", line)
        if start:
            name, described[start[1]] = start[1], start[2]
        elif name and line.strip():
            described[name] += f" {line.strip()}"
    return described


def add_flags(
    group: argparse._ActionsContainer,
    kind: type,
    names: Iterable[str],
    spelling: FlagNames | None = None,
) -> None:
    """Declare a flag for each of these fields; what is not given is None.

    Args:
        group: Of a parser, or a parser.
        kind: The dataclass.
        names: Fields of it, in the order of help.
        spelling: Where a flag is not spelt as its field.
    """
    spelling = spelling or FlagNames()
    described, hints = describe_fields(kind), get_type_hints(kind)
    by_name = {one.name: one for one in fields(kind)}
    for name in names:
        one = by_name[name]
        flags = spelling.flags.get(name, (flag_of(name),))
        options: dict[str, Any] = _options(one, _without_none(hints[name]))
        if name in spelling.metavars:
            options["metavar"] = spelling.metavars[name]
        if name in spelling.readers:
            options["type"] = spelling.readers[name]
        help_ = _help(described[name], one, spelling.defaults.get(name))
        group.add_argument(*flags, dest=name, help=help_, **options)


def flag_of(name: str, spelling: FlagNames | None = None) -> str:
    """Return the flag of a field as messages call it: the first long one."""
    flags = () if spelling is None else spelling.flags.get(name, ())
    return next((flag for flag in flags if flag.startswith("--")), f"--{name.replace('_', '-')}")


def given_values(
    arguments: argparse.Namespace, kind: type, names: Iterable[str] | None = None
) -> dict[str, Any]:
    """Return the fields that were given as flags, by name, with the types of the fields.

    Weights by name change those that a field has by default and leave the others.

    Args:
        arguments: Of a parser with `add_flags`; what it lacks was not given.
        kind: The dataclass.
        names: The fields that matter; None for all.

    Raises:
        RequestError: Words are not NAME=WEIGHT where they must be.
    """
    hints = get_type_hints(kind)
    wanted = None if names is None else set(names)
    values: dict[str, Any] = {}
    for one in fields(kind):
        value = getattr(arguments, one.name, None)
        if value is None or (wanted is not None and one.name not in wanted):
            continue
        origin = get_origin(_without_none(hints[one.name]))
        if origin is dict:
            value = (_default(one) or {}) | read_weights(one.name, value)
        elif origin is tuple:
            value = tuple(value)
        values[one.name] = value
    return values


def read_weights(name: str, words: Sequence[str]) -> dict[str, float]:
    """Return weights by name from words such as liver=0.25.

    Raises:
        RequestError: A word is none, or a name comes twice; tells the flag of the field `name`.
    """
    weights: dict[str, float] = {}
    for word in words:
        key, _, weight = word.rpartition("=")
        try:
            value = float(weight)
        except ValueError:
            key, value = "", 0.0
        if not key or key in weights:
            raise RequestError(
                f"{flag_of(name)} takes NAME=WEIGHT once for each name, e.g. liver=0.25 "
                f"background=0.04; found {' '.join(words)}.",
                setting=name,
            )
        weights[key] = value
    return weights


def _options(one: Field[Any], hint: Any) -> dict[str, Any]:
    """Return what argparse needs to know of a field of this type."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is bool:
        return _switch(one)
    choices = one.metadata.get("choices") or (inner if origin is Literal else ())
    if choices:
        return {"choices": choices, "type": type(choices[0])}
    if origin is dict:
        return {"nargs": "+", "metavar": "NAME=WEIGHT"}
    if origin is tuple:
        nargs = "+" if inner[-1] is Ellipsis else len(inner)
        return {"nargs": nargs, "type": inner[0], "metavar": "N"}
    metavars = {int: "N", float: "X", Path: "PATH"}
    return {"type": hint, "metavar": metavars[hint]} if hint in metavars else {"metavar": "NAME"}


def _switch(one: Field[Any]) -> dict[str, Any]:
    """Return a switch; one that is off by default needs no word for off."""
    if one.default is False:
        return {"action": "store_const", "const": True}
    return {"action": argparse.BooleanOptionalAction}


def _without_none(hint: Any) -> Any:
    """Return X of `X | None`; other unions are read as text."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 else str


def _help(text: str, one: Field[Any], default: str | None) -> str:
    text = text.removesuffix(".")
    if text.split(" ")[0][1:].islower():  # no abbreviation
        text = text[0].lower() + text[1:]
    if "functions" in one.metadata:
        text += f": {', '.join(one.metadata['functions'])}, or {_OWN_FUNCTION}"
    if default is None:
        default = _default_in_words(_default(one))
    if default:
        text += f" (default: {default})"
    return text.replace("%", "%%")


def _default(one: Field[Any]) -> Any:
    if one.default_factory is not MISSING:
        return one.default_factory()
    return None if one.default is MISSING else one.default


def _default_in_words(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, dict):
        return " ".join(f"{name}={weight:g}" for name, weight in value.items())
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)
