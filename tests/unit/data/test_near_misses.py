"""Names that nearly mean something are pointed out; those that do, and far ones, are not."""

import pytest

from sparseunet.data.labels import LabelSchema
from sparseunet.data.near_misses import find_near_misses


def schema(*names: str, ignore: int | None = None) -> LabelSchema:
    return LabelSchema(
        classes={name: value for value, name in enumerate(["background", *names])},
        regions={},
        ignore=ignore,
    )


@pytest.mark.parametrize("name", ["Ignore", "IGNORE_LABEL", "unlabelled", "Unlabeled", "void"])
def test_the_highest_class_may_be_meant_as_the_ignore_label(name: str) -> None:
    (problem,) = find_near_misses(["T1"], schema("organ", name))
    assert repr(name) in problem.found
    assert '"ignore"' in problem.fix
    assert not find_near_misses(["T1"], schema(name, "organ")), "it is not the highest"
    assert not find_near_misses(["T1"], schema("organ", name, ignore=3)), "there is one"


@pytest.mark.parametrize("name", ["CT_arterial", "CT ", "low dose ct", "ct-1"])
def test_a_channel_may_be_meant_as_ct(name: str) -> None:
    (problem,) = find_near_misses([name, "PET"], schema("organ"))
    assert repr(name) in problem.found


@pytest.mark.parametrize("name", ["CT", "ct", "T1", "ADC", "reactor", "octane"])
def test_other_channels_are_left_alone(name: str) -> None:
    assert find_near_misses([name], schema("organ")) == []
