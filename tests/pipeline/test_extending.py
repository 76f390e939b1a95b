"""Functions of a user's own: every module of the page about them works as it is shown."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import sparseunet as su
from sparseunet.artifacts import read_json, write_json
from sparseunet.cli.main import main
from sparseunet.data.io import read_label_map
from sparseunet.data.synthetic import make_dataset
from sparseunet.errors import RequestError
from sparseunet.runs.load import load_model
from sparseunet.runs.record import read_record
from sparseunet.training.run_log import read_log

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "documentation" / "how_to" / "extend.md"
NETWORK, NORMALISATION = "my_network:small_u_net", "my_normalisation:by_quartiles"
QUICK = ["-device", "cpu", "--precision", "float32", "--batch-size", "1", "--iterations", "2"]
PATCH_3D = ["--patch-size", "16", "32", "32", "--base-features", "4"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The folder that holds every module of the page."""
    folder = tmp_path_factory.mktemp("modules")
    for block in blocks("python"):
        name = re.match(r"# (my_\w+\.py)\n", block)
        assert name, f"a block does not begin with the name of its module: {block}"
        (folder / name[1]).write_text(block, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def in_the_folder_of_modules(modules, monkeypatch):
    """Call as from the folder of the modules, which are not on the path before that."""
    monkeypatch.chdir(modules)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != ""])
    yield
    forget_modules()


def forget_modules():
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("workspace")
    make_dataset(root / "raw" / "Dataset001_Shapes", num_training=2, num_test=0)
    words = ("plan_and_preprocess", "-d", "1", "-c", "2d", "3d_fullres", "-np", "1")
    assert main(["--workspace", str(root), *words]) == 0
    return root


def train(workspace, configuration, name, *words):
    return main([
        "--workspace", str(workspace), "train", "1", configuration, "all", "--num-workers", "0",
        "--run", name, *QUICK, *words
    ])  # fmt: skip


def fold(workspace, configuration, name):
    return workspace / "results" / "Dataset001_Shapes" / configuration / name / "fold_all"


@pytest.fixture(scope="module")
def with_own_network(workspace, modules):
    """A run with the page's network, and its model file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(modules)
        assert train(workspace, "3d_fullres", "own", "--architecture", NETWORK, *PATCH_3D) == 0
        where = ["--workspace", str(workspace)]
        names = ["-d", "1", "-c", "3d_fullres", "--run", "own"]
        assert main([*where, "export_model", *names, "-o", str(workspace / "model.zip")]) == 0
    forget_modules()
    return fold(workspace, "3d_fullres", "own").parent


def predict(workspace, output, *words):
    scans = ["-i", str(workspace / "raw" / "Dataset001_Shapes" / "imagesTr"), "-o", str(output)]
    how = ["-device", "cpu", "--precision", "float32", "--disable-tta", "-np", "1"]
    return main(["--workspace", str(workspace), "predict", *scans, *how, *words])


def train_command():
    (command,) = [block for block in blocks("bash") if "--sampler" in block]
    words = command.replace("\\\n", " ").split()
    return words[words.index("--loss") :]


def test_the_command_of_the_page_trains_with_functions_of_the_current_folder(
    workspace, modules, tmp_path
):
    """As an installed command would: the folder of the program is another one."""
    program = tmp_path / "program.py"
    program.write_text("import sys\nfrom sparseunet.cli.main import main\nsys.exit(main())\n")
    own = train_command()
    assert {"my_loss", "my_network", "my_sampler"} <= {word.split(":")[0] for word in own}
    words = ["--workspace", workspace, "train", "1", "3d_fullres", "all", "--num-workers", "1"]
    done = subprocess.run(
        [sys.executable, program, *words, "--run", "page", *QUICK, *PATCH_3D, *own],
        cwd=modules,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    run = fold(workspace, "3d_fullres", "page")
    (entry,) = [line for line in read_log(run) if line.get("train_loss") is not None][:1]
    assert np.isfinite(entry["train_loss"])
    recipe = read_record(run).recipe
    assert (recipe.loss, recipe.sampler) == ("my_loss:smoothed_cross_entropy", "my_sampler:centred")


@pytest.mark.parametrize("words", [["--loss", "my_loss:smoothed_cross_entropy"], train_command()])
def test_a_2d_network_trains_with_the_functions_of_the_page(workspace, words):
    name = f"flat{len(words)}"
    patch = ["--patch-size", "32", "32", "--base-features", "4"]
    assert train(workspace, "2d", name, *patch, *words) == 0


def test_a_run_with_a_network_of_the_users_predicts(workspace, with_own_network, tmp_path):
    names = ["-d", "1", "-c", "3d_fullres", "--run", "own"]
    assert predict(workspace, tmp_path / "by_name", *names) == 0
    assert predict(workspace, tmp_path / "by_place", "-m", str(with_own_network)) == 0
    for file in (tmp_path / "by_name").glob("*.nii.gz"):
        first, _ = read_label_map(file)
        second, _ = read_label_map(tmp_path / "by_place" / file.name)
        assert np.array_equal(first, second)


def test_without_its_module_a_run_says_what_is_missing(
    workspace, with_own_network, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = ["-d", "1", "-c", "3d_fullres", "--run", "own"]
    assert predict(workspace, tmp_path / "out", *words) == 2
    assert "my_network:small_u_net" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["model.zip", "copied"])
def test_a_model_from_elsewhere_imports_nothing_that_is_not_named(
    workspace, with_own_network, tmp_path, capsys, place
):
    path = workspace / "model.zip"
    if place == "copied":
        path = tmp_path / "3d_fullres" / "own"
        shutil.copytree(with_own_network, path)
    assert predict(workspace, tmp_path / "out", "-m", str(path)) == 2
    told = capsys.readouterr().err
    assert "predict: --functions: " in told
    assert f"name them: {NETWORK}" in told
    assert "my_network" not in sys.modules
    assert predict(workspace, tmp_path / "out", "-m", str(path), "--functions", NETWORK) == 0
    with pytest.raises(RequestError, match=NETWORK):
        load_model(path)
    network = import_module("my_network").small_u_net
    assert len(load_model(path, functions=[network]).networks) == 1


def test_importing_a_model_needs_its_functions_named(workspace, with_own_network, tmp_path, capsys):
    words = ["--workspace", str(tmp_path), "import_model", str(workspace / "model.zip")]
    assert main(words) == 2
    assert NETWORK in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
    assert "my_network" not in sys.modules
    assert main([*words, "--functions", NETWORK]) == 0
    assert list((tmp_path / "results").rglob("run.json"))


@pytest.mark.parametrize("part", ["architecture", "normalization_schemes"])
def test_a_forged_model_file_runs_no_module(workspace, modules, tmp_path, part):
    """The module writes a file when it is imported; a folder and an archive name it."""
    (modules / "my_trap.py").write_text("from pathlib import Path\nPath('sprung').touch()\n")
    assert train(workspace, "3d_fullres", f"plain_{part}", *PATCH_3D) == 0
    run = fold(workspace, "3d_fullres", f"plain_{part}").parent
    forged = tmp_path / "3d_fullres" / run.name
    shutil.copytree(run, forged)
    record = read_json(forged / "fold_all" / "run.json")
    (configuration,) = record["plan"]["configurations"].values()
    if part == "architecture":
        planned = configuration["architecture"]["arch_kwargs"]
        stages = len(planned["strides"])
        arguments = {key: planned[key] for key in ("features_per_stage", "kernel_sizes", "strides")}
        configuration["architecture"] = {
            "network_class_name": "sparseunet.my_trap:build",
            "arch_kwargs": arguments
            | {"encoder_depths": [1] * stages, "decoder_depths": [1] * (stages - 1)},
        }
    else:
        configuration["normalization_schemes"] = ["my_trap:build"]
    write_json(forged / "fold_all" / "run.json", record)
    archive = tmp_path / "forged.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("run.json", "checkpoint_final.pt"):
            file.write(forged / "fold_all" / name, f"3d_fullres/{run.name}/fold_all/{name}")
    for place in (archive, forged):
        with pytest.raises(RequestError, match="my_trap:build"):
            load_model(place)
        assert predict(workspace, tmp_path / "out", "-m", str(place)) == 2
    assert main(["--workspace", str(tmp_path), "import_model", str(archive)]) == 2
    assert not (modules / "sprung").exists()
    assert "my_trap" not in sys.modules


def test_a_normalisation_of_the_users_is_applied_in_training_and_prediction(workspace, tmp_path):
    (block,) = blocks("json")
    plans = workspace / "preprocessed" / "Dataset001_Shapes" / "nnUNetPlans.json"
    content = read_json(plans)
    content["configurations"] |= json.loads(block)
    write_json(plans, content)
    words = ["preprocess", "-d", "1", "-c", "3d_quartiles", "-np", "2"]
    assert main(["--workspace", str(workspace), *words]) == 0
    assert train(workspace, "3d_quartiles", "own", *PATCH_3D) == 0
    assert read_record(fold(workspace, "3d_quartiles", "own")).configuration.normalization == (
        NORMALISATION,
    )
    names = ["-d", "1", "-c", "3d_quartiles"]
    assert predict(workspace, tmp_path / "out", *names) == 0
    assert main([
        "--workspace", str(workspace), "export_model", *names, "--as", "nnunet",
        "-o", str(tmp_path / "theirs"),
    ]) == 2  # fmt: skip


def test_a_selector_and_an_interpolation_of_the_users_work(workspace, tmp_path):
    where = ["--workspace", str(workspace)]
    plan = ["plan_annotation", "-d", "1", "--budget", "4slices", "-o", str(tmp_path / "plan.json")]
    assert main([*where, *plan, "--selector", "my_selector:brightest"]) == 0
    slices = [one for case in read_json(tmp_path / "plan.json")["cases"] for one in case["slices"]]
    assert len(slices) == 4
    sparse = ["simulate_annotation", "-d", "1", "--density", "0.3", "-o", "Dataset002_Sparse"]
    assert main([*where, *sparse]) == 0
    method = ["--method", "my_interpolation:copy_first_end", "-o", "Dataset003_Copied", "-np", "1"]
    assert main([*where, "interpolate", "-d", "2", *method]) == 0
    for label in (workspace / "raw" / "Dataset003_Copied" / "labelsTr").glob("*.nii.gz"):
        before = read_label_map(workspace / "raw" / "Dataset002_Sparse" / "labelsTr" / label.name)
        assert (read_label_map(label)[0] == 4).sum() < (before[0] == 4).sum()


def test_the_script_of_the_page_trains_with_functions_themselves(workspace, modules, monkeypatch):
    monkeypatch.syspath_prepend(modules)
    run, model = import_module("my_script").train(
        su.load_prepared(su.Workspace.at(workspace), "1"),
        device="cpu",
        precision="float32",
        num_workers=0,
        batch_size=1,
        patch_size=[16, 32, 32],
        base_features=4,
    )
    assert run.has_finished
    network = run.record.configuration.network
    assert network.architecture == NETWORK
    assert network.arguments == {"patch_size": [16, 32, 32]}
    assert run.record.recipe.loss == "my_loss:smoothed_cross_entropy"
    assert run.record.recipe.sampler == "my_sampler:centred"
    assert type(model.networks[0]).__name__ == "SmallUNet"


def test_every_kind_of_function_is_on_the_page():
    kinds = {re.match(r"# my_(\w+)\.py", block)[1] for block in blocks("python")}
    assert kinds == {
        "loss", "augmentation", "optimisation", "network", "sampler", "normalisation", "selector",
        "interpolation", "script",
    }  # fmt: skip


def test_a_network_of_the_users_with_one_output_trains(workspace, modules):
    (modules / "my_other.py").write_text(
        "from torch import nn\n"
        "def flat(*, num_input_channels, num_outputs):\n"
        "    return nn.Conv2d(num_input_channels, num_outputs, 3, padding=1)\n"
    )
    words = ["--architecture", "my_other:flat", "--patch-size", "32", "32"]
    assert train(workspace, "2d", "other", *words) == 0
    weights = torch.load(fold(workspace, "2d", "other") / "checkpoint_final.pt", weights_only=True)
    assert set(weights["weights"]) == {"weight", "bias"}
