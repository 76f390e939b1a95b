"""A checkpoint from anywhere is tensors and numbers that fit, or one clear refusal; never code."""

import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from frozen_models import FROZEN, frozen, write_model_folder

from sparseunet.artifacts import read_json, write_json
from sparseunet.errors import RequestError, UnreadableFileError
from sparseunet.networks.build import build_network
from sparseunet.networks.checkpoint import read_checkpoint
from sparseunet.networks.trained_model import load_network
from sparseunet.networks.weights import nnunet_names, weights_to_nnunet
from sparseunet.planning.nnunet_plans import plan_from_nnunet
from sparseunet.runs.exchange.nnunet_model import load_nnunet_model


class Opens:
    """Pickled, a call that leaves a file behind where it is run."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


class Runs(Opens):
    """Pickled, a shell command."""

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.canary}",)


@pytest.fixture
def folder(tmp_path):
    """A model folder of nnU-Net; and `canary`, which no test may find."""
    yield write_model_folder(tmp_path, "plain_3d")
    assert not (tmp_path / "canary").exists(), "code of a file was run"


@pytest.fixture
def checkpoint(folder):
    return folder / "fold_0" / "checkpoint_final.pth"


def _load(folder):
    model = load_nnunet_model(folder, [0])
    return load_network(model, model.checkpoints[0])


def _change(checkpoint, **changes):
    content = frozen("plain_3d") | changes
    torch.save(content, checkpoint)


def _with_weight(name, tensor):
    return frozen("plain_3d")["network_weights"] | {name: tensor}


HEAD = "decoder.seg_layers.0.bias"


@pytest.mark.parametrize("hostile", [Opens, Runs])
def test_a_checkpoint_with_a_call_in_it_is_refused_and_not_run(
    folder, checkpoint, tmp_path, hostile
):
    canary = tmp_path / "canary"
    _change(checkpoint, logging=hostile(canary))
    with pytest.raises(UnreadableFileError, match="other things than tensors and numbers"):
        _load(folder)
    torch.load(checkpoint, weights_only=False)  # the trap works
    canary.unlink()


@pytest.mark.parametrize("hostile", [Opens, Runs])
def test_a_plain_pickle_is_refused_and_not_run(folder, checkpoint, tmp_path, hostile):
    checkpoint.write_bytes(pickle.dumps(hostile(tmp_path / "canary")))
    with pytest.raises(UnreadableFileError, match="not the zip archive"):
        _load(folder)


def test_a_legacy_tar_pickle_is_refused_and_not_run(folder, checkpoint, tmp_path):
    trap = pickle.dumps(Runs(tmp_path / "canary"))
    with tarfile.open(checkpoint, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(trap)
            archive.addfile(entry, io.BytesIO(trap))
    with pytest.raises(UnreadableFileError, match="not the zip archive"):
        _load(folder)


def test_the_legacy_form_without_a_zip_is_refused(folder, checkpoint):
    torch.save(frozen("plain_3d"), checkpoint, _use_new_zipfile_serialization=False)
    with pytest.raises(UnreadableFileError, match="not the zip archive"):
        _load(folder)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(folder, checkpoint, share):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnreadableFileError, match=r"checkpoint_final\.pth"):
        _load(folder)


def test_a_file_of_damaged_bytes_gives_weights_or_a_refusal_and_nothing_else(folder, checkpoint):
    content = checkpoint.read_bytes()
    start = content.index(b"data.pkl")
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        for position in random.integers(start, start + 6000, size=5):
            damaged[position] = random.integers(256)
        checkpoint.write_bytes(damaged)
        try:
            _load(folder)
        except RequestError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (
            lambda: _with_weight(HEAD, torch.zeros(7)),
            rf"{HEAD} has shape \(7,\), expected .*\(3,\)",
        ),
        (lambda: _with_weight(HEAD, torch.zeros(3, dtype=torch.int64)), "floating point"),
        (lambda: _with_weight(HEAD, torch.zeros(3).to_sparse()), "floating point"),
        (lambda: _with_weight(HEAD, torch.zeros(3, device="meta")), "floating point"),
        (lambda: _with_weight(HEAD, torch.zeros(1).expand(3)), "does not lie whole"),
        (lambda: _with_weight(HEAD, [0.0, 0.0, 0.0]), "floating point"),
        (
            lambda: _with_weight("encoder.bn.running_mean", torch.zeros(3)),
            "running_mean is unknown",
        ),
        (
            lambda: _with_weight("decoder.stages.0.convs.0.all_modules.0.bias", torch.ones(3)),
            "same weight",
        ),
        (
            lambda: {k: v for k, v in frozen("plain_3d")["network_weights"].items() if k != HEAD},
            f"{HEAD} is missing",
        ),
        (dict, "is missing"),
        (lambda: 3, "no weights in it"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(folder, checkpoint, weights, words):
    _change(checkpoint, network_weights=weights())
    with pytest.raises(UnreadableFileError, match=words):
        _load(folder)


def test_a_plan_of_a_huge_network_takes_no_memory(folder, checkpoint):
    said = frozen("plain_3d")["init_args"]["plans"]
    architecture = said["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    architecture["features_per_stage"] = [60_000, 60_000, 60_000]  # 400 GB of numbers
    write_json(folder / "plans.json", said)
    with pytest.raises(UnreadableFileError, match="expected shape"):
        _load(folder)
    shared = torch.zeros(1).expand(1)
    weights = dict.fromkeys(frozen("plain_3d")["network_weights"], shared)
    _change(checkpoint, network_weights=weights)
    with pytest.raises(UnreadableFileError, match="has shape"):
        _load(folder)


def test_a_tensor_that_claims_more_numbers_than_the_file_has_is_refused(folder, checkpoint):
    tensor = torch.arange(3.0)
    _change(checkpoint, network_weights=_with_weight(HEAD, tensor))
    before = b"K\x03t"  # three numbers in the storage
    after = b"J" + struct.pack("<i", 2**30) + b"t"
    _rewrite(checkpoint, lambda data: data.replace(before, after))
    with pytest.raises(UnreadableFileError):
        _load(folder)


def test_the_same_numbers_under_many_names_are_no_network(folder, checkpoint):
    plans = frozen("plain_3d")["init_args"]["plans"]
    arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    arguments["features_per_stage"] = [32, 32, 32]
    write_json(folder / "plans.json", plans)
    network = build_network(
        plan_from_nnunet(plans).configurations["3d_fullres"].network,
        num_input_channels=1,
        num_outputs=3,
        deep_supervision=False,
    )
    numbers = torch.zeros(max(tensor.numel() for tensor in network.state_dict().values()))
    weights = {
        name: numbers[: tensor.numel()].view(tensor.shape)
        for name, tensor in weights_to_nnunet(network.state_dict()).items()
    }
    _change(checkpoint, network_weights=weights)
    with pytest.raises(UnreadableFileError, match="same numbers under several names"):
        _load(folder)


def test_a_compressed_checkpoint_which_could_unfold_to_anything_is_refused(folder, checkpoint):
    _rewrite(checkpoint, lambda data: data, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnreadableFileError, match="compressed entries"):
        _load(folder)


def test_numbers_of_numpy_in_a_log_are_no_reason_to_refuse():
    for path in FROZEN.glob("*.pth"):
        assert read_checkpoint(path)["logging"].keys() == {"mean_fg_dice", "ema_fg_dice"}


def test_other_things_of_numpy_are_refused(folder, checkpoint):
    _change(checkpoint, logging=np.zeros(3))
    with pytest.raises(UnreadableFileError, match="_reconstruct"):
        _load(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init_args": {}}, "no configuration"),
        ({"init_args": {"configuration": "2d"}}, "2d"),
        ({"init_args": {"configuration": ["x"]}}, "no configuration"),
        ({"inference_allowed_mirroring_axes": ("x",)}, "axes to mirror"),
        ({"inference_allowed_mirroring_axes": (0, 5)}, "mirror axes"),
    ],
)
def test_what_a_checkpoint_says_of_itself_is_checked(folder, checkpoint, changes, words):
    _change(checkpoint, **changes)
    with pytest.raises(RequestError, match=words):
        _load(folder)


def test_without_axes_to_mirror_nothing_is_mirrored_as_in_nnunet(folder, checkpoint):
    _change(checkpoint, inference_allowed_mirroring_axes=None)
    assert load_nnunet_model(folder, [0]).mirror_axes == ()


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("dataset.json", {"file_ending": "/../../evil.nii.gz"}, "file ending"),
        ("dataset.json", {"labels": {"background": 0, "one": 9}}, r"fullres/dataset\.json.*consec"),
        ("dataset.json", [], r"dataset\.json does not describe a model"),
        ("dataset.json", {"channel_names": ["MRI"]}, "the channels"),
        ("dataset.json", {"channel_names": {"0": "T1", "1": "T2"}}, "the channels"),
        ("plans.json", {"configurations": {}}, "3d_fullres"),
        ("plans.json", {"label_manager": "Mine"}, "label_manager"),
        ("plans.json", {"dataset_name": "../../x"}, r"the name '\.\./\.\./x'"),
        ("plans.json", {"plans_name": 3}, "the name 3"),
    ],
)
def test_descriptions_from_anywhere_are_checked(folder, file, change, words):
    content = read_json(folder / file)
    write_json(folder / file, content | change if isinstance(change, dict) else change)
    with pytest.raises(RequestError, match=words):
        _load(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(folder, checkpoint, bad):
    weights = frozen("plain_3d")["network_weights"]
    weights[HEAD].flatten()[-1] = bad
    _change(checkpoint, network_weights=weights)
    with pytest.raises(UnreadableFileError, match=f"{HEAD} holds NaN or infinity"):
        _load(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}", "\xff", ""])
def test_json_that_is_none_is_refused(folder, text):
    (folder / "plans.json").write_text(text, encoding="latin1")
    with pytest.raises(RequestError, match=r"plans\.json"):
        _load(folder)


def test_a_configuration_whose_name_leads_out_of_the_folder_is_refused(folder, checkpoint):
    plans = frozen("plain_3d")["init_args"]["plans"]
    plans["configurations"] = {"../../x": plans["configurations"]["3d_fullres"]}
    write_json(folder / "plans.json", plans)
    _change(checkpoint, init_args={"configuration": "../../x"})
    with pytest.raises(RequestError, match=r"the name '\.\./\.\./x'"):
        _load(folder)


def test_a_name_of_no_weight_has_no_name_in_nnunet():
    with pytest.raises(ValueError, match="attention"):
        nnunet_names("attention.weight")


def _rewrite(path, change, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w", compression) as sink:
        for name, data in entries.items():
            sink.writestr(name, change(data) if name.endswith("data.pkl") else data)
