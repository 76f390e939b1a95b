"""What a time budget chose is recorded, and the next run of the same plan takes it over."""

from dataclasses import replace

import pytest
import torch
from tiny_training import LABELS, make_configuration, make_recipe, write_tiny_record

from sparseunet.errors import RequestError
from sparseunet.planning.overrides import with_base_features
from sparseunet.runs.time_budget import choose_for_budget
from sparseunet.training.step import Hardware

CPU = Hardware(device=torch.device("cpu"), dtype=None, num_workers=0)
IDENTITY = {"configuration": "c", "data": "d", "time_budget_min": 5.0, "training": "t"}


def choose(runs, *, hardware=CPU, **changes):
    return choose_for_budget(
        with_base_features(make_configuration(), 4),
        labels=LABELS,
        recipe=make_recipe(),
        hardware=hardware,
        minutes=5.0,
        runs=runs,
        identity=IDENTITY | changes,
    )


def test_a_run_with_another_seed_takes_over_what_the_first_one_chose(tmp_path):
    first = choose(tmp_path)
    write_tiny_record(
        tmp_path / "run-1" / "fold_0",
        configuration=first.configuration,
        recipe=replace(first.recipe, iterations=first.recipe.iterations + 7),
        identity=IDENTITY,
        time_budget=first.record,
    )
    again = choose(tmp_path, training="another seed")
    assert again.recipe.iterations == first.recipe.iterations + 7
    assert again.configuration == first.configuration
    assert again.record == first.record


@pytest.mark.parametrize("changed", [{"data": "other"}, {"time_budget_min": 9.0}])
def test_other_data_or_another_time_is_measured_anew(tmp_path, changed):
    first = choose(tmp_path)
    write_tiny_record(
        tmp_path / "run-1" / "fold_0",
        configuration=first.configuration,
        recipe=replace(first.recipe, iterations=10**9),
        identity=IDENTITY,
        time_budget=first.record,
    )
    assert choose(tmp_path, **changed).recipe.iterations < 10**9


def test_parts_of_a_batch_are_refused_with_the_setting(tmp_path):
    with pytest.raises(RequestError, match="whole batches") as refusal:
        choose(tmp_path, hardware=replace(CPU, num_parts=2))
    assert refusal.value.setting == "time_budget"
