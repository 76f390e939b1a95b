"""A recipe is valid once constructed, names what it uses, and knows what makes it the same run."""

from dataclasses import asdict, dataclass, field, replace
from functools import partial

import pytest

from sparseunet.artifacts import hash_content, identity_of, parse
from sparseunet.errors import RequestError
from sparseunet.training.losses import load_loss
from sparseunet.training.recipe import Recipe


def own_loss(comparison):
    return comparison.logits_BKZYX.mean()


class Losses:
    @staticmethod
    def fixed(comparison):
        return own_loss(comparison)

    def of_object(self, comparison):
        return own_loss(comparison)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("loss", "no loss 'nope'; choose from dice_ce, .* package.module:function"),
        ("augmentation", "no augmentation 'nope'; choose from nnunet"),
        ("optimizer", "no optimiser 'nope'"),
        ("schedule", "no schedule 'nope'"),
        ("case_weighting", "no case weighting 'nope'; choose from uniform, slices, sqrt_slices"),
    ],
)
def test_a_wrong_name_is_refused_at_once(name, message):
    with pytest.raises(RequestError, match=message) as error:
        Recipe(**{name: "nope"})
    assert error.value.setting == name


def test_everything_that_is_wrong_is_told_together():
    with pytest.raises(RequestError) as error:
        Recipe(loss="nope", schedule="nope", seed=-1, iterations=0, trust={}, decay_every=0)
    lines = str(error.value).splitlines()
    for part in ("no loss", "no schedule", "seed", "iterations must", "trust", "decay_every"):
        assert sum(part in line for line in lines) == 1, part
    assert len(lines) == 6


def test_a_function_is_kept_by_its_name():
    recipe = Recipe(loss=own_loss)
    assert recipe.loss == f"{__name__}:own_loss"
    assert recipe == Recipe(loss=f"{__name__}:own_loss")
    assert load_loss(recipe.loss) is own_loss
    assert load_loss(Recipe(loss=Losses.fixed).loss) is Losses.fixed


@pytest.mark.parametrize(
    "function",
    [lambda _: 0, partial(own_loss), Losses().of_object],
    ids=["lambda", "partial", "bound method"],
)
def test_a_function_without_a_name_of_its_own_is_refused(function):
    with pytest.raises(RequestError, match="define a function with def at the top") as error:
        Recipe(loss=function)
    assert error.value.setting == "loss"


def test_a_function_within_another_is_refused():
    def inner(comparison):
        return own_loss(comparison)

    with pytest.raises(RequestError, match=r"The loss .*inner' has no name"):
        Recipe(loss=inner)


@pytest.mark.parametrize(
    ("chosen", "planned", "iterations", "per_epoch"),
    [
        ({}, None, 250_000, 250),
        ({}, 1000, 1000, 50),
        ({}, 7, 7, 1),
        ({"iterations": 100}, None, 100, 5),
        ({"iterations": 100}, 7, 100, 5),
        ({"iterations": 100, "iterations_per_epoch": 30}, None, 100, 30),
        ({"iterations_per_epoch": 30}, 700, 700, 30),
        ({"iterations_per_epoch": 30}, None, 30_000, 30),
    ],
)
def test_an_open_length_is_settled_once(chosen, planned, iterations, per_epoch):
    recipe = Recipe(**chosen).resolved(planned_iterations=planned, mirror_axes=(0, 1))
    assert (recipe.iterations, recipe.iterations_per_epoch) == (iterations, per_epoch)
    assert (recipe.num_iterations, recipe.steps_per_epoch) == (iterations, per_epoch)
    assert recipe.resolved(planned_iterations=5, mirror_axes=()) == recipe


def test_axes_that_were_chosen_stay():
    assert Recipe().resolved(mirror_axes=(0, 2)).mirror_axes == (0, 2)
    assert Recipe(mirror_axes=()).resolved(mirror_axes=(0, 2)).mirror_axes == ()
    assert Recipe().mirrored_axes == (0, 1, 2)


def test_a_warm_up_must_end_within_the_length_that_was_planned():
    with pytest.raises(RequestError, match="training of 50 iterations") as error:
        Recipe(warmup=100).resolved(planned_iterations=50, mirror_axes=())
    assert error.value.setting == "warmup"


def test_runs_of_earlier_versions_keep_their_names():
    recipe = Recipe(iterations=250_000, iterations_per_epoch=250, mirror_axes=(0, 1, 2))
    assert hash_content(recipe.identity()) == (
        "1c42d20e2663a1d01e9b2034daf21a2f28e374a2c89d31a829402eea0aa4e668"
    )
    assert "sampler" not in recipe.identity(), "it came later, and has its default"
    assert "enough_annotated" not in recipe.identity()
    sampled = replace(recipe, sampler="my_module:draw_place")
    assert sampled.identity() == {**recipe.identity(), "sampler": "my_module:draw_place"}
    assert parse(Recipe, {**asdict(recipe), "mirror_axes": [0, 1, 2]}, source="run.json") == recipe


def test_only_a_resolved_recipe_has_an_identity():
    with pytest.raises(ValueError, match="resolved"):
        Recipe().identity()


@dataclass(frozen=True, kw_only=True)
class Before:
    steps: int = 5


@dataclass(frozen=True, kw_only=True)
class Later(Before):
    smoothing: float = field(default=0.0, metadata={"since": "0.2"})
    names: list[str] = field(default_factory=list, metadata={"since": "0.3"})


def test_a_field_that_came_later_does_not_change_what_was_there_before():
    assert hash_content(identity_of(Later())) == hash_content(identity_of(Before()))
    assert identity_of(Later(smoothing=0.1)) == {"steps": 5, "smoothing": 0.1}
    assert identity_of(Later(names=["a"])) == {"steps": 5, "names": ["a"]}
