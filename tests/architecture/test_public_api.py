"""`sparseunet` re-exports its public names, lazily and without a second list going stale."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import sparseunet

SOURCE = Path(__file__).resolve().parents[2] / "sparseunet" / "__init__.py"


NAMES = [name for name in sparseunet.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(sparseunet, name)
    assert (value.__doc__ or "").strip()
    assert isinstance(value, ModuleType) or value.__name__ == name


def test_all_public_names_are_listed_for_completion() -> None:
    assert set(sparseunet.__all__) <= set(dir(sparseunet))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = sparseunet.no_such_name


def test_type_checkers_see_the_same_homes_as_the_interpreter() -> None:
    seen = {
        alias.name: node.module
        for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sparseunet.")
        for alias in node.names
    }
    assert seen == sparseunet._HOMES
    assert {*seen, "errors"} == set(NAMES)


def test_a_name_is_imported_when_it_is_first_used() -> None:
    script = (
        "import sparseunet, sys\n"
        "assert 'sparseunet.data.geometry' not in sys.modules\n"
        "sparseunet.Geometry\n"
        "assert 'sparseunet.data.geometry' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=600)
