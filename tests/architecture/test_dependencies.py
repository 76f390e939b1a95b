"""What is imported is declared, so a fresh installation has it, and nothing else is declared."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULE_OF = {"pillow": "PIL", "scikit-image": "skimage", "scikit-learn": "sklearn"}
"""Distributions whose module has another name."""
IN_NNUNET = ROOT / "tests" / "performance" / "in_nnunet"
"""What runs in nnU-Net's environment, not in ours."""


@pytest.mark.parametrize("folder", ["sparseunet", "tests"])
def test_every_import_is_of_a_declared_dependency(folder: str) -> None:
    declared = list(PROJECT["dependencies"])
    if folder == "tests":
        declared += PROJECT["optional-dependencies"]["test"]
    modules = {module_of(requirement) for requirement in declared}
    scripts = [*(ROOT / "tests").glob("*.py"), *(ROOT / "tests" / "performance").glob("*.py")]
    own = {"sparseunet", *(path.stem for path in scripts)}
    found = imported_modules(ROOT / folder) - set(sys.stdlib_module_names) - own
    assert found - modules == set()


def test_every_declared_dependency_is_imported() -> None:
    declared = {module_of(requirement) for requirement in PROJECT["dependencies"]}
    assert declared - imported_modules(ROOT / "sparseunet") == set()


def module_of(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    assert match, requirement
    return MODULE_OF.get(match[0], match[0].replace("-", "_"))


def imported_modules(folder: Path) -> set[str]:
    """Return the top-level names of all absolute imports in a folder, inside functions too."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        if path.is_relative_to(IN_NNUNET):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names


def test_itk_is_used_by_one_thread_at_a_time() -> None:
    """SimpleITK's readers and writers may crash the process when two threads use them at once."""
    for file in (ROOT / "sparseunet").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                text = ast.unparse(node)
                if re.search(r"SimpleITK\.(ImageFileReader|ReadImage|WriteImage)\(", text):
                    assert "with ITK_LOCK:" in text, f"{file}: {node.name}"
