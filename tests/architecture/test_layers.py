"""Imports follow the order of the pipeline: a module imports only from layers below its own."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LAYERS = (
    ("__main__",),
    ("cli",),
    ("report",),
    ("benchmark",),
    ("pipeline",),
    ("self_training",),
    ("runs",),
    ("training", "prediction", "evaluation"),
    ("annotation",),
    ("preprocessing", "networks", "postprocessing"),
    ("planning",),
    ("fingerprint",),
    ("data",),
    ("machine", "workspace"),
    ("progress", "workers", "named_functions", "version"),
    ("artifacts",),
    ("errors",),
)
"""High to low. Names on one line are siblings and never import each other."""

HEIGHTS = {name: -depth for depth, names in enumerate(LAYERS) for name in names}
PACKAGE = Path(__file__).resolve().parents[2] / "sparseunet"


def test_every_module_imports_only_from_lower_layers() -> None:
    assert find_violations(PACKAGE) == []


def test_every_module_belongs_to_a_layer() -> None:
    names = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    unknown = names - set(HEIGHTS) - {"__init__", "__pycache__"}
    assert unknown == set(), "add them to LAYERS, above what they import"


@pytest.mark.parametrize(
    ("module", "statement", "reason"),
    [
        ("data/io.py", "from sparseunet.planning.plan import Plan", "data imports planning"),
        ("data/io.py", "import sparseunet.planning.plan", "data imports planning"),
        ("data/io.py", "from sparseunet import planning", "data imports planning"),
        ("data/io.py", "from ..planning import plan", "data imports planning"),
        ("data/io.py", "from .. import planning", "data imports planning"),
        ("errors.py", "from .data import io", "errors imports data"),
        ("data/io.py", "def f():\n    from sparseunet.cli import main", "data imports cli"),
        ("data/io.py", "if X:\n    import sparseunet.cli.main", "data imports cli"),
        (
            "data/io.py",
            "import_module('sparseunet.planning.plan')",
            "data imports planning",
        ),
        ("training/fit.py", "from sparseunet.prediction import p", "training imports prediction"),
        ("prediction/p.py", "from sparseunet.evaluation import e", "prediction imports evaluation"),
        ("networks/unet.py", "from sparseunet.preprocessing import c", "networks imports preproc"),
        ("planning/plan.py", "from sparseunet import make_plan", "planning imports sparseunet"),
    ],
)
def test_a_planted_violation_is_found(
    tmp_path: Path, module: str, statement: str, reason: str
) -> None:
    path = tmp_path / "sparseunet" / module
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"import ast\n{statement}\n", encoding="utf-8")
    (violation,) = find_violations(tmp_path / "sparseunet")
    assert reason in violation
    assert path.name in violation


def test_imports_downwards_and_within_a_layer_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "sparseunet" / "training" / "fit.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import torch\nfrom sparseunet.training import loss\nfrom . import state\n"
        "from sparseunet import errors\nimport sparseunet.networks.build as build\n",
        encoding="utf-8",
    )
    assert find_violations(tmp_path / "sparseunet") == []


def find_violations(package: Path) -> list[str]:
    """Return one line per import that goes up or sideways; `__init__.py` of the root is exempt."""
    return [
        f"{path.relative_to(package.parent)}:{line}: {own} imports {other}"
        for path in sorted(package.rglob("*.py"))
        if (own := path.relative_to(package).parts[0].removesuffix(".py")) != "__init__"
        for line, other in _imports_of_own_package(path, package)
        if own != other and HEIGHTS[own] <= HEIGHTS.get(other, 1)
    ]


def _imports_of_own_package(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Yield line and layer of every import anywhere in the file, inside functions too."""
    home = path.relative_to(package.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for name in _imported_names(node, home):
            parts = name.split(".")
            if parts[0] == package.name:
                known = len(parts) > 1 and parts[1] in HEIGHTS
                yield node.lineno, parts[1] if known else package.name  # type: ignore[attr-defined]


def _imported_names(node: ast.AST, home: tuple[str, ...]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = home[: len(home) - node.level + 1] if node.level else ()
        start = ".".join([*base, *([node.module] if node.module else [])])
        return [f"{start}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call):
        function = node.func
        called = (
            function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        )
        if called in {"import_module", "__import__"}:
            return [
                word.value
                for word in node.args
                if isinstance(word, ast.Constant) and isinstance(word.value, str)
            ]
    return []
