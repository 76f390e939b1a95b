"""Functions by name: what can be named, and what is said where nothing can."""

import os.path
import sys
from functools import partial

import pytest

from sparseunet.errors import RequestError
from sparseunet.named_functions import is_path, load_function, path_of
from sparseunet.planning.plan import Plan
from sparseunet.training.recipe import Recipe


def test_a_name_leads_to_the_function_it_was_made_of():
    for function in (os.path.join, Plan, Recipe.__post_init__):
        name = path_of(function, what="function")
        assert is_path(name)
        assert load_function(name, {}, what="function") is function


def test_a_name_stays_as_it_is():
    assert path_of("dice_ce", what="loss") == "dice_ce"


def local_function():
    def inner():
        pass

    return inner


@pytest.mark.parametrize(
    "function",
    [lambda: None, local_function(), partial(print), object()],
    ids=["lambda", "local", "partial", "object"],
)
def test_what_has_no_name_to_be_imported_by_is_refused(function):
    with pytest.raises(RequestError, match="at the top of a module"):
        path_of(function, what="function")


def test_functions_of_the_script_that_runs_are_refused(monkeypatch):
    monkeypatch.setattr(local_function, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "local_function", local_function, raising=False)
    with pytest.raises(RequestError, match="not in the script"):
        path_of(local_function, what="loss")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dice_cee", "choose from dice_ce"),
        ("dice_ce:", "choose from dice_ce"),
        (":f", "choose from dice_ce"),
        (".own:f", "choose from dice_ce"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("json:no_such_function", "no_such_function"),
        ("json:__name__", "is a str, not a function"),
        ("broken_module:f", "invalid syntax"),
    ],
)
def test_what_cannot_be_imported_is_told(tmp_path, monkeypatch, name, message):
    (tmp_path / "broken_module.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match=message):
        load_function(name, {"dice_ce": "sparseunet.training.losses.named:dice"}, what="loss")


def test_a_recipe_keeps_the_names_of_functions():
    recipe = Recipe(loss=os.path.join, sampler=os.path.split)
    assert recipe.loss.endswith(":join")
    assert recipe.sampler.endswith(":split")
    with pytest.raises(RequestError):
        Recipe(loss=lambda comparison: comparison)
