"""Every verb exists as `sparseunet VERB` and as `sparseunet_VERB`."""

import tomllib
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path

import pytest

from sparseunet.cli.main import VERBS

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
SCRIPTS: dict[str, str] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["scripts"]


def test_there_is_one_script_per_verb_and_one_for_all() -> None:
    assert set(SCRIPTS) == {"sparseunet", *(f"sparseunet_{verb}" for verb in VERBS)}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_names_a_function_that_exists(script: str) -> None:
    module, _, function = SCRIPTS[script].partition(":")
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize(
    "program", ["sparseunet_{}", "/usr/bin/sparseunet_{}", "bin/sparseunet_{}.exe"]
)
@pytest.mark.parametrize("verb", VERBS)
def test_a_script_runs_the_verb_that_it_is_called(
    verb: str, program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [program.format(verb), "--help"])
    module, _, function = SCRIPTS[f"sparseunet_{verb}"].partition(":")
    with pytest.raises(SystemExit) as stop:
        getattr(import_module(module), function)()
    assert stop.value.code == 0
    assert f"usage: sparseunet {verb} " in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_module_offers_what_the_command_line_calls(verb: str) -> None:
    module = import_module(VERBS[verb][0])
    assert (module.__doc__ or "").strip(), "its docstring is the description in --help"
    assert callable(module.add_arguments)
    assert callable(module.run)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_a_long_form(verb: str) -> None:
    parser = ArgumentParser()
    import_module(VERBS[verb][0]).add_arguments(parser)
    short_only = [
        action.option_strings
        for action in parser._actions
        if action.option_strings
        and not any(flag.startswith("--") for flag in action.option_strings)
    ]
    assert short_only == []
