"""`run.json` is read as it was written, whoever wrote it; a run is known by its identity."""

import json
from dataclasses import replace

import pytest
from tiny_training import make_configuration, make_recipe, write_tiny_record

from sparseunet.errors import RequestError
from sparseunet.runs.record import read_record, require_same_run, run_identity, write_record


def test_what_is_written_is_read_again(tmp_path):
    folder = tmp_path / "run-1" / "fold_0"
    write_tiny_record(folder, recipe=make_recipe(seed=3), identity={"data": "d"})
    record = read_record(folder)
    assert (record.run_id, record.fold, record.precision) == ("run-1", 0, "float32")
    assert record.recipe == make_recipe(seed=3)
    assert record.configuration == make_configuration()
    assert record.split.val == ("b",)
    assert record.training_cases == ("a",)


def test_entries_that_this_version_does_not_know_survive_a_copy(tmp_path):
    folder = tmp_path / "run-1" / "fold_0"
    write_tiny_record(folder)
    path = folder / "run.json"
    content = json.loads(path.read_text()) | {"of_a_newer_version": [1, 2]}
    path.write_text(json.dumps(content))
    copy = tmp_path / "run-2" / "fold_0"
    write_record(copy, replace(read_record(folder), run_id="run-2"))
    copied = json.loads((copy / "run.json").read_text())
    assert copied["of_a_newer_version"] == [1, 2]
    assert copied["run_id"] == "run-2"
    assert copied["plan"] == content["plan"]


def test_a_model_from_elsewhere_has_no_recipe_and_no_cases(tmp_path):
    folder = tmp_path / "nnunet-1" / "fold_0"
    write_tiny_record(folder)
    path = folder / "run.json"
    content = json.loads(path.read_text())
    content |= {"training": {"mirror_axes": [0, 1]}, "cases": None}
    del content["precision"]
    path.write_text(json.dumps(content))
    record = read_record(folder)
    assert record.recipe is None
    assert record.split is None
    assert record.mirror_axes == (0, 1)
    assert record.training_cases == ()


@pytest.mark.parametrize(
    "content", ["[]", '{"kind": "sparseunet.model"}', '{"kind": "sparseunet.run"}']
)
def test_what_is_no_run_is_refused_by_name(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RequestError, match=r"run\.json does not describe a run"):
        read_record(tmp_path)


def test_another_recipe_is_another_run_and_the_setting_to_change_is_named(tmp_path):
    folder = tmp_path / "run-1" / "fold_0"
    of = {"data_hash": "d", "time_budget_min": None}
    identity = run_identity(make_recipe(), make_configuration(), **of)
    write_tiny_record(folder, identity=identity)
    record = read_record(folder)
    require_same_run(record, identity, folder)
    other = run_identity(make_recipe(seed=9), make_configuration(), **of)
    with pytest.raises(RequestError, match="another training") as refusal:
        require_same_run(record, other, folder)
    assert refusal.value.setting == "run"
