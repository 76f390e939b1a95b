import json
import re

import numpy as np
import pytest
from phantoms import blobs, box, intensities

from sparseunet.cli.main import main
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.evaluation.evaluate import evaluate
from sparseunet.report.worst_cases import find_worst_slice, rank_cases, write_worst_cases

SHAPE = (6, 30, 24)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(3.0, 1.0, 1.0))
LABELS = LabelSchema(classes={"background": 0, "organ <1>": 1, "other": 2}, regions={})


def _folders(tmp_path, *, wrong_slices, reference=None):
    """One case per entry; in each of its slices a third of the plane is wrong."""
    reference = blobs(SHAPE, seed=1) if reference is None else reference
    for index, wrong in enumerate(wrong_slices):
        prediction = np.where(reference == 3, 0, reference)
        for slice_ in wrong:
            prediction[slice_, :10] = 2 - prediction[slice_, :10]
        write_label_map(tmp_path / "references" / f"case_{index}.nii.gz", reference, GEOMETRY)
        write_label_map(tmp_path / "predictions" / f"case_{index}.nii.gz", prediction, GEOMETRY)
        scan = intensities(reference, seed=index)
        write_image(tmp_path / "images" / f"case_{index}_0000.nii.gz", scan, GEOMETRY)
    return tmp_path / "references", tmp_path / "predictions"


def _scores(folders, labels=LABELS):
    return evaluate(*folders, labels=labels, file_ending=".nii.gz", num_workers=1)


def test_the_worst_case_comes_first_and_its_worst_slice_is_found(tmp_path):
    scores = _scores(_folders(tmp_path, wrong_slices=[[2], [0, 1, 4], []]))

    ranked = rank_cases(scores)

    assert [case.name for case in ranked] == ["case_1", "case_0", "case_2"]
    worst = find_worst_slice(ranked[1], labels=LABELS)
    assert (worst.axis, worst.index) == (0, 2)
    assert worst.num_wrong == worst.wrong_YX.sum() > 0


def test_nothing_is_wrong_where_nobody_annotated(tmp_path):
    reference = blobs(SHAPE, seed=1)
    reference[1:5] = 3
    labels = LabelSchema(classes=LABELS.classes, regions={}, ignore=3)
    folders = _folders(tmp_path, wrong_slices=[[2, 5]], reference=reference)

    (case,) = rank_cases(_scores(folders, labels))

    assert find_worst_slice(case, labels=labels).index == 5


def test_a_class_that_is_not_scored_is_not_looked_at(tmp_path):
    references, predictions = _folders(tmp_path, wrong_slices=[[]])
    prediction = blobs(SHAPE, seed=1)
    prediction[2][prediction[2] == 2] = 0
    prediction[4, 0, 0] = 0 if prediction[4, 0, 0] == 1 else 1
    write_label_map(predictions / "case_0.nii.gz", prediction, GEOMETRY)
    labels = LabelSchema(classes={"background": 0, "organ": 1}, regions={})

    (case,) = rank_cases(_scores((references, predictions), labels))

    worst = find_worst_slice(case, labels=labels)
    assert (worst.index, worst.num_wrong) == (4, 1)


def test_the_page_needs_nothing_beside_it(tmp_path):
    scores = _scores(_folders(tmp_path, wrong_slices=[[2], [0, 1], []]))
    page = tmp_path / "page.html"

    write_worst_cases(page, scores, labels=LABELS)

    text = page.read_text()
    assert "organ &lt;1&gt;" in text
    assert "<1>" not in text
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "http" not in text
    assert "The 2 worst cases" in text  # the third is without fault
    assert len(text) < 500_000


def test_a_faultless_set_has_no_worst_case(tmp_path):
    page = tmp_path / "page.html"

    write_worst_cases(page, _scores(_folders(tmp_path, wrong_slices=[[]])), labels=LABELS)

    assert "<img" not in page.read_text()


@pytest.mark.parametrize("with_images", [False, True])
def test_the_command_writes_the_page(tmp_path, capsys, with_images):
    references, predictions = _folders(tmp_path, wrong_slices=[[2], [0, 1]])
    page = tmp_path / "page.html"
    words = ["evaluate", str(references), str(predictions), "-l", "1", "2", "--worst", "1"]
    words += ["--html", str(page)]
    if with_images:
        words += ["--images", str(tmp_path / "images")]

    assert main(words) == 0

    assert "The 1 worst" in page.read_text()
    assert json.loads((predictions / "summary.json").read_text())["sparseunet"]["num_cases"] == 2
    (tmp_path / "images" / "case_1_0000.nii.gz").unlink()
    assert main(words) == (2 if with_images else 0)
    assert ("case_1_0000.nii.gz" in capsys.readouterr().err) == with_images


def test_a_scan_on_another_grid_is_refused(tmp_path, capsys):
    references, predictions = _folders(tmp_path, wrong_slices=[[2]])
    other = Geometry(shape=(6, 30, 25), spacing_mm=(3.0, 1.0, 1.0))
    scan = box(other.shape, start=(0, 0, 0), stop=(2, 2, 2)).astype(np.float32)
    write_image(tmp_path / "images" / "case_0_0000.nii.gz", scan, other)
    words = ["evaluate", str(references), str(predictions), "-l", "1", "2"]
    words += ["--html", str(tmp_path / "page.html"), "--images", str(tmp_path / "images")]

    assert main(words) == 2
    assert "(6, 30, 25)" in capsys.readouterr().err
