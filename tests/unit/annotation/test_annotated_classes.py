"""annotation.json says in which cases some classes were not looked for."""

from dataclasses import replace

import numpy as np
import pytest

from sparseunet.annotation.exchange.merge import merge_records
from sparseunet.data.annotated_classes import read_annotated_classes
from sparseunet.data.annotation import Annotation
from sparseunet.data.annotation_record import (
    AnnotationRecord,
    AnnotationRecords,
    write_annotation_records,
)
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError, RequestError

CLASSES = LabelSchema(classes={"background": 0, "liver": 1, "tumour": 2}, regions={}, ignore=3)
REGIONS = LabelSchema(
    classes={"background": 0}, regions={"whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2)
)
RECORD = AnnotationRecord(
    axis=0, num_slices=4, annotated_slices=(0, 1, 2, 3), annotated_classes=("liver", "tumour")
)


def _dataset(folder, labels=CLASSES):
    return Dataset(
        folder=folder,
        name="Dataset001_Abdomen",
        channel_names=("CT",),
        labels=labels,
        file_ending=".nii.gz",
        cases=tuple(Case(name=name, images=(), label=None) for name in ("a", "b", "c")),
        description={},
    )


def _write(folder, **classes):
    cases = {name: replace(RECORD, annotated_classes=some) for name, some in classes.items()}
    write_annotation_records(folder / "annotation.json", AnnotationRecords(cases=cases))


def test_without_annotation_json_every_class_was_looked_for(tmp_path):
    assert read_annotated_classes(_dataset(tmp_path)) == {}


def test_cases_with_some_classes_are_named_and_all_others_are_not(tmp_path):
    _write(tmp_path, a=("liver",), b=("tumour", "liver"), gone=("liver",))
    assert read_annotated_classes(_dataset(tmp_path)) == {"a": ("liver",)}


def test_regions_are_looked_for_by_name(tmp_path):
    _write(tmp_path, a=("whole",), b=("whole", "core"))
    assert read_annotated_classes(_dataset(tmp_path, REGIONS)) == {"a": ("whole",)}


def test_names_that_are_no_class_are_refused_all_at_once(tmp_path):
    _write(tmp_path, a=("Liver",), b=("background", "liver"), c=("liver",))
    with pytest.raises(DatasetError) as refusal:
        read_annotated_classes(_dataset(tmp_path))
    problems = refusal.value.problems
    assert [problem.case for problem in problems] == ["a", "b"]
    assert problems[0].found == "annotated_classes Liver"
    assert problems[0].expected == "some of liver, tumour"
    assert "without background" in problems[1].fix


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "annotation.json").write_text("{", encoding="utf-8")
    with pytest.raises(RequestError, match=r"annotation\.json is not valid JSON"):
        read_annotated_classes(_dataset(tmp_path))


def test_a_later_round_does_not_vouch_for_classes_on_slices_of_an_earlier_one():
    merged = Annotation.from_label_map(np.zeros((4, 2, 2), np.uint8), ignore=None)
    earlier = replace(RECORD, annotated_slices=(1,), annotated_classes=("liver",))
    new = replace(RECORD, annotated_slices=(3,))
    record = merge_records(earlier, new, merged=merged, minutes=None)
    assert record.annotated_slices == (1, 3)
    assert record.annotated_classes == ("liver",)
    first = merge_records(None, new, merged=merged, minutes=None)
    assert first.annotated_classes == ("liver", "tumour")
