"""The repository stands alone: nothing of one machine in it, and its rules of form hold."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "sparseunet",
    "documentation",
    "tests",
    "setup_scripts",
}
"""Besides these only names that start with a dot."""
GENERATED = {"__pycache__", "build", "dist"}
"""Folders anywhere that tools make."""
MADE_BY_USE = {"demo", "sparseunet_demo", "raw", "preprocessed", "results"}
"""Folders at the top level that working in the checkout makes."""
MAX_LINES = 400
MAX_KILOBYTES = 600
ONE_MACHINE = (
    r"(^|[^\w.])/(home|root|work|farm|Users)/",
    r"[A-Z]:\\\\?Users",
    r"pypi\.org",
    r"pythonhosted\.org",
    r"download\.pytorch\.org",
    r"(?i)index[-_]url\b",
)


def files_of_repository(root: Path = ROOT) -> list[Path]:
    """Return what git tracks or would track; without git, everything that is not generated."""
    git = shutil.which("git")
    if git and (root / ".git").exists():
        listed = subprocess.run(
            [git, "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True,
            check=False,
        )
        if listed.returncode == 0:
            names = filter(None, listed.stdout.decode().split("\0"))
            return sorted({root / name for name in names if (root / name).is_file()})
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not _is_generated(path.relative_to(root))
    )


def _is_generated(path: Path) -> bool:
    first = path.parts[0]
    in_tool_folder = first.startswith(".") and first.endswith((".venv", "_cache", ".hypothesis"))
    return (
        in_tool_folder
        or first == ".git"
        or first in MADE_BY_USE
        or not GENERATED.isdisjoint(path.parts[:-1])
        or any(part.endswith(".egg-info") for part in path.parts)
    )


FILES = files_of_repository()
PACKAGE_MODULES = [path for path in FILES if path.is_relative_to(ROOT / "sparseunet")]
PACKAGE_MODULES = [path for path in PACKAGE_MODULES if path.suffix == ".py"]


def test_the_top_level_holds_only_what_was_agreed() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in FILES}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_without_git_everything_but_generated_files_counts(tmp_path: Path) -> None:
    generated = [".venv/bin/x", "a/__pycache__/x.pyc", ".ruff_cache/x", "x.egg-info/y", "raw/x"]
    for name in ["a/b.py", ".ci/run", *generated]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert files_of_repository(tmp_path) == [tmp_path / ".ci/run", tmp_path / "a/b.py"]


def test_no_file_names_a_path_of_one_machine_or_a_package_host() -> None:
    assert [line for path in FILES for line in lines_of_one_machine(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "data = '/" + "home/somebody/data'",
        "cd /" + "work/checkout",
        "pip install --extra-index" + "-url x torch",
        "see https://pypi" + ".org/project/x",
    ],
)
def test_a_planted_path_or_host_is_found(tmp_path: Path, line: str) -> None:
    path = tmp_path / "notes.md"
    path.write_text(f"fine\n{line}\n", encoding="utf-8")
    assert len(list(lines_of_one_machine(path))) == 1


def test_no_file_is_large() -> None:
    assert [path for path in FILES if path.stat().st_size > MAX_KILOBYTES * 1024] == []


def test_python_files_are_short() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in FILES
        if path.suffix == ".py"
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_module_is_called_utils() -> None:
    assert [
        path for path in FILES if re.match(r"_?(utils?|helpers?|misc)(\.py)?$", path.name)
    ] == []


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in FILES if path.name.startswith("test_")]
    assert len(names) == len(set(names)), sorted(n for n in set(names) if names.count(n) > 1)


def test_only_the_command_line_reads_the_environment() -> None:
    allowed = ROOT / "sparseunet" / "cli" / "environment.py"
    found = [
        use
        for path in PACKAGE_MODULES
        if path != allowed
        for use in uses_of_environment(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_the_package_never_runs_code_out_of_data() -> None:
    own_processes = ROOT / "sparseunet" / "workers.py"  # pickles over pipes to its children only
    found = [
        f"{path.relative_to(ROOT)}: {danger}"
        for path in PACKAGE_MODULES
        if path != own_processes
        for danger in dangers(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "pickle.load(stream)",
        "pickle.Unpickler(stream)",
        "import pickle as innocent",
        "from pickle import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run('ls', shell=True)",
        "os.system('ls')",
        "eval(text)",
        "exec(text)",
    ],
)
def test_planted_danger_is_found(code: str) -> None:
    assert len(list(dangers(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "model.eval()",
        "import pickle\ntry:\n    read()\nexcept pickle.UnpicklingError:\n    pass",
    ],
)
def test_harmless_code_is_not_called_dangerous(code: str) -> None:
    assert list(dangers(ast.parse(code))) == []


@pytest.mark.parametrize(
    "code", ["os.environ['A']", "os.environ.get('A')", "os.getenv('A')", "from os import environ"]
)
def test_planted_use_of_the_environment_is_found(code: str) -> None:
    assert len(list(uses_of_environment(ast.parse(code)))) == 1


def lines_of_one_machine(path: Path) -> Iterator[str]:
    """Yield the lines of a text file that would mean nothing elsewhere; none for binary files."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return
    for number, line in enumerate(lines, start=1):
        if any(re.search(pattern, line) for pattern in ONE_MACHINE):
            yield f"{path.name}:{number}: {line.strip()[:100]}"


def uses_of_environment(tree: ast.AST) -> Iterator[str]:
    names = {"environ", "getenv", "putenv", "environb"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names:
            yield ast.unparse(node)
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (alias.name for alias in node.names if alias.name in names)


def dangers(tree: ast.AST) -> Iterator[str]:
    """Yield what can run code found in a file or a string; naming pickle's errors is harmless."""
    modules = {"pickle", "dill", "cloudpickle", "marshal", "shelve"}
    harmless = {"UnpicklingError", "PickleError"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in modules and node.attr not in harmless:
                yield ast.unparse(node)
        elif isinstance(node, ast.Import):
            yield from (
                alias.name for alias in node.names if alias.name in modules and alias.asname
            )
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            yield from (alias.name for alias in node.names if alias.name not in harmless)
        elif isinstance(node, ast.Call) and _is_dangerous(node):
            yield ast.unparse(node)


def _is_dangerous(call: ast.Call) -> bool:
    keywords = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
    if keywords.get("shell") or keywords.get("allow_pickle"):
        return True
    called = ast.unparse(call.func)
    if called == "torch.load":
        return keywords.get("weights_only") is not True
    return called in {"eval", "exec", "os.system", "os.popen"}


def test_only_the_command_line_speaks_of_flags() -> None:
    """The library names settings (`setting=` of an error); `cli/main.py` turns them into flags."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in PACKAGE_MODULES
        if "cli" not in path.relative_to(ROOT).parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r"(?<![\w-])--[a-z]", line)
    ]
    assert found == []
