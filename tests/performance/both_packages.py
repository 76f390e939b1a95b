"""One folder in which nnU-Net and sparseunet work on the same raw data, and how to show results."""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where both packages read and write."""

    root: Path
    nnunet_bin: Path
    """The `bin` folder of an environment with nnU-Net."""

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    def preprocessed(self, package: str, dataset: str) -> Path:
        """The preprocessed folder of a dataset; `package` is `nnunet` or `sparseunet`."""
        return self.root / package / "preprocessed" / dataset

    def link(self, dataset: Path) -> str:
        """Make a raw dataset visible to both packages, and return its name."""
        self.raw.mkdir(parents=True, exist_ok=True)
        target = self.raw / dataset.name
        if not target.exists():
            target.symlink_to(dataset.resolve())
        return dataset.name

    def nnunet(self, command: str, *arguments: object) -> list[str]:
        """The command line of `nnUNetv2_COMMAND`."""
        return [str(self.nnunet_bin / f"nnUNetv2_{command}"), *map(str, arguments)]

    def nnunet_python(self, script: Path, *arguments: object) -> list[str]:
        """The command line of a script that runs in nnU-Net's environment."""
        return [str(self.nnunet_bin / "python"), str(script), *map(str, arguments)]

    def sparseunet(self, verb: str, *arguments: object) -> list[str]:
        """The command line of a verb, in a workspace beside nnU-Net's folders."""
        workspace = self.root / "sparseunet"
        workspace.mkdir(parents=True, exist_ok=True)
        if not (workspace / "raw").exists():
            self.raw.mkdir(parents=True, exist_ok=True)
            (workspace / "raw").symlink_to(self.raw)
        start = [sys.executable, "-m", "sparseunet", "--workspace", str(workspace)]
        return [*start, verb, *map(str, arguments)]

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that nnU-Net needs, besides the caller's own."""
        folders = {
            "nnUNet_raw": self.raw,
            "nnUNet_preprocessed": self.root / "nnunet" / "preprocessed",
            "nnUNet_results": self.root / "nnunet" / "results",
        }
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return {**os.environ, **{key: str(folder) for key, folder in folders.items()}}

    def run(self, command: Sequence[str], **more_variables: str) -> str:
        """Run a command to its end and return what it printed.

        Raises:
            SystemExit: It failed; shows the end of its output.
        """
        finished = subprocess.run(
            command,
            env={**self.environment, **more_variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if finished.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{finished.stdout[-4000:]}")
        return finished.stdout

    def forget(self) -> None:
        """Remove all that was computed, so that nothing is used again."""
        for package in ("nnunet", "sparseunet"):
            for part in ("preprocessed", "results"):
                shutil.rmtree(self.root / package / part, ignore_errors=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every comparison has."""
    parser.add_argument(
        "--nnunet-bin", type=Path, required=True, help="bin folder of nnU-Net's environment"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("SPARSEUNET_TEST_DATA", ".")),
        help="folder of datasets (default: SPARSEUNET_TEST_DATA, else here)",
    )
    parser.add_argument("--root", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("-np", "--num-workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")


@contextmanager
def bench(arguments: argparse.Namespace) -> Iterator[Bench]:
    """Yield a `Bench` in the folder asked for, or in one that is removed afterwards."""
    if not (arguments.nnunet_bin / "nnUNetv2_plan_and_preprocess").exists():
        raise SystemExit(f"{arguments.nnunet_bin} holds no nnUNetv2_plan_and_preprocess")
    if arguments.root is not None:
        yield Bench(root=arguments.root.resolve(), nnunet_bin=arguments.nnunet_bin)
        return
    with tempfile.TemporaryDirectory(prefix="beside-nnunet-") as folder:
        yield Bench(root=Path(folder), nnunet_bin=arguments.nnunet_bin)


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows with the same keys as a Markdown table."""
    if not rows:
        return "(nothing)"
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[_text(value) for value in row.values()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(rows: Sequence[dict[str, Any]], arguments: argparse.Namespace, **more: Any) -> None:
    """Print the rows as a table, and write them with `more` and the machine where asked."""
    print(markdown_table(rows))
    if arguments.output is not None:
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        content = {"machine": machine, "rows": list(rows), **more}
        arguments.output.write_text(json.dumps(content, indent=1, default=str))


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
