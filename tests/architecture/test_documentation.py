"""The documentation describes what exists: its links lead somewhere, its commands parse."""

import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from sparseunet.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / ".github").glob("*.md"), *(ROOT / "documentation").rglob("*.md")]
)
COMMANDS = ROOT / "documentation" / "reference" / "commands.md"


def commands_in(page: Path) -> Iterator[str]:
    """Yield every `sparseunet ...` line of the page's bash blocks, continued lines joined."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("sparseunet "):
                yield line


EXAMPLES = [(page.name, command) for page in PAGES for command in commands_in(page)]


@pytest.mark.parametrize(("page", "command"), EXAMPLES)
def test_a_command_in_the_documentation_parses(page: str, command: str) -> None:
    words = words_after_workspace(command)
    assert words, page
    if words[0] not in {"--help", "--version"}:
        parser_of(words[0]).parse_args(words[1:])


def test_the_readme_shows_every_step_on_own_data() -> None:
    shown = {words_after_workspace(command)[0] for page, command in EXAMPLES if page == "README.md"}
    assert shown >= {"check", "plan_and_preprocess", "train", "predict", "evaluate"}


@pytest.mark.parametrize("verb", VERBS)
def test_the_reference_lists_exactly_the_flags_of_a_verb(verb: str) -> None:
    text = COMMANDS.read_text(encoding="utf-8")
    found = re.search(rf"^## {verb}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"documentation/reference/commands.md has no section {verb}"
    rows = [line.split("|")[1] for line in found[1].splitlines() if line.startswith("| `")]
    listed = {word for row in rows for word in re.findall(r"`([^`]+)`", row)}
    assert listed == names_of_arguments(verb)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (heading and heading not in anchors(file)):
            broken.append(target)
    assert broken == []


def words_after_workspace(command: str) -> list[str]:
    words = shlex.split(command, comments=True)[1:]
    return words[2:] if words[:1] == ["--workspace"] else words


def parser_of(verb: str) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--workspace")
    import_module(VERBS[verb][0]).add_arguments(parser)
    return parser


def names_of_arguments(verb: str) -> set[str]:
    """Return all flags of a verb and, in capitals, the names of its positional arguments."""
    names: set[str] = set()
    for action in parser_of(verb)._actions:
        shown = action.metavar if isinstance(action.metavar, str) else action.dest
        names.update(action.option_strings or [shown.upper()])
    return names - {"-h", "--help", "--workspace"}


def anchors(page: Path) -> set[str]:
    """Return the anchors GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
