"""Who looked at which slice: what is drawn, what is ticked off, what is neither."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseunet.annotation.exchange.slice_status import find_views
from sparseunet.annotation.exchange.work_list import (
    COLUMNS,
    WorkItem,
    read_work_list,
    write_work_list,
)
from sparseunet.errors import DatasetError, RequestError

SHAPE = (8, 7, 6)


def _views(labels, planned, ticked=None, touched=None):
    touched = labels > 0 if touched is None else touched
    return find_views(labels, touched, case="a", planned=planned, ticked=ticked or {})


@given(
    drawn=st.sets(st.integers(0, 7)),
    planned=st.sets(st.integers(0, 7), min_size=1),
    ticked=st.sets(st.integers(0, 7)),
    axis=st.integers(0, 2),
)
@settings(max_examples=80)
def test_with_one_axis_a_slice_is_annotated_if_drawn_on_or_ticked(drawn, planned, ticked, axis):
    drawn, planned, ticked = (
        {index for index in each if index < SHAPE[axis]} for each in (drawn, planned, ticked)
    )
    labels = np.zeros(SHAPE, np.uint8)
    np.moveaxis(labels, axis, 0)[sorted(drawn), 2, 3] = 1

    (view,) = _views(labels, {axis: sorted(planned)}, {axis: frozenset(ticked)})

    assert set(view.annotated) == drawn | ticked
    assert set(view.empty) == ticked - drawn
    assert set(view.done) == (drawn | ticked) & planned
    assert set(view.extra) == (drawn | ticked) - planned
    assert set(view.missing) == planned - drawn - ticked


def test_a_slice_that_is_crossed_by_drawn_ones_is_not_drawn_itself():
    labels = np.zeros(SHAPE, np.uint8)
    labels[[2, 5], 1:6, 1:5] = 1

    z, x = _views(labels, {0: [2, 5], 2: [3]})

    assert (z.annotated, x.annotated, x.missing) == ((2, 5), (), (3,))


def test_slices_across_two_axes_are_both_found():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 1:6, 1:5] = 1
    labels[1:7, 1:6, 3] = 1

    z, x = _views(labels, {0: [2], 2: [3]})

    assert (z.annotated, x.annotated) == ((2,), (3,))


def test_a_ticked_slice_explains_what_is_drawn_in_it():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 1:6, 3] = 1

    z, x = _views(labels, {0: [2], 2: [3]}, {2: frozenset({3})})

    assert (z.annotated, x.annotated) == ((), (3,))


def test_erasing_what_was_handed_out_is_drawing_too():
    labels = np.zeros(SHAPE, np.uint8)
    touched = np.zeros(SHAPE, bool)
    touched[4, 2, 2] = True

    (view,) = _views(labels, {0: [4]}, touched=touched)

    assert (view.annotated, view.empty) == ((4,), (4,))


def _write(path: Path, text: str, encoding="utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_a_new_work_list_says_that_nothing_is_done(tmp_path):
    item = WorkItem(
        case="a",
        axis=0,
        view="axial",
        index=4,
        shown_as="5",
        priority=1,
        reason='covers "most", really',
        expected_minutes=1.25,
    )
    write_work_list(tmp_path / "work_list.csv", [item])

    assert read_work_list(tmp_path / "work_list.csv") == {}
    head, row = (tmp_path / "work_list.csv").read_text(encoding="utf-8-sig").splitlines()
    assert head == ",".join(COLUMNS)
    assert row == 'a,z,axial,4,5,1,"covers ""most"", really",1.25,,'


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_ticks_are_read_however_a_spreadsheet_program_saved_them(tmp_path, separator, encoding):
    rows = ["case,axis,slice,reason,done,minutes", "é,z,4,,X,2.5", "é,Z,6,,empty,", "é,y,1,,no,1"]
    text = "\r\n".join(row.replace(",", separator) for row in rows) + "\r\n\r\n"
    if separator == ";":
        text = text.replace("2.5", "2,5")

    found = read_work_list(_write(tmp_path / "list.csv", text, encoding))

    assert found["é"].done == {0: frozenset({4, 6})}
    assert found["é"].empty == {0: frozenset({6})}
    assert found["é"].minutes == 3.5


def test_every_row_that_makes_no_sense_is_named(tmp_path):
    text = (
        "case,axis,slice,done,minutes\na,w,1,x,\na,z,one,x,\na,z,1,maybe,\na,z,1,x,-3\na,z,1,x,3\n"
    )
    with pytest.raises(DatasetError) as error:
        read_work_list(_write(tmp_path / "list.csv", text))
    assert [problem.found for problem in error.value.problems] == [
        "row 2: axis 'w'",
        "row 3: slice 'one'",
        "row 4: done 'maybe'",
        "row 5: minutes '-3'",
    ]


def test_a_list_without_its_columns_is_refused(tmp_path):
    with pytest.raises(RequestError, match="no column axis, done"):
        read_work_list(_write(tmp_path / "list.csv", "case,slice\na,1\n"))
