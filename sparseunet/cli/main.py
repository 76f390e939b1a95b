"""`sparseunet VERB ...`: finds the verb, imports its module, turns errors into exit codes."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from sparseunet.cli.messages import show_messages
from sparseunet.errors import DatasetError, SparseUNetError

VERBS = {
    "check": ("sparseunet.cli.check", "look for problems in a raw dataset"),
    "extract_fingerprint": ("sparseunet.cli.extract_fingerprint", "measure a raw dataset"),
    "plan_experiment": ("sparseunet.cli.plan_experiment", "derive plans from the fingerprint"),
    "preprocess": ("sparseunet.cli.preprocess", "bring all cases on the networks' grids"),
    "plan_and_preprocess": (
        "sparseunet.cli.plan_and_preprocess",
        "check, fingerprint, plan and preprocess",
    ),
    "plan_annotation": ("sparseunet.cli.plan_annotation", "choose slices to annotate in a budget"),
    "simulate_annotation": (
        "sparseunet.cli.simulate_annotation",
        "hide most slices of a dense dataset",
    ),
    "export_annotation": (
        "sparseunet.cli.export_annotation",
        "hand planned slices out to annotators",
    ),
    "import_annotation": (
        "sparseunet.cli.import_annotation",
        "take drawings back into a dataset",
    ),
    "interpolate": ("sparseunet.cli.interpolate", "fill labels between annotated slices"),
    "train": ("sparseunet.cli.train", "train a network on what is annotated"),
    "complete": (
        "sparseunet.cli.complete",
        "label what nobody annotated with a trained network",
    ),
    "runs": ("sparseunet.cli.list_runs", "list and compare trained networks"),
    "predict": ("sparseunet.cli.predict", "segment new scans with a trained network"),
    "ensemble": ("sparseunet.cli.ensemble", "average the saved probabilities of several models"),
    "apply_postprocessing": (
        "sparseunet.cli.apply_postprocessing",
        "clean segmentations by a rule that was found to help",
    ),
    "import_model": (
        "sparseunet.cli.import_model",
        "keep a model of nnU-Net, or a model file, as a run",
    ),
    "export_model": ("sparseunet.cli.export_model", "hand a trained model out, also to nnU-Net"),
    "evaluate": ("sparseunet.cli.evaluate", "compare segmentations with references"),
    "determine_postprocessing": (
        "sparseunet.cli.determine_postprocessing",
        "find out whether keeping the largest components helps",
    ),
    "find_best_configuration": (
        "sparseunet.cli.find_best_configuration",
        "choose among cross-validated runs and their ensembles",
    ),
    "inspect_predictions": (
        "sparseunet.cli.inspect_predictions",
        "rank segmentations without references by how odd they are",
    ),
    "demo": ("sparseunet.cli.demo", "see the whole path on a dataset made on the spot"),
}
"""Verb to (module with `add_arguments(parser)` and `run(arguments)`, one line of help)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 wrong request or data."""
    words = list(sys.argv[1:] if argv is None else argv)
    before, verb, after = _split_at_verb(words)
    if verb is None:
        return _main_without_verb(before)
    module = import_module(VERBS[verb][0])
    parser = argparse.ArgumentParser(
        prog=f"sparseunet {verb}",
        description=(module.__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--workspace",
        metavar="DIR",
        help="folder with raw/, preprocessed/ and results/ (default: SPARSEUNET_WORKSPACE, "
        "nnU-Net's variables, the current folder)",
    )
    told = parser.add_mutually_exclusive_group()
    told.add_argument("-v", "--verbose", action="store_true", help="tell more")
    told.add_argument(
        "-q", "--quiet", action="store_true", help="tell of results and warnings only"
    )
    module.add_arguments(parser)
    _find_modules_of_current_folder()
    arguments = parser.parse_args(before + after)
    show_messages(is_quiet=arguments.quiet, is_verbose=arguments.verbose)
    arguments.command_line = shlex.join(("sparseunet", *words))
    try:
        return int(module.run(arguments) or 0)
    except SparseUNetError as error:
        sys.stderr.write(f"sparseunet {verb}: {_in_flags(parser, error)}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(f"sparseunet {verb}: interrupted\n")
        return 130


def _in_flags(parser: argparse.ArgumentParser, error: SparseUNetError) -> str:
    """Return what an error says, with flags in place of the settings that it names."""
    if isinstance(error, DatasetError):
        return "\n".join(
            problem.describe(lambda setting: _flag_of(parser, setting) or setting)
            for problem in error.problems
        )
    flag = _flag_of(parser, error.setting)
    return f"{flag}: {error}" if flag else str(error)


def _flag_of(parser: argparse.ArgumentParser, setting: str | None) -> str:
    """Return the flag that sets what an error names, e.g. `--batch-size`; "" if there is none."""
    for action in parser._actions:
        if action.dest == setting and action.option_strings:
            return next(name for name in action.option_strings if name.startswith("--"))
    return ""


def _find_modules_of_current_folder() -> None:
    """Let functions be named that lie in the current folder; what is installed comes first."""
    if "" not in sys.path and not sys.flags.safe_path:
        sys.path.append("")


def run_script() -> int:
    """Run `sparseunet_VERB ...` as `sparseunet VERB ...`; the program's name says which verb."""
    verb = Path(sys.argv[0]).stem.removeprefix("sparseunet_")
    return main([verb, *sys.argv[1:]])


def _split_at_verb(words: list[str]) -> tuple[list[str], str | None, list[str]]:
    """Split at the first word that is neither a global flag nor its value."""
    position = 0
    while position < len(words):
        if words[position] == "--workspace":
            position += 2
        elif words[position].startswith("-"):
            position += 1
        elif words[position] in VERBS:
            return words[:position], words[position], words[position + 1 :]
        else:
            break
    return words, None, []


def _main_without_verb(words: list[str]) -> int:
    lines = "\n".join(f"  {verb:<26}{text}" for verb, (_, text) in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="sparseunet",
        usage="sparseunet [--workspace DIR] VERB ...",
        description="Segmentation that configures itself and learns from sparse annotation.",
        epilog=f"verbs:\n{lines}\n\n`sparseunet VERB --help` explains each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workspace", metavar="DIR", help="folder of raw data and results")
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    arguments, rest = parser.parse_known_args(words)
    if arguments.version:
        from sparseunet.version import describe_code

        print(describe_code())
        return 0
    if rest:
        parser.error(f"no verb {rest[0]!r}; expected one of: {', '.join(VERBS)}")
    parser.print_help()
    return 2
