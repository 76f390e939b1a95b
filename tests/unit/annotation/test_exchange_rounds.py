"""Every import is kept, and nothing earlier is lost."""

import shutil

import numpy as np
import pytest
from drawing_tools import make_plan
from drawn_scans import DENSE, GEOMETRY, PLAN, SHAPE, draw, drawn_only, labels_in
from hypothesis import given
from hypothesis import strategies as st

from sparseunet.annotation.exchange.export import export_annotation
from sparseunet.annotation.exchange.import_annotation import import_annotation
from sparseunet.annotation.exchange.merge import merge_annotations
from sparseunet.data.annotation import Annotation
from sparseunet.data.annotation_record import read_annotation_records
from sparseunet.data.io import read_label_map, write_label_map
from sparseunet.errors import DatasetError


def _import(scans, export, target, **changes):
    return import_annotation(scans, plan=PLAN, returned=export, folder=target, **changes)


def test_a_second_round_adds_and_both_are_kept(scans, export, target):
    draw(export, "a", [2])
    _import(scans, export, target)
    first = (target / "annotation_rounds" / "round_001" / "labelsTr" / "a.nii.gz").read_bytes()
    draw(export, "a", [2, 8])
    draw(export, "b", [3])

    summary = _import(scans, export, target)

    assert summary.round == 2
    assert np.array_equal(labels_in(target, "a"), drawn_only("a", [2, 8]))
    assert np.array_equal(labels_in(target, "b"), drawn_only("b", [3]))
    assert read_annotation_records(target / "annotation.json") == summary.records
    assert summary.records.cases["a"].annotated_slices == (2, 8)
    kept = target / "annotation_rounds"
    assert (kept / "round_001" / "labelsTr" / "a.nii.gz").read_bytes() == first
    assert (kept / "round_002" / "work_list.csv").is_file()


def test_the_same_folder_again_brings_nothing_and_changes_nothing(scans, export, target):
    draw(export, "a", [2])
    _import(scans, export, target)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}

    summary = _import(scans, export, target)

    assert summary.round is None
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("winner", ["refuse", "newest", "oldest"])
def test_a_voxel_drawn_differently_is_a_conflict_that_somebody_must_settle(
    scans, export, target, winner
):
    draw(export, "a", [2])
    _import(scans, export, target)
    redrawn = DENSE["a"].copy()
    redrawn[2, 0, :3] = (redrawn[2, 0, :3] + 1) % 3
    draw(export, "a", [2, 8], dense=redrawn)

    if winner == "refuse":
        with pytest.raises(
            DatasetError, match="3 voxels labelled differently before, in slices z 2"
        ):
            _import(scans, export, target)
        assert np.array_equal(labels_in(target, "a"), drawn_only("a", [2]))
        assert not (target / "annotation_rounds" / "round_002").exists()
        return
    summary = _import(scans, export, target, on_conflict=winner)

    assert summary.num_conflicts == 3
    expected = drawn_only("a", [2, 8])
    if winner == "newest":
        expected[2] = redrawn[2]
    assert np.array_equal(labels_in(target, "a"), expected)
    kept, _ = read_label_map(target / "annotation_rounds" / "round_002" / "labelsTr" / "a.nii.gz")
    assert np.array_equal(kept[2], redrawn[2])


def test_minutes_of_one_list_count_once_and_those_of_two_add_up(scans, export, target, tmp_path):
    draw(export, "a", [2])
    (export / "work_list.csv").write_text("case,axis,slice,done,minutes\na,z,2,x,4\n")
    _import(scans, export, target)
    draw(export, "a", [2, 8])
    (export / "work_list.csv").write_text("case,axis,slice,done,minutes\na,z,2,x,4\na,z,8,x,1\n")
    assert _import(scans, export, target).records.cases["a"].minutes == 5

    plan = make_plan({"a": [10]}, {"a": SHAPE})
    other = tmp_path / "other"
    export_annotation(scans, plan=plan, tool="nifti", folder=other)
    draw(other, "a", [10])
    (other / "work_list.csv").write_text("case,axis,slice,done,minutes\na,z,10,x,7\n")
    summary = import_annotation(scans, plan=plan, returned=other, folder=target)

    assert summary.records.cases["a"].minutes == 12
    assert summary.records.cases["a"].annotated_slices == (2, 8, 10)


def test_labels_that_were_there_before_the_first_import_are_kept_as_round_0(
    scans, export, target, tmp_path
):
    draw(export, "a", [2])
    _import(scans, export, target)
    foreign = tmp_path / "raw" / "Dataset003_Foreign"
    target.rename(foreign)
    for path in [foreign / "annotation.json", *(foreign / "annotation_rounds").rglob("*")]:
        if path.is_file():
            path.unlink()
    for path in sorted((foreign / "annotation_rounds").rglob("*"), reverse=True):
        path.rmdir()
    (foreign / "annotation_rounds").rmdir()
    before = (foreign / "labelsTr" / "a.nii.gz").read_bytes()
    draw(export, "a", [8])

    assert _import(scans, export, foreign).round == 1

    assert np.array_equal(labels_in(foreign, "a"), drawn_only("a", [2, 8]))
    kept = foreign / "annotation_rounds" / "round_000" / "labelsTr" / "a.nii.gz"
    assert kept.read_bytes() == before


@given(st.integers(0, 10_000), st.booleans())
def test_merging_loses_no_annotated_voxel_and_invents_none(seed, newest_wins):
    random = np.random.default_rng(seed)
    maps = random.integers(0, 4, (2, 3, 4, 5)).astype(np.uint8)
    earlier, new = (Annotation.from_label_map(each, ignore=3) for each in maps)

    merged = merge_annotations(earlier, new, newest_wins=newest_wins)

    winner, loser = (new, earlier) if newest_wins else (earlier, new)
    assert np.array_equal(merged.annotated_ZYX, earlier.annotated_ZYX | new.annotated_ZYX)
    won = winner.annotated_ZYX
    assert np.array_equal(merged.labels_ZYX[won], winner.labels_ZYX[won])
    kept = loser.annotated_ZYX & ~won
    assert np.array_equal(merged.labels_ZYX[kept], loser.labels_ZYX[kept])


def test_an_import_that_was_interrupted_is_finished_by_the_same_import(scans, export, target):
    draw(export, "a", [2])
    _import(scans, export, target)
    record = (target / "annotation.json").read_bytes()
    draw(export, "a", [2, 8])
    draw(export, "b", [3])
    _import(scans, export, target)
    wanted = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    (target / "annotation.json").write_bytes(record)  # stopped after the first labels were written
    shutil.rmtree(target / "annotation_rounds" / "round_002")
    write_label_map(target / "labelsTr" / "b.nii.gz", drawn_only("b", []), GEOMETRY)

    assert _import(scans, export, target).round == 2

    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == wanted
