"""A dataset without labels, exported, and where its drawings go."""

import json

import pytest
from drawn_scans import DENSE, GEOMETRY, PLAN, VALUES
from phantoms import intensities

from sparseunet.annotation.exchange.export import export_annotation
from sparseunet.data.io import write_image
from sparseunet.data.load import load_dataset


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "raw" / "Dataset001_Scans"
    for index, name in enumerate(DENSE):
        image = intensities(DENSE[name], seed=index)
        write_image(folder / "imagesTr" / f"{name}_0000.nii.gz", image, GEOMETRY)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, **VALUES},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return load_dataset(folder, needs_labels=False)


@pytest.fixture
def export(scans, tmp_path):
    folder = tmp_path / "export"
    export_annotation(scans, plan=PLAN, tool="nifti", folder=folder)
    return folder


@pytest.fixture
def target(tmp_path):
    return tmp_path / "raw" / "Dataset002_Drawn"
