"""Which code this is: the version that is installed and, in a checkout, the commit."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def package_version() -> str:
    """Return the version, e.g. `0.2.0`; `unknown` where the package is not installed."""
    try:
        return version("sparseunet")
    except PackageNotFoundError:
        return "unknown"


@cache
def commit() -> str | None:
    """Return the commit that a checkout stands at, 40 hexadecimal digits; None elsewhere.

    Read from git's own files, so that no other program is started. Changes that are not committed
    do not show.
    """
    git = _PACKAGE.parent / ".git"
    try:
        if git.is_file():  # a worktree: the file names the folder
            git = (git.parent / git.read_text(encoding="utf-8").partition(":")[2].strip()).resolve()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        return _resolve(git, head.removeprefix("ref: "))
    except OSError:
        return None


def describe_code() -> str:
    """Return version and commit in one word, e.g. `0.2.0+g1f9a02c4`."""
    found = commit()
    return package_version() + (f"+g{found[:8]}" if found else "")


def _resolve(git: Path, reference: str) -> str | None:
    """Return the commit of a branch: a file of its own, or a line of `packed-refs`."""
    common = git
    if (git / "commondir").is_file():
        common = (git / (git / "commondir").read_text(encoding="utf-8").strip()).resolve()
    if (common / reference).is_file():
        return (common / reference).read_text(encoding="utf-8").strip()
    for line in (common / "packed-refs").read_text(encoding="utf-8").splitlines():
        if line.endswith(f" {reference}"):
            return line.partition(" ")[0]
    return None
