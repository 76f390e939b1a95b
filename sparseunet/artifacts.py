"""Small results as JSON: written whole or not at all, and checked against their type when read."""

import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from sparseunet.errors import RequestError

T = TypeVar("T")
_UNFINISHED = ".writing-"
_WHO_WROTE_IT = "Was it written by another program or a newer sparseunet?"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place only if the block succeeds.

    The name keeps the ending of `path`, which writers of images decide by. Parent folders are made.

    Raises:
        RequestError: The path leads through a file, or to where nobody may write.
    """
    _require_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=unfinished_prefix(), dir=path.parent))
    temporary = folder / path.name
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        folder.rmdir()


def require_file_can_be(path: Path) -> None:
    """Refuse the path of a file to be written where a folder is, or that leads through a file.

    Raises:
        RequestError: Names what is in the way.
    """
    if path.is_dir():
        raise RequestError(f"{path} is a folder; give the name of a file.")
    _require_folder(path)


def unfinished_prefix() -> str:
    """Return how the names of this process' temporary folders start, beside what it writes."""
    return f"{_UNFINISHED}{_host()}-{os.getpid()}-"


def remove_unfinished(folder: Path) -> None:
    """Remove, at any depth, what processes of this machine were writing when they were killed."""
    for found in sorted(folder.rglob(f"{_UNFINISHED}{_host()}-*")):
        process = found.name.removeprefix(f"{_UNFINISHED}{_host()}-").partition("-")[0]
        if found.is_dir() and process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(found)


def write_json(path: Path, content: Any) -> None:
    """Write dataclasses, mappings, sequences and numbers as JSON, atomically."""
    text = to_json(content)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_json(content: Any, *, indent: int | None = 1) -> str:
    """Turn `content` into JSON; the same content gives the same text.

    Args:
        content: Dataclasses, mappings, sequences and numbers.
        indent: None puts everything on one line, many times faster, for what nobody reads.
    """
    return json.dumps(_plain(content), indent=indent, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RequestError: The file is missing or is not JSON; names path, line and column.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise RequestError(f"{path} is not valid JSON ({where}): {error.msg}.") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text: {error}.") from None
    except (RecursionError, ValueError) as error:  # nested without end, or numbers without end
        raise RequestError(f"{path} is not valid JSON: {error}.") from None


def parse(kind: type[T], content: Any, *, source: str) -> T:
    """Build the dataclass `kind` from plain JSON content, checking every field.

    Raises:
        RequestError: Lists every field that is missing or of the wrong type, with `source`.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, item['loc'])) or '(top level)'}: {item['msg']}"
            for item in error.errors()
        ]
        raise RequestError(
            f"{source} does not describe a {kind.__name__}:\n" + "\n".join(lines)
        ) from None


def read_artifact(
    result: type[T], path: Path, *, kind: str, version: int, hint: str = _WHO_WROTE_IT
) -> T:
    """Read a small result that was written as its fields beside `kind` and `version`.

    Raises:
        RequestError: The file is missing, of another kind or version (then `hint` follows), or
            fields are wrong; names the file and every such field.
    """
    content = read_json(path)
    fields_ = dict(content) if isinstance(content, dict) else {}
    found = fields_.pop("kind", None), fields_.pop("version", None)
    if found != (kind, version):
        raise RequestError(
            f"{path} holds kind {found[0]!r}, version {found[1]!r}; expected kind {kind!r}, "
            f"version {version}. {hint}"
        )
    return parse(result, fields_, source=str(path))


def hash_content(content: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `content`, as 64 hex digits."""
    text = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def identity_of(settings: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that tell one from another, for `hash_content`.

    A field with the metadata `since`, which names the version that brought it, is left out while it
    has its default: what was made before the field was there keeps its hash.
    """
    return {
        one.name: getattr(settings, one.name)
        for one in fields(settings)
        if "since" not in one.metadata or getattr(settings, one.name) != _default_of(one)
    }


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _default_of(one: Field[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


def _require_folder(path: Path) -> None:
    folder = next((parent for parent in path.parents if parent.exists()), path.parent)
    if folder.exists() and not folder.is_dir():
        raise RequestError(
            f"{folder} is a file, so {path} cannot be written; choose another place."
        )
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise RequestError(f"{folder} cannot be written to; choose another place for {path}.")


def _host() -> str:
    return re.sub(r"\W", "_", platform.node())


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where asking would be sending a signal
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    try:  # one that nobody has waited for, as in containers without an init process, is dead
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except OSError:
        return True
    return state.split()[0] != "Z"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [item if type(item) in (int, str, float) else _plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        return _plain(value.tolist())
    return str(value) if isinstance(value, Path) else value
