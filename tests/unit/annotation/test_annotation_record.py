import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseunet.annotation.selection.fixed import fixed_interval_slices
from sparseunet.data.annotation_record import (
    AnnotatedView,
    AnnotationRecord,
    AnnotationRecords,
    read_annotation_records,
    write_annotation_records,
)
from sparseunet.errors import RequestError

RECORD = AnnotationRecord(
    axis=0,
    num_slices=10,
    annotated_slices=(1, 5, 8),
    reviewed_empty_slices=(1,),
    annotated_classes=("liver", "tumour"),
    minutes=12.5,
)


@given(st.integers(1, 500), st.data())
def test_fixed_slices_lie_in_the_middle_of_equal_parts(num_slices, data):
    count = data.draw(st.integers(1, num_slices))

    slices = fixed_interval_slices(num_slices, count=count)

    assert len(slices) == count == len(set(slices))
    assert list(slices) == sorted(slices)
    part = num_slices / count
    for index, chosen in enumerate(slices):
        assert index * part <= chosen + 0.5 <= (index + 1) * part + 0.5
        assert chosen == int((index + 0.5) * num_slices / count)
    mirrored = num_slices - 1 - slices[-1]
    assert abs(slices[0] - mirrored) <= 1


def test_fixed_slices_are_the_known_ones():
    assert fixed_interval_slices(35, count=4) == (4, 13, 21, 30)
    assert fixed_interval_slices(3, count=3) == (0, 1, 2)
    assert fixed_interval_slices(7, count=0) == ()


@pytest.mark.parametrize("count", [-1, 6])
def test_more_slices_than_there_are_cannot_be_chosen(count):
    with pytest.raises(ValueError, match="of 5 slices"):
        fixed_interval_slices(5, count=count)


def test_records_read_back_are_those_written(tmp_path):
    records = AnnotationRecords(
        cases={"Fälle (1) 肝 'a' & \"b\"": RECORD},
        selector="fixed",
        density=0.3,
        seed=7,
        provenance={"simulated_from": "Dataset001_Liver"},
    )

    write_annotation_records(tmp_path / "annotation.json", records)

    assert read_annotation_records(tmp_path / "annotation.json") == records
    assert RECORD.density == 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotated_slices": (5, 1)}, "sorted"),
        ({"annotated_slices": (1, 1, 5)}, "sorted"),
        ({"annotated_slices": (1, 10)}, "0 to 9"),
        ({"reviewed_empty_slices": (2,)}, "not among"),
        ({"axis": 3}, "axis"),
    ],
)
def test_a_record_that_contradicts_itself_cannot_be_made(change, message):
    fields = {
        "axis": 0,
        "num_slices": 10,
        "annotated_slices": (1, 5),
        "reviewed_empty_slices": (1,),
        "annotated_classes": ("liver",),
    }

    with pytest.raises(ValueError, match=message):
        AnnotationRecord(**{**fields, **change})


def test_a_wrong_file_is_refused_with_every_wrong_field(tmp_path):
    path = tmp_path / "annotation.json"
    write_annotation_records(path, AnnotationRecords(cases={"first": RECORD, "second": RECORD}))
    content = json.loads(path.read_text())
    content["cases"]["first"]["axis"] = "up"
    content["cases"]["second"]["annotated_slices"] = [99]
    path.write_text(json.dumps(content))

    with pytest.raises(RequestError) as caught:
        read_annotation_records(path)

    for part in (str(path), "first", "axis", "second", "0 to 9"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "content", [[], {}, {"kind": "plan"}, {"kind": "annotation", "version": 2}]
)
def test_a_file_of_another_kind_or_version_is_refused(tmp_path, content):
    path = tmp_path / "annotation.json"
    path.write_text(json.dumps(content))

    with pytest.raises(RequestError, match="expected kind 'annotation', version 1"):
        read_annotation_records(path)


def test_a_case_annotated_across_several_axes_has_several_views(tmp_path):
    across_x = AnnotatedView(axis=2, num_slices=4, annotated_slices=(0, 3))
    record = replace(RECORD, further_views=(across_x,))
    path = tmp_path / "annotation.json"

    write_annotation_records(path, AnnotationRecords(cases={"a": record}))

    (read,) = read_annotation_records(path).cases.values()
    assert read == record
    assert [view.axis for view in read.views] == [0, 2]
    assert read.views[0].reviewed_empty_slices == (1,)
    assert [view.axis for view in RECORD.views] == [0]
    with pytest.raises(ValueError, match="Every axis needs one view"):
        replace(RECORD, further_views=(replace(across_x, axis=0),))


def test_records_written_before_there_were_several_views_are_read(tmp_path):
    path = tmp_path / "annotation.json"
    write_annotation_records(path, AnnotationRecords(cases={"a": RECORD}))
    content = json.loads(path.read_text())
    del content["cases"]["a"]["further_views"]
    path.write_text(json.dumps(content))

    assert read_annotation_records(path).cases == {"a": RECORD}
