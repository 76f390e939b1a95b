"""What `golden/runs.json` keeps of plans, preprocessed cases and runs, read from their files alone.

    from golden_runs import ROWS, make_workspace, train

Everything is made through the command line. Kept exactly is what is the same on every machine:
settings, names, counts, labels. Images, intensities and weights differ in their last bits from one
processor to another, and so does a hash over them; of those only numbers are kept, to be compared
within a tolerance.
"""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import blosc2
import numpy as np
import torch

from sparseunet.cli.main import main
from sparseunet.data.synthetic import make_dataset

HERE = Path(__file__).resolve().parent / "golden"
GOLDEN_JSON = HERE / "runs.json"
OLD_RUN = HERE / "run_of_version_0_1"
OLD_CHECKPOINT = OLD_RUN / "fold_0" / "checkpoint_final.pt"

DENSE, SPARSE = "Dataset001_Dense", "Dataset002_Sparse"
DATASETS = (DENSE, SPARSE)
PLANS = ("nnUNetPlans", "nnUNetResEncUNetMPlans")
CONFIGURATIONS = ("2d", "3d_fullres")
_EXACT_ARRAYS = ("inside", "labels", "source")
_OF_THE_FILES = ("image_input_hash", "annotation_input_hash")
"""Hashes over files that are compressed, which every zlib does in its own way."""
_RECIPE = ["--base-features", "4", "--batch-size", "2", "--seed", "0"]
_CPU = ["-device", "cpu", "--precision", "float32", "--num-workers", "0"]
_CLASS_WEIGHTS = ["--class-weights", "background=0.1", "organ=0.5", "lesion=1", "vessel=1"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training."""

    words: tuple[str, ...] = ()
    """Flags besides those of every row."""
    length: tuple[str, ...] = ("--iterations", "2")
    dataset: str = DENSE
    configuration: str = "2d"
    fold: str = "all"
    needs: str | None = None
    """Package without which the row cannot be trained."""

    @property
    def command(self):
        where = [self.dataset, self.configuration, self.fold]
        return ["train", *where, *_RECIPE, *_CPU, *self.length, *self.words]


ROWS = {
    "default": Row(),
    "fold 0": Row(fold="0"),
    "epochs": Row(length=("--epochs", "1", "--iterations-per-epoch", "2")),
    "loss": Row(words=("--loss", "ce")),
    "class weights": Row(words=tuple(_CLASS_WEIGHTS)),
    "trust": Row(words=("--trust", "interpolated=0.5", "pseudo=0.3")),
    "patch shares": Row(words=("--patch-shares", "organ=2", "lesion=1", "rest=1")),
    "foreground share": Row(words=("--foreground-share", "0.5")),
    "case weighting": Row(words=("--case-weighting", "slices"), dataset=SPARSE),
    "schedule": Row(words=("--schedule", "cosine")),
    "warm-up": Row(words=("--warmup", "1")),
    "optimiser": Row(words=("--optimizer", "adam", "--learning-rate", "0.001")),
    "augmentation": Row(words=("--augmentation", "light")),
    "seed": Row(words=("--seed", "7")),
    "no mirroring": Row(words=("--mirror-axes", "none")),
    "no batch Dice": Row(words=("--no-batch-dice",)),
    "preset": Row(words=("--preset", "z25-lits-2d", *_CLASS_WEIGHTS)),
    "pretrained": Row(words=("--pretrained-weights", str(OLD_CHECKPOINT))),
    "residual encoder": Row(words=("-p", PLANS[1])),
    "sparse labels": Row(dataset=SPARSE, fold="0"),
    "3D": Row(configuration="3d_fullres", words=("--patch-size", "16", "32", "32")),
    "sparse labels in 3D": Row(dataset=SPARSE, configuration="3d_fullres"),
    "segresnet": Row(configuration="3d_fullres", words=("--architecture", "segresnet"),
                     needs="monai"),
}  # fmt: skip

TWENTY_STEPS = {
    "2D, sparse labels": Row(length=("--iterations", "20"), dataset=SPARSE),
    "3D, dense labels": Row(
        length=("--iterations", "20"),
        configuration="3d_fullres",
        words=("--patch-size", "16", "32", "32"),
    ),
}

OLD_TRAINING = Row(fold="0", length=("--epochs", "4", "--iterations-per-epoch", "250"))
"""What made `run_of_version_0_1`."""


def run(workspace, *words):
    """Run one verb in the workspace."""
    assert main(["--workspace", str(workspace), *words]) == 0, words


def make_workspace(root):
    """Write a dense dataset and a sparse one, plan them twice and preprocess them."""
    make_dataset(root / "raw" / DENSE, num_training=5, num_test=2)
    slices = ["--density", "0.3", "--selector", "fixed"]
    run(root, "simulate_annotation", "-d", DENSE, "-o", SPARSE, *slices, "-np", "1")
    words = ["-c", *CONFIGURATIONS, "-np", "1"]
    run(root, "plan_and_preprocess", "-d", *DATASETS, *words)
    run(root, "plan_and_preprocess", "-d", *DATASETS, "-pl", "ResEncM", "--no-pp", *words)
    return root


def train(workspace, row):
    """Train one row and return the folder of its fold."""
    before = set(_folds(workspace))
    run(workspace, *row.command)
    (folder,) = set(_folds(workspace)) - before
    return folder


def train_on_one_thread(workspace, row):
    """Train one row in a process of its own, and return its final weights by name."""
    before = set(_folds(workspace))
    done = subprocess.run(
        [sys.executable, "-m", "sparseunet", "--workspace", str(workspace), *row.command],
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = set(_folds(workspace)) - before
    return torch.load(folder / "checkpoint_final.pt", weights_only=True)["weights"]


def read(path):
    """Return the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def hash_json(content):
    """Return the SHA-256 of canonical JSON, by which runs are named."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plan_facts(plans):
    """Return a hash of everything in a plans file but intensities, and these."""
    exact = dict(plans)
    intensities = exact.pop("foreground_intensity_properties_per_channel")
    own = dict(exact.get("sparseunet", {}))
    own.pop("fingerprint_hash", None)  # made from intensities too
    return {"hash": hash_json(exact | {"sparseunet": own}), "intensities": intensities}


def case_facts(folder, case):
    """Return what is kept of one preprocessed case."""
    manifest = read(folder / f"{case}.json")
    arrays = read_arrays(folder, manifest)
    settings = {key: value for key, value in manifest.items() if key not in _OF_THE_FILES}
    del settings["image_hash"]
    settings["arrays"] = {
        key: [stored["dtype"], stored["constant"]] for key, stored in manifest["arrays"].items()
    }
    with np.load(folder / f"{case}.npz", allow_pickle=False) as content:
        voxels = {key: hash_arrays(content[key]) for key in sorted(content.files)}
    return {
        "manifest": hash_json(settings),
        "arrays": {key: hash_arrays(arrays[key]) for key in _EXACT_ARRAYS},
        "sampled_voxels": hash_json(voxels),
        "image": numbers(arrays["image"]),
    }


def read_arrays(folder, manifest):
    """Return every array of a preprocessed case."""
    arrays = {}
    for key, stored in manifest["arrays"].items():
        if stored["constant"] is None:
            arrays[key] = blosc2.open(str(folder / f"{manifest['case']}.{key}.b2nd"), mode="r")[:]
        else:
            arrays[key] = np.full(manifest["shape"], stored["constant"], stored["dtype"])
    return arrays


def hash_arrays(*arrays):
    """Return the SHA-256 of the bytes of arrays, one after the other."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def numbers(array, *, count=8):
    """Return mean, deviation and up to `count` values from all over an array."""
    flat = np.asarray(array, np.float64).ravel()
    step = -(-len(flat) // count)
    values = [flat.mean(), flat.std(), *flat[::step]]
    return [round(float(value), 8) for value in values]


def weight_facts(weights):
    """Return mean, deviation and up to four values of each tensor of a network."""
    return {name: numbers(tensor, count=4) for name, tensor in weights.items()}


def run_facts(folder):
    """Return what is kept of `run.json`: all but the versions, and what depends on last bits."""
    facts = read(folder / "run.json")
    del facts["versions"], facts["identity"]["data"], facts["run_id"]
    facts.pop("pretrained_weights", None)  # a path
    facts["plan"] = plan_facts(facts["plan"])["hash"]
    return facts


def data_hash(workspace, row, description):
    """Return the hash of the cases that a run was trained and validated on, from their files."""
    plan = description["plan"]["configurations"][row.configuration]
    folder = workspace / "preprocessed" / row.dataset / plan["data_identifier"]
    content = []
    for path in sorted(folder.glob("*.json")):
        manifest = read(path)
        arrays = read_arrays(folder, manifest)
        image = hash_arrays(arrays["image"], arrays["inside"])
        content.append([manifest["case"], image, hash_arrays(arrays["labels"], arrays["source"])])
    return hash_json(content)


def predict_with_old_run(scans, output):
    """Segment scans with `run_of_version_0_1` and return the voxels of each label by file."""
    import SimpleITK

    words = ["-m", str(OLD_RUN), "-i", str(scans), "-o", str(output), *_CPU[:4], "-np", "1"]
    assert main(["predict", *words]) == 0
    counts = {}
    for path in sorted(output.glob("*.nii.gz")):
        labels_ZYX = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        counts[path.name] = np.bincount(labels_ZYX.ravel(), minlength=4).tolist()
    return counts


def _folds(workspace):
    return (path.parent for path in workspace.glob("results/*/*/*/fold_*/run.json"))
