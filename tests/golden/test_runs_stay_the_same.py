"""`make_runs.py` stored what is compared with here: plans, preprocessed cases, runs and weights.

Whoever has runs and preprocessed data relies on it: a run goes on only where recipe, plan and data
have the same hashes as when it was recorded, and a model is used long after it was trained. The
choice of voxels, of patches and of the first weights follows the random numbers of NumPy and torch.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from golden_runs import (
    CONFIGURATIONS,
    DATASETS,
    DENSE,
    GOLDEN_JSON,
    OLD_CHECKPOINT,
    OLD_RUN,
    OLD_TRAINING,
    PLANS,
    ROWS,
    TWENTY_STEPS,
    case_facts,
    data_hash,
    hash_arrays,
    hash_json,
    make_workspace,
    plan_facts,
    predict_with_old_run,
    read,
    read_arrays,
    run,
    run_facts,
    train,
    train_on_one_thread,
    weight_facts,
)

GOLDEN = json.loads(GOLDEN_JSON.read_text(encoding="utf-8"))
IMAGE_TOLERANCE = 1e-5
"""Of voxels of about -3 to 4. Processors with other vector units differ by 1e-7."""
WEIGHT_TOLERANCE = {"2D, sparse labels": 1e-5, "3D, dense labels": 2e-4}
"""Besides a thousandth of the value. With other vector units the values of 2D change by 1e-7 and
those of 3D by 5e-5, while training itself moves both by 1e-3 to 1e-1."""

each_dataset = pytest.mark.parametrize("dataset", DATASETS)
each_configuration = pytest.mark.parametrize("configuration", CONFIGURATIONS)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks so small take twice as long on several threads that wait for each other."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # else `train` takes every processor
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("workspace"))


def _cases(workspace, dataset, configuration):
    folder = workspace / "preprocessed" / dataset / f"{PLANS[0]}_{configuration}"
    return {path.stem: folder for path in sorted(folder.glob("*.json"))}


@each_dataset
@pytest.mark.parametrize("plans", PLANS)
def test_plans_are_as_stored(workspace, dataset, plans):
    found = plan_facts(read(workspace / "preprocessed" / dataset / f"{plans}.json"))
    expected = GOLDEN["plans"][f"{dataset} {plans}"]
    assert found["hash"] == expected["hash"]
    assert found["intensities"].keys() == expected["intensities"].keys() == {"0"}
    assert found["intensities"]["0"] == pytest.approx(expected["intensities"]["0"], rel=1e-5)


@each_dataset
def test_folds_are_as_stored(workspace, dataset):
    splits = read(workspace / "preprocessed" / dataset / "splits_final.json")
    assert splits == GOLDEN["splits"][dataset]


@each_dataset
@each_configuration
def test_preprocessed_cases_are_as_stored(workspace, dataset, configuration):
    expected = GOLDEN["cases"][f"{dataset} {configuration}"]
    cases = _cases(workspace, dataset, configuration)
    assert list(cases) == list(expected)
    for case, folder in cases.items():
        found = case_facts(folder, case)
        image = expected[case]["image"]
        assert found.pop("image") == pytest.approx(image, rel=0, abs=IMAGE_TOLERANCE), case
        assert found == {key: expected[case][key] for key in found}, case


@each_dataset
@each_configuration
def test_a_manifest_holds_hashes_of_the_bytes_of_its_arrays(workspace, dataset, configuration):
    for case, folder in _cases(workspace, dataset, configuration).items():
        manifest = read(folder / f"{case}.json")
        arrays = read_arrays(folder, manifest)
        assert manifest["image_hash"] == hash_arrays(arrays["image"], arrays["inside"])
        assert manifest["annotation_hash"] == hash_arrays(arrays["labels"], arrays["source"])


@pytest.mark.parametrize("name", ROWS)
def test_a_run_is_named_and_recorded_as_stored(workspace, name):
    row = ROWS[name]
    if row.needs is not None:
        pytest.importorskip(row.needs, reason=f"{row.needs} is not installed")
    folder = train(workspace, row)
    description = read(folder / "run.json")
    expected = GOLDEN["runs"][name]
    assert run_facts(folder) == expected

    identity = expected["identity"] | {"data": data_hash(workspace, row, description)}
    assert description["identity"] == identity
    run_name = f"run-{hash_json(identity)[:10]}"
    assert description["run_id"] == folder.parent.name == run_name
    assert folder.parent.parent.name == row.configuration
    assert folder.parent.parent.parent.name == row.dataset
    assert identity["training"] == hash_json(description["training"])
    assert set(description["versions"]) >= {"python", "sparseunet", "torch", "numpy"}


def test_the_recorded_checkpoint_to_start_from_is_the_one_given():
    identity = GOLDEN["runs"]["pretrained"]["identity"]
    assert identity["pretrained"] == hash_arrays(np.frombuffer(OLD_CHECKPOINT.read_bytes(), "u1"))


def test_no_two_rows_are_the_same_run_but_for_their_fold():
    runs = [
        (hash_json(facts["identity"]), facts["dataset_name"], facts["fold"])
        for facts in GOLDEN["runs"].values()
    ]
    assert GOLDEN["runs"].keys() == ROWS.keys()
    assert len(set(runs)) == len(runs)


@pytest.mark.parametrize("name", TWENTY_STEPS)
def test_weights_after_twenty_steps_are_as_stored(workspace, name):
    found = weight_facts(train_on_one_thread(workspace, TWENTY_STEPS[name]))
    expected = GOLDEN["weights"][name]
    assert list(found) == list(expected)
    for tensor, values in expected.items():
        tolerance = WEIGHT_TOLERANCE[name]
        assert found[tensor] == pytest.approx(values, rel=1e-3, abs=tolerance), tensor


def test_a_run_of_version_0_1_predicts_what_it_predicted(workspace, tmp_path):
    scans = workspace / "raw" / DENSE / "imagesTs"
    found = predict_with_old_run(scans, tmp_path / "segmented")
    expected = GOLDEN["predicted_voxels"]
    assert found.keys() == expected.keys()
    for scan, counts in expected.items():
        assert found[scan] == pytest.approx(counts, rel=0.01, abs=5), scan
        assert min(counts) > 20, "every class is predicted, or this would say little"


def _keep_old_run(workspace, run_id):
    folder = workspace / "results" / DENSE / OLD_TRAINING.configuration / run_id
    shutil.copytree(OLD_RUN, folder)
    return folder / "fold_0"


def test_a_run_of_version_0_1_is_listed(tmp_path, capsys):
    description = read(OLD_RUN / "fold_0" / "run.json")
    _keep_old_run(tmp_path, description["run_id"])
    run(tmp_path, "runs")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "run-" in line]
    assert description["run_id"] in line
    assert "finished" in line


def test_the_command_that_made_a_run_of_version_0_1_finds_it_finished(workspace, capsys):
    description = read(OLD_RUN / "fold_0" / "run.json")
    data = data_hash(workspace, OLD_TRAINING, description)  # differs in last bits elsewhere
    description["identity"]["data"] = data
    run_id = f"run-{hash_json(description['identity'])[:10]}"
    fold = _keep_old_run(workspace, run_id)
    (fold / "run.json").write_text(json.dumps(description), encoding="utf-8")
    run(workspace, *OLD_TRAINING.command)
    assert f"{fold} has finished already" in capsys.readouterr().out
