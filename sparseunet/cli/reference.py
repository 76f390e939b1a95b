"""The tables of `documentation/reference/commands.md`: every option of every verb, as it parses.

`python -m sparseunet.cli.reference` writes them between the lines `<!-- options of VERB -->` and
`<!-- end -->`; what stands around them is written by hand.
"""

import argparse
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from sparseunet.cli.main import VERBS

_PAGE = Path(__file__).resolve().parents[2] / "documentation" / "reference" / "commands.md"
_HEAD = "| argument | meaning | default |\n| --- | --- | --- |\n"
_TABLE = re.compile(r"(<!-- options of (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
_BARE_FLAG = re.compile(r"(?<![\w`-])(--?[a-z][\w-]*)(?![\w`-])")
_WORDS = ("required", "off")


def with_tables(page: str) -> str:
    """Return the page with every table between two marks as the verb's parser has it now."""
    return _TABLE.sub(lambda found: found[1] + options_table(found[2]) + found[3], page)


def options_table(verb: str) -> str:
    """Return a table in Markdown of all arguments of a verb but those that every verb has."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    import_module(VERBS[verb][0]).add_arguments(parser)
    return _HEAD + "".join(_row(action) for action in _arguments(parser))


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield what is needed first, then the rest, both as they were declared."""
    positional = [action for action in parser._actions if not action.option_strings]
    return iter([*positional, *(one for one in parser._actions if one.option_strings)])


def _row(action: argparse.Action) -> str:
    shown = action.metavar if isinstance(action.metavar, str) else action.dest
    names = ", ".join(f"`{name}`" for name in action.option_strings or [shown.upper()])
    text = (action.help or "") % {**vars(action), "prog": "sparseunet"}
    meaning, default = _split_default(text)
    meaning = _BARE_FLAG.sub(r"`\1`", meaning)
    missing = [str(word) for word in action.choices or () if str(word) not in meaning]
    if missing and action.choices:
        meaning += f" ({', '.join(f'`{word}`' for word in action.choices)})"
    if action.required and action.nargs != "*":
        default = "required"
    elif not default:
        default = _default(action)
    code = f"`{default}`" if default and " " not in default and default not in _WORDS else default
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (names, meaning, code)) + " |\n"


def _split_default(text: str) -> tuple[str, str]:
    """Take `(default ...)` out of a help text; return what is left, and the default or ""."""
    found = re.search(r"\s*\(default: ((?:[^()]|\([^()]*\))*)\)", text)
    if found is None:
        return text, ""
    return text[: found.start()] + text[found.end() :], found[1]


def _default(action: argparse.Action) -> str:
    if action.nargs == 0 and not isinstance(action, argparse.BooleanOptionalAction):
        return "off"
    return "" if action.default is None else str(action.default)


if __name__ == "__main__":
    _PAGE.write_text(with_tables(_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
