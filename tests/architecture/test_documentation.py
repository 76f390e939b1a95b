"""The documentation describes what exists: its links lead somewhere, its commands parse."""

import json
import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from sparseunet.cli.main import VERBS
from sparseunet.cli.reference import options_table, with_tables

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


def test_the_reference_has_a_table_for_every_verb_in_its_section() -> None:
    sections = re.split(r"^## ", COMMANDS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    tables = {
        section.split("\n")[0]: re.findall(r"<!-- options of (\w+) -->", section)
        for section in sections
    }
    assert tables == {verb: [verb] for verb in VERBS}


def test_the_reference_lists_the_options_as_they_are() -> None:
    page = COMMANDS.read_text(encoding="utf-8")
    assert page == with_tables(page), "run python -m sparseunet.cli.reference"


def test_a_table_names_arguments_what_they_mean_and_what_they_are_by_default() -> None:
    rows = [line.split(" | ") for line in options_table("predict").splitlines()]
    found = {row[0].removeprefix("| "): row[1:] for row in rows}
    assert found["`-o`, `--output`"][-1] == "required |"
    assert found["`-step_size`, `--step-size`"][-1] == "`0.5` |"
    assert found["`--uncertainty`"][-1] == "off |"
    assert "only where that holds several models" in found["`-c`, `--configuration`"][0]
    assert "`--workspace`" not in found
    assert list(found)[2] == "`-i`, `--input`"


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


def anchors(page: Path) -> set[str]:
    """Return the anchors GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "notebook", sorted(ROOT.rglob("documentation/**/*.ipynb")), ids=lambda path: path.name
)
def test_a_notebook_was_run_from_top_to_bottom_without_an_error(notebook: Path) -> None:
    cells = [
        cell
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs
    assert not any(output["output_type"] == "error" for output in outputs)
