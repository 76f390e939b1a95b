"""Every preset starts from the command line and lowers its loss."""

import pytest
from optional_packages import skip_without_packages_of

from sparseunet.artifacts import read_json
from sparseunet.cli.main import main
from sparseunet.data.synthetic import make_dataset
from sparseunet.planning.architectures import KNOWN
from sparseunet.training.presets import PRESETS
from sparseunet.training.run_log import read_log

EPOCHS, STEPS = 3, 4
CLASS_WEIGHTS = ("--class-weights", "background=0.1", "organ=0.5", "lesion=1", "vessel=1")
FEATURES = {"segresnet": "8", "unetr": "2", "inception_unet": "8"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("workspace")
    make_dataset(root / "raw" / "Dataset001_Shapes", num_training=2, num_test=0)
    words = ("plan_and_preprocess", "-d", "1", "-c", "2d", "3d_fullres", "-np", "1")
    assert main(["--workspace", str(root), *words]) == 0
    return root


def train(workspace, configuration, *words):
    return main([
        "--workspace", str(workspace), "train", "1", configuration, "all", "-device", "cpu",
        "--precision", "float32", "--num-workers", "0", *words
    ])  # fmt: skip


def run_folder(workspace, configuration, name):
    return workspace / "results" / "Dataset001_Shapes" / configuration / name / "fold_all"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name.startswith("p23") else [])
        for name in PRESETS
    ],
)
def test_a_preset_lowers_its_loss(workspace, name):
    preset = PRESETS[name]
    architecture = preset.architecture or "plain_unet"
    skip_without_packages_of(architecture)
    configuration = "2d" if preset.dimensions == 2 else "3d_fullres"
    fixed = KNOWN[architecture].features is None
    words = ["--patch-size", *("64" if fixed else "32" for _ in range(preset.dimensions or 3))]
    if preset.dimensions != 2:
        words[1] = "16"
    if fixed:
        words += ["--batch-size", "2"]  # batch norm after a pooling to one pixel
    else:
        words += ["--batch-size", "1", "--base-features", FEATURES.get(architecture, "4")]
    words += CLASS_WEIGHTS if preset.class_weights else ()
    words += ["--iterations", str(EPOCHS * STEPS), "--iterations-per-epoch", str(STEPS)]
    words += ["--learning-rate", "0.003" if preset.recipe else "0.01"]
    assert train(workspace, configuration, "--preset", name, "--run", name, *words) == 0
    folder = run_folder(workspace, configuration, name)
    losses = [entry["train_loss"] for entry in read_log(folder)]
    assert losses[-1] < losses[0]
    recorded = read_json(folder / "run.json")["training"]
    chosen = {key: value for key, value in preset.recipe.items() if key in recorded}
    assert recorded == recorded | chosen | {
        "iterations": EPOCHS * STEPS,
        "learning_rate": recorded["learning_rate"],
    }


def test_flags_change_what_a_preset_says(workspace, capsys):
    words = ("--preset", "z20-3d", "--architecture", "plain_unet", "--patch-size", "16", "32", "32",
             "--batch-size", "1", "--base-features", "2", "--iterations", "2", "--optimizer", "sgd",
             "--schedule", "cosine", "--warmup", "1", "--momentum", "0.5", "--weight-decay", "0.1",
             "--learning-rate", "0.02", "--run", "changed")  # fmt: skip
    assert train(workspace, "3d_fullres", *words) == 0
    assert "plain_unet" in capsys.readouterr().out
    recorded = read_json(run_folder(workspace, "3d_fullres", "changed") / "run.json")["training"]
    expected = {"optimizer": "sgd", "schedule": "cosine", "warmup": 1, "momentum": 0.5,
                "weight_decay": 0.1, "learning_rate": 0.02, "loss": "ce"}  # fmt: skip
    assert recorded == recorded | expected


def test_a_patch_of_a_preset_gets_the_planned_network_for_it(workspace):
    words = ("--preset", "z25-lits-3d", "--batch-size", "1", "--base-features", "2", "--iterations",
             "1", "--run", "planned", *CLASS_WEIGHTS)  # fmt: skip
    assert train(workspace, "3d_fullres", *words) == 0
    description = read_json(run_folder(workspace, "3d_fullres", "planned") / "run.json")
    assert description["plan"]["configurations"]["3d_fullres"]["patch_size"] == [64, 64, 64]


def test_a_network_of_the_zoo_predicts_what_it_was_trained_for(workspace, tmp_path):
    words = ("--architecture", "densevoxnet", "--patch-size", "16", "32", "32", "--batch-size", "1",
             "--base-features", "4", "--iterations", "2", "--run", "dense")  # fmt: skip
    assert train(workspace, "3d_fullres", *words) == 0
    images = workspace / "raw" / "Dataset001_Shapes" / "imagesTr"
    words = ("predict", "-i", str(images), "-o", str(tmp_path), "-d", "1", "-c", "3d_fullres", "-f",
             "all", "--run", "dense", "-device", "cpu", "--disable-tta")  # fmt: skip
    assert main(["--workspace", str(workspace), *words]) == 0
    assert len(list(tmp_path.glob("*.nii.gz"))) == len(list(images.iterdir()))


@pytest.mark.parametrize(
    ("configuration", "words", "message"),
    [
        ("2d", ("--preset", "z25-lits-2d"), "has 4: background, organ, lesion, vessel"),
        ("3d_fullres", ("--preset", "z25-lits-2d"), "for 2D configurations"),
        ("3d_fullres", ("--architecture", "cam_wnet"), "network for 2D images"),
        ("3d_fullres", ("--architecture", "densevoxnet", "--patch-size", "16", "30", "32"),
         "multiples of (4, 4, 4)"),
        ("3d_fullres", ("--class-weights", "tumour=2"), "given for tumour"),
        ("3d_fullres", ("--optimizer", "newton"), "choose from sgd, adam, adamw"),
    ],
)  # fmt: skip
def test_a_request_that_does_not_fit_is_refused_and_leaves_nothing(
    workspace, capsys, configuration, words, message
):
    results = workspace / "results"
    before = sorted(results.rglob("*"))
    assert train(workspace, configuration, *words, "--iterations", "1", "--run", "refused") == 2
    assert message in capsys.readouterr().err
    assert sorted(results.rglob("*")) == before
