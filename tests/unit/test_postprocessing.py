"""Keeping the largest components: what is dropped, what stays, and when it is worth it."""

import json
import shutil

import numpy as np
import pytest
from phantoms import box
from skimage.measure import label as connected

from sparseunet.cli.main import main
from sparseunet.data.annotation_record import (
    AnnotationRecord,
    AnnotationRecords,
    write_annotation_records,
)
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import read_geometry, read_label_map, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import RequestError
from sparseunet.evaluation.determine_postprocessing import determine_postprocessing
from sparseunet.evaluation.pairing import find_pairs
from sparseunet.postprocessing import (
    KeepLargest,
    apply_steps,
    keep_largest,
    read_postprocessing,
)

SHAPE = (8, 16, 16)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 0.5), origin_mm=(3.0, 2.0, 1.0))
LABELS = LabelSchema(classes={"background": 0, "organ": 1, "kidneys": 2}, regions={})
REGIONS = LabelSchema(
    classes={"background": 0},
    regions={"whole": (1, 2), "core": (2,)},
    regions_class_order=(1, 2),
)
DESCRIPTION = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "organ": 1, "kidneys": 2},
    "file_ending": ".nii.gz",
}


def organs(*, island=(), missing_kidney=False):
    """One organ, two kidneys of unlike size, and islands of what the caller says."""
    labels_ZYX = np.zeros(SHAPE, np.uint8)
    labels_ZYX[box(SHAPE, start=(1, 5, 4), stop=(7, 10, 12))] = 1
    labels_ZYX[box(SHAPE, start=(2, 6, 12), stop=(6, 9, 15))] = 2
    if not missing_kidney:
        labels_ZYX[box(SHAPE, start=(2, 6, 2), stop=(5, 9, 4))] = 2
    for value in island:
        labels_ZYX[0, 14:16, 5 * value : 5 * value + 3] = value
    return labels_ZYX


def write(folder, maps, description=DESCRIPTION):
    for name, labels_ZYX in maps.items():
        write_label_map(folder / f"{name}.nii.gz", labels_ZYX, GEOMETRY)
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def determine(tmp_path, references, predictions, labels=LABELS):
    write(tmp_path / "references", dict(enumerate(references)))
    write(tmp_path / "predictions", dict(enumerate(predictions)))
    pairs = find_pairs(tmp_path / "references", tmp_path / "predictions", file_ending=".nii.gz")
    return determine_postprocessing(pairs, labels=labels, file_ending=".nii.gz", num_workers=2)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_kept_is_the_largest_component_by_another_implementation(seed):
    rng = np.random.default_rng(seed)
    shape = (1, 9, 9) if seed % 4 == 0 else SHAPE
    labels_ZYX = rng.choice(3, shape, p=(0.86, 0.07, 0.07)).astype(np.uint8)
    for values in ((1,), (2,), (1, 2)):
        pieces_ZYX = connected(np.isin(labels_ZYX, values), connectivity=3)
        largest = max(np.sum(pieces_ZYX == one) for one in range(1, pieces_ZYX.max() + 1))
        kept = [
            one for one in range(1, pieces_ZYX.max() + 1) if np.sum(pieces_ZYX == one) == largest
        ]
        dropped_ZYX = np.isin(labels_ZYX, values) & ~np.isin(pieces_ZYX, kept)
        expected_ZYX = np.where(dropped_ZYX, 0, labels_ZYX)
        before_ZYX = labels_ZYX.copy()
        assert np.array_equal(keep_largest(labels_ZYX, values), expected_ZYX)
        assert np.array_equal(labels_ZYX, before_ZYX), "the argument stays as it is"


def test_voxels_that_share_a_corner_are_one_component():
    labels_ZYX = np.zeros((3, 3, 3), np.uint8)
    labels_ZYX[0, 0, 0] = labels_ZYX[1, 1, 1] = labels_ZYX[2, 2, 2] = 1
    assert np.array_equal(keep_largest(labels_ZYX, (1,)), labels_ZYX)


def test_nothing_to_keep_is_nothing_changed():
    empty_ZYX = np.zeros(SHAPE, np.uint8)
    assert np.array_equal(keep_largest(empty_ZYX, (1,)), empty_ZYX)
    assert np.array_equal(apply_steps(organs(), ()), organs())


def test_islands_of_the_foreground_are_dropped_where_that_raises_dice(tmp_path):
    references = [organs(), organs()]
    found = determine(tmp_path, references, [organs(island=(1, 2)), organs(island=(2,))])
    assert [step.name for step in found.steps] == ["foreground"]
    foreground, organ, kidneys = found.trials
    assert foreground.dice_before < 1
    assert foreground.dice_after == 1
    assert not organ.is_kept
    assert not kidneys.is_kept, "there are two, and dropping one lowers Dice"
    assert kidneys.dice_after < kidneys.dice_before == 1
    for island in ((1, 2), (2,)):
        assert np.array_equal(found.apply(organs(island=island)), organs())


def test_a_step_that_one_class_pays_for_is_not_taken(tmp_path):
    apart = organs()
    apart[:, 5:10, 4:12] = 0  # no organ between the kidneys: they are components of the foreground
    apart[box(SHAPE, start=(1, 0, 4), stop=(7, 4, 12))] = 1
    wrong = apart.copy()
    wrong[7, 14:16, :] = 1
    wrong[0, 13:16, :] = 1
    found = determine(tmp_path, [apart], [wrong])
    assert [step.name for step in found.steps] == ["organ"]
    assert "kidneys falls" in found.trials[0].reason or "does not rise" in found.trials[0].reason
    assert np.array_equal(found.apply(wrong), apart)


def test_regions_are_judged_one_behind_the_other(tmp_path):
    reference = organs()
    wrong = organs(island=(1, 2))
    found = determine(tmp_path, [reference], [wrong], REGIONS)
    assert [step.values for step in found.steps] == [(1, 2)]
    assert [trial.step.name for trial in found.trials] == ["foreground", "whole", "core"]
    whole, core = found.trials[1:]
    assert whole.dice_before == whole.dice_after == 1, "judged behind the first step"
    assert not core.is_kept


def test_a_class_that_occurs_nowhere_decides_nothing(tmp_path):
    references = [np.where(organs() == 2, 0, organs())]
    predictions = [np.where(organs(island=(1,)) == 2, 0, organs(island=(1,)))]
    found = determine(tmp_path, references, predictions)
    assert [step.name for step in found.steps] == ["foreground"]
    assert found.trials[-1].reason == "no case holds it"


def decide_by_brute_force(references, predictions):
    """The rules again, in the plainest way: every step on every case, Dice by sets of voxels."""

    def clean(labels_ZYX, values):
        pieces_ZYX = connected(np.isin(labels_ZYX, values), connectivity=3)
        sizes = np.bincount(pieces_ZYX.ravel())[1:]
        kept = np.flatnonzero(sizes == sizes.max(initial=0)) + 1
        return np.where(np.isin(labels_ZYX, values) & ~np.isin(pieces_ZYX, kept), 0, labels_ZYX)

    def dice(maps, value):
        scores = [
            2
            * np.sum((one == value) & (two == value))
            / np.sum((one == value) * 1 + (two == value))
            for one, two in zip(references, maps, strict=True)
        ]
        return np.nanmean(scores)

    steps, maps = [], predictions
    tried = [clean(one, (1, 2)) for one in maps]
    old, new = ([dice(each, value) for value in (1, 2)] for each in (maps, tried))
    if np.mean(new) > np.mean(old) and all(a <= b for a, b in zip(old, new, strict=True)):
        steps, maps = [(1, 2)], tried
    for value in (1, 2):
        tried = [clean(one, (value,)) for one in maps]
        if dice(tried, value) > dice(maps, value):
            steps, maps = [*steps, (value,)], tried
    return steps


def noisy(labels_ZYX, rng, share):
    """The label map with random small boxes of random classes."""
    noisy_ZYX = labels_ZYX.copy()
    for _ in range(rng.integers(0, share)):
        z, y, x = (int(rng.integers(0, size - 2)) for size in SHAPE)
        noisy_ZYX[z : z + 2, y : y + 2, x : x + 2] = rng.integers(0, 3)
    return noisy_ZYX


def test_decisions_on_random_phantoms_are_those_of_the_plain_rules(tmp_path):
    seen = set()
    for seed in range(25):
        rng = np.random.default_rng(seed)
        references = [noisy(organs(missing_kidney=bool(seed % 2)), rng, 3) for _ in range(3)]
        predictions = [noisy(one, rng, 2 + seed % 5) for one in references]
        folder = tmp_path / str(seed)
        found = [step.values for step in determine(folder, references, predictions).steps]
        assert found == decide_by_brute_force(references, predictions), seed
        seen.add(tuple(found))
    assert len(seen) >= 4, seen


@pytest.fixture
def folders(tmp_path):
    raw = tmp_path / "raw"
    references = write(raw / "labelsTr", {"a": organs(), "b": organs()})
    predictions = write(tmp_path / "predictions", {"a": organs(island=(1,)), "b": organs()})
    return references, predictions


def call(*words):
    return main([str(word) for word in words])


def test_what_is_found_out_is_applied_on_the_grid_of_each_file(folders, tmp_path, capsys):
    references, predictions = folders
    rules = tmp_path / "postprocessing.json"
    assert call("determine_postprocessing", "-i", predictions, "-ref", references, "-o", rules) == 0
    assert "foreground" in capsys.readouterr().out
    content = json.loads(rules.read_text())
    assert (content["kind"], content["version"]) == ("sparseunet.postprocessing", 1)
    assert read_postprocessing(rules).steps == (KeepLargest(name="foreground", values=(1, 2)),)

    words = ["apply_postprocessing", "-i", predictions, "-o", tmp_path / "clean", "-pp", rules]
    assert call(*words) == 0
    assert "1 of 2 segmentations changed, 6 voxels" in capsys.readouterr().out
    for name in ("a", "b"):
        path = tmp_path / "clean" / f"{name}.nii.gz"
        assert np.array_equal(read_label_map(path)[0], organs())
        assert read_geometry(path) == read_geometry(predictions / f"{name}.nii.gz")
    assert call(*words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert call(*words, "--overwrite") == 0


def test_rules_for_other_classes_are_refused(folders, tmp_path, capsys):
    references, predictions = folders
    call("determine_postprocessing", "-i", predictions, "-ref", references)
    rules = predictions / "postprocessing.json"
    others = DESCRIPTION | {"labels": {"background": 0, "organ": 2, "kidneys": 1}}
    write(tmp_path / "others", {"a": organs()}, others)
    words = ["apply_postprocessing", "-i", tmp_path / "others", "-o", tmp_path / "out"]
    assert call(*words, "-pp", rules) == 2
    assert "were made for" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert call(*words, "-pp", predictions / "dataset.json") == 2
    assert "determine_postprocessing" in capsys.readouterr().err
    same = ["-i", predictions, "-o", predictions, "-pp", rules]
    assert call("apply_postprocessing", *same) == 2


def test_sparse_references_are_refused_as_not_estimable(folders, tmp_path, capsys):
    references, predictions = folders
    sparse = organs()
    sparse[::2] = 3
    labels = DESCRIPTION["labels"] | {"ignore": 3}
    write(references, {"a": sparse}, DESCRIPTION | {"labels": labels})
    shutil.copy(references / "dataset.json", predictions)
    rules = tmp_path / "postprocessing.json"
    words = ["determine_postprocessing", "-i", predictions, "-ref", references, "-o", rules]
    assert call(*words) == 2
    said = capsys.readouterr().err
    assert "not estimable" in said
    assert "unannotated voxels in 1 (a)" in said
    assert not rules.exists()


@pytest.mark.parametrize("source", [0, 2, 3])
def test_references_that_no_person_drew_in_full_are_refused(folders, capsys, source):
    references, predictions = folders
    drawn = np.ones(SHAPE, np.uint8)
    drawn[3] = source
    write_label_map(references.parent / "provenanceTr" / "b.nii.gz", drawn, GEOMETRY)
    assert call("determine_postprocessing", "-i", predictions, "-ref", references) == 2
    assert "voxels that no person labelled in 1 (b)" in capsys.readouterr().err


def test_cases_with_some_classes_annotated_are_refused(folders, capsys):
    references, predictions = folders
    record = AnnotationRecord(
        axis=0, num_slices=8, annotated_slices=tuple(range(8)), annotated_classes=("organ",)
    )
    records = AnnotationRecords(cases={"a": record})
    write_annotation_records(references.parent / "annotation.json", records)
    assert call("determine_postprocessing", "-i", predictions, "-ref", references) == 2
    assert "some classes were not annotated in 1 (a)" in capsys.readouterr().err


def test_a_reference_without_prediction_is_an_error(folders, capsys):
    references, predictions = folders
    (predictions / "b.nii.gz").unlink()
    assert call("determine_postprocessing", "-i", predictions, "-ref", references) == 2
    assert "b.nii.gz" in capsys.readouterr().err


def test_references_without_foreground_say_nothing(tmp_path):
    empty = np.zeros(SHAPE, np.uint8)
    with pytest.raises(RequestError, match="no reference holds any foreground"):
        determine(tmp_path, [empty], [organs()])
