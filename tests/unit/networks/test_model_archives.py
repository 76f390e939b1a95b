"""A zip file of models is unpacked into one folder, or refused before anything is written."""

import os
import stat
import zipfile

import numpy as np
import pytest
from frozen_models import DATASET, write_model_folder

from sparseunet.artifacts import read_json, write_json
from sparseunet.errors import RequestError, UnreadableFileError
from sparseunet.runs.exchange.archive import unpack
from sparseunet.runs.exchange.find_models import choose_model, open_models
from sparseunet.runs.load import load_found_model, load_previous_stage


@pytest.fixture
def results(tmp_path):
    """What nnU-Net has trained: one plain model, and the second stage of a cascade."""
    folder = tmp_path / "results"
    write_model_folder(folder, "plain_3d", folds=(0, 1))
    write_model_folder(folder, "second_stage_3d")
    return folder


def _zip(results, path, *, extra=()):
    """Zip as nnUNetv2_export_model_to_zip, with pictures and logs beside the models."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(results.rglob("*")):
            archive.write(file, file.relative_to(results))
        archive.writestr(f"{DATASET}/inference_information.json", "{}")
        for entry, content in extra:
            archive.writestr(entry, content)
    return path


def test_an_archive_of_nnunet_gives_its_models_by_configuration(results, tmp_path):
    with open_models(_zip(results, tmp_path / "all.zip")) as models:
        assert {model.configuration for model in models} == {"3d_fullres", "3d_cascade_fullres"}
        with pytest.raises(RequestError, match=r"several models; choose one by its configuration"):
            choose_model(models)
        with pytest.raises(RequestError, match="no model of configuration 2d"):
            choose_model(models, "2d")
        found = choose_model(models, "3d_fullres")
        assert found.folds == found.default_folds == (0, 1)
        assert len(load_found_model(found, found.folds).checkpoints) == 2
        folder = found.folder
    assert not folder.exists()


def test_a_model_folder_and_a_dataset_folder_hold_models(results):
    dataset = results / DATASET
    with open_models(dataset) as models:
        assert len(models) == 2
    with open_models(choose_model(models, "3d_fullres").folder) as models:
        assert choose_model(models).folder.parent == dataset


def test_the_best_checkpoint_is_taken_where_there_is_no_final_one(results):
    folder = results / DATASET / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    final = folder / "fold_1" / "checkpoint_final.pth"
    final.rename(final.with_name("checkpoint_best.pth"))
    with open_models(folder) as models:
        (found,) = models
        names = [path.name for path in load_found_model(found, (0, 1)).checkpoints]
    assert names == ["checkpoint_final.pth", "checkpoint_best.pth"]


def test_the_first_stage_lies_beside_the_second_or_is_missed(results):
    with open_models(results / DATASET) as models:
        second = load_found_model(choose_model(models, "3d_cascade_fullres"), [0])
        with pytest.raises(RequestError, match="give the folder of its segmentations"):
            load_previous_stage(second, [0])
        plain = choose_model(models, "3d_fullres").folder
        plain.rename(plain.with_name("nnUNetTrainer__nnUNetPlans__3d_lowres"))
        assert load_previous_stage(second, [0]).configuration.name == "3d_fullres"


@pytest.mark.parametrize("folds", [(5,), ("all",)])
def test_folds_that_are_not_there_are_refused(results, folds):
    with open_models(results / DATASET) as models:
        with pytest.raises(RequestError, match="ask for other folds") as refusal:
            load_found_model(choose_model(models, "3d_fullres"), folds)
        assert refusal.value.setting == "folds"


@pytest.mark.parametrize(
    "name",
    [
        "../plans.json",
        "a/../../plans.json",
        "/tmp/plans.json",
        "C:/plans.json",
        "a\\..\\plans.json",
        "./plans.json",
        "a//plans.json",
        "../canary.txt",
    ],
)
def test_an_archive_with_a_name_that_leads_out_is_refused_whole(results, tmp_path, name):
    path = _zip(results, tmp_path / "bad.zip", extra=[(zipfile.ZipInfo(name), "{}")])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UnreadableFileError, match="leads out of the folder"), open_models(path):
        pass
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(results, tmp_path, kind):
    link = zipfile.ZipInfo("Dataset/link")
    link.create_system = 3
    link.external_attr = (kind | 0o777) << 16
    path = _zip(results, tmp_path / "bad.zip", extra=[(link, "/etc/passwd")])
    with pytest.raises(UnreadableFileError, match="link or a device"), open_models(path):
        pass


def test_a_name_that_is_there_twice_is_refused(results, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = _zip(
            results, tmp_path / "bad.zip", extra=[("x/plans.json", "{}"), ("x/plans.json", "[]")]
        )
    with pytest.raises(UnreadableFileError, match="twice"), open_models(path):
        pass


def test_an_archive_that_would_unfold_to_far_more_is_refused(results, tmp_path):
    bomb = ("X/Y/fold_0/checkpoint_final.pth", bytes(64 * 2**20))
    path = _zip(results, tmp_path / "bomb.zip", extra=[bomb])
    assert path.stat().st_size < 2**20
    with pytest.raises(UnreadableFileError, match="67108864 bytes packed into"), open_models(path):
        pass


def test_what_is_not_wanted_may_compress_as_it_likes_and_is_not_unpacked(tmp_path):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("progress.png", bytes(2**24))
        archive.writestr("postprocessing.pkl", b"cos\nsystem\n")
        archive.writestr("plans.json", "{}")
    (tmp_path / "out").mkdir()
    names = unpack(path, tmp_path / "out", wanted=lambda name: name.name == "plans.json")
    assert [str(name) for name in names] == ["plans.json"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plans.json"]


@pytest.mark.parametrize("limit", ["MAX_UNPACKED_BYTES", "MAX_ENTRIES"])
def test_more_than_the_limits_is_refused(results, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(f"sparseunet.runs.exchange.archive.{limit}", 3)
    path = _zip(results, tmp_path / "all.zip")
    with pytest.raises(UnreadableFileError, match="at most"), open_models(path):
        pass


def test_a_claim_of_more_bytes_than_there_are_is_refused(results, tmp_path):
    path = _zip(results, tmp_path / "all.zip")
    content = path.read_bytes()
    position = content.rindex(b"PK\x01\x02", 0, content.rindex(b"plans.json"))
    size = position + 24  # of the unpacked file, in its entry of the directory
    path.write_bytes(content[:size] + (2**31).to_bytes(4, "little") + content[size + 4 :])
    with pytest.raises(UnreadableFileError, match="bytes packed into"), open_models(path):
        pass


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_an_archive_that_was_cut_off_is_refused(results, tmp_path, share):
    path = _zip(results, tmp_path / "all.zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnreadableFileError, match="damaged zip archive"), open_models(path):
        pass


def test_an_archive_of_damaged_bytes_gives_models_or_a_refusal(results, tmp_path):
    path = _zip(results, tmp_path / "all.zip")
    content = path.read_bytes()
    random = np.random.default_rng(1)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        for position in random.integers(len(content) - 3000, len(content), size=8):
            damaged[position] = random.integers(256)
        path.write_bytes(damaged)
        try:
            with open_models(path) as models:
                choose_model(models, "3d_fullres")
        except RequestError:
            refused += 1
    assert refused > 30


def test_a_folder_or_file_without_a_model_says_what_is_expected(tmp_path):
    for path in (tmp_path, tmp_path / "empty.zip"):
        if path.suffix:
            zipfile.ZipFile(path, "w").close()
        with pytest.raises(RequestError, match=r"fold_0/checkpoint_final\.pth"), open_models(path):
            pass
    with pytest.raises(RequestError, match="no folder and no file"), open_models(tmp_path / "x"):
        pass


def test_a_fifo_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RequestError, match="no folder and no file"), open_models(tmp_path / "pipe"):
        pass


def test_a_configuration_may_inherit_from_one_that_we_cannot_use(results):
    folder = results / DATASET / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    plans = read_json(folder / "plans.json")
    plans["configurations"]["other"] = {"architecture": "something else"}
    own = plans["configurations"]["3d_fullres"]
    plans["configurations"]["base"] = {**own, "normalization_schemes": ["MyNorm"]}
    plans["configurations"]["3d_fullres"] = {
        "inherits_from": "base",
        "normalization_schemes": own["normalization_schemes"],
    }
    write_json(folder / "plans.json", plans)
    with open_models(folder) as models:
        assert load_found_model(models[0], [0]).configuration.name == "3d_fullres"


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_a_description_that_is_missing_is_named(results, name):
    folder = results / DATASET / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (folder / name).unlink()
    words = f"folds 0 1 of a model of nnU-Net, but no {name};"
    with pytest.raises(RequestError, match=words), open_models(folder):
        pass


def test_a_checkpoint_alone_is_answered_with_what_is_needed(results):
    path = next(results.rglob("checkpoint_final.pth"))
    with pytest.raises(RequestError, match="give the folder of its model"), open_models(path):
        pass


def test_what_is_wrong_inside_an_archive_is_told_of_the_archive(results, tmp_path):
    folder = results / DATASET / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    inside = f"{DATASET}/{folder.name}/fold_0/checkpoint_final.pth"
    path = _zip(results, tmp_path / "all.zip")
    with pytest.raises(RequestError) as caught, open_models(path) as models:
        load_found_model(choose_model(models, "3d_fullres"), [0])
    assert f"{path}/{inside}" in str(caught.value)
