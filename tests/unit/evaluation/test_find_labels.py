"""The ending of label maps is told by the files, among those that can be read."""

import pytest

from sparseunet.data.formats import FORMATS
from sparseunet.errors import RequestError
from sparseunet.evaluation.find_labels import find_labels


def _ending(folder):
    return find_labels([folder], label_maps=folder, dataset_json=None, values=[1], ignore=None)[1]


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_that_can_be_read_is_found(tmp_path, ending):
    (tmp_path / f"case{ending}").touch()
    assert _ending(tmp_path) == ending


def test_a_format_that_cannot_be_read_is_none(tmp_path):
    (tmp_path / "case.gipl").touch()
    with pytest.raises(RequestError, match=r"label maps of 0 kinds \(none\)"):
        _ending(tmp_path)
