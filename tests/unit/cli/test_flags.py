"""A dataclass is written once: its fields and its docstring are flags with types and help."""

import argparse
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import pytest

from sparseunet.cli.flags import FlagNames, add_flags, describe_fields, given_values
from sparseunet.cli.recipe import add_recipe_arguments
from sparseunet.errors import RequestError
from sparseunet.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What somebody may choose.

    Attributes:
        num_steps: Steps of the whole,
            told on two lines: even so.
        share: Of 100 %.
        rule: Which rule.
        function: What is called.
        sizes: Along all axes.
        spacing_mm: In millimetres.
        weights: By name.
        verbose: Say more.
        both: Either way.
        folder: GiB lie here.

    Raises:
        RequestError: share: Is no field.
    """

    num_steps: int | None = None
    share: float = 3e-5
    rule: Literal["this", "that"] = "this"
    function: str = field(default="one", metadata={"functions": {"one": "a:b", "two": "a:c"}})
    sizes: tuple[int, ...] = (1, 2)
    spacing_mm: tuple[float, float, float] | None = None
    weights: dict[str, float] = field(default_factory=lambda: {"a": 1.0, "b": 1.0})
    verbose: bool = False
    both: bool | None = None
    folder: Path | None = None


NAMES = [one.name for one in fields(Settings)]


def _parser(spelling=None):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser, Settings, NAMES, spelling)
    return parser


def _given(*words, spelling=None):
    return given_values(_parser(spelling).parse_args(words), Settings)


def test_fields_are_described_once_in_the_docstring():
    described = describe_fields(Settings)
    assert list(described) == NAMES
    assert described["num_steps"] == "Steps of the whole, told on two lines: even so."
    assert describe_fields(int) == {}


def test_what_was_not_given_is_not_there():
    assert _given() == {}
    assert Settings(**_given()) == Settings()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--num-steps", "3"], {"num_steps": 3}),
        (["--share", "1e-3"], {"share": 1e-3}),
        (["--rule", "that"], {"rule": "that"}),
        (["--function", "my.module:mine"], {"function": "my.module:mine"}),
        (["--sizes", "3", "4", "5"], {"sizes": (3, 4, 5)}),
        (["--spacing-mm", "1", "2", "3"], {"spacing_mm": (1.0, 2.0, 3.0)}),
        (["--weights", "b=0.5"], {"weights": {"a": 1.0, "b": 0.5}}),
        (["--verbose"], {"verbose": True}),
        (["--both"], {"both": True}),
        (["--no-both"], {"both": False}),
        (["--folder", "x"], {"folder": Path("x")}),
    ],
)
def test_a_flag_has_the_type_of_its_field(words, expected):
    assert _given(*words) == expected


@pytest.mark.parametrize("words", [["--rule", "other"], ["--num-steps", "x"], ["--sizes", "x"]])
def test_words_of_another_type_are_refused(words):
    with pytest.raises(argparse.ArgumentError):
        _given(*words)


def test_weights_are_given_by_name():
    with pytest.raises(RequestError, match="--weights takes NAME=WEIGHT once") as error:
        _given("--weights", "b=0.5", "b=1")
    assert error.value.setting == "weights"


def test_help_tells_default_and_names():
    text = " ".join(_parser().format_help().split())
    assert "--share X of 100 % (default: 3e-5)" in text
    assert "what is called: one, two, or `package.module:function` (default: one)" in text
    assert "by name (default: a=1 b=1)" in text
    assert "GiB lie here" in text
    assert "--no-verbose" not in text


def test_a_flag_may_be_spelt_in_other_ways():
    spelling = FlagNames(
        flags={"num_steps": ("-steps", "--steps")},
        metavars={"num_steps": "STEPS"},
        readers={"sizes": str},
        defaults={"num_steps": "many"},
    )
    assert _given("-steps", "4", "--sizes", "none", spelling=spelling) == {
        "num_steps": 4,
        "sizes": ("none",),
    }
    assert "even so (default: many)" in " ".join(_parser(spelling).format_help().split())


def test_every_field_of_a_recipe_is_described_and_has_a_flag():
    parser = argparse.ArgumentParser()
    add_recipe_arguments(parser)
    arguments = vars(parser.parse_args([]))
    names = [one.name for one in fields(Recipe)]
    assert list(describe_fields(Recipe)) == names
    assert [name for name in names if name not in arguments] == []
