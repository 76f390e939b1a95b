"""Dense labels, one slice in ten, or scribbles: the same geometry, plans and images."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from sparseunet.artifacts import read_json, write_json
from sparseunet.cli.main import main

NUM_CASES = 5
KINDS = {"dense": "Dataset001_Dense", "tenth": "Dataset002_Tenth", "scribbles": "Dataset003_Any"}
GEOMETRY_KEYS = ("spacings", "shapes_after_crop", "median_relative_size_after_cropping")
LABEL_KEYS = ("foreground_intensity_properties_per_channel", "sparseunet", "dataset_name")


@pytest.fixture(scope="module")
def preprocessed(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    workspace, source = tmp_path_factory.mktemp("workspace"), data_root / "Dataset027_ACDC"
    for kind, labels, description in (
        ("dense", "labelsTr", "dataset.json"),
        ("scribbles", "labelsTr_scribble", "dataset_scribble.json"),
    ):
        folder = workspace / "raw" / KINDS[kind]
        for target, origin in (("imagesTr", "imagesTr"), ("labelsTr", labels)):
            (folder / target).mkdir(parents=True)
            for path in sorted((source / origin).iterdir())[:NUM_CASES]:
                shutil.copy(path, folder / target)
        content = read_json(source / description)
        write_json(folder / "dataset.json", content | {"numTraining": NUM_CASES})
    command = ["--workspace", str(workspace)]
    simulate = ["simulate_annotation", "-d", "1", "-o", KINDS["tenth"], "--density", "0.1"]
    assert main([*command, *simulate]) == 0
    prepare = ["plan_and_preprocess", "-d", "1", "2", "3", "-c", "3d_fullres", "-np", "2"]
    assert main([*command, *prepare]) == 0
    return {kind: workspace / "preprocessed" / name for kind, name in KINDS.items()}


def without(content: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}


@pytest.mark.parametrize("kind", ["tenth", "scribbles"])
def test_the_fingerprint_differs_in_the_intensities_of_the_foreground_only(
    preprocessed: dict[str, Path], kind: str
) -> None:
    dense, sparse = (
        read_json(preprocessed[name] / "dataset_fingerprint.json") for name in ("dense", kind)
    )
    assert without(sparse, LABEL_KEYS) == without(dense, LABEL_KEYS)
    assert set(without(dense, LABEL_KEYS)) == set(GEOMETRY_KEYS)
    behind = "num_foreground_voxels"
    assert 100 < sparse["sparseunet"][behind] < 0.5 * dense["sparseunet"][behind]
    assert sparse["sparseunet"]["intensity_source"] == "foreground"
    (measured,), (complete,) = (
        item["foreground_intensity_properties_per_channel"].values() for item in (sparse, dense)
    )
    assert measured != complete
    assert measured["mean"] == pytest.approx(complete["mean"], abs=0.5 * complete["std"])


@pytest.mark.parametrize("kind", ["tenth", "scribbles"])
def test_the_plan_differs_in_the_intensities_of_the_foreground_only(
    preprocessed: dict[str, Path], kind: str
) -> None:
    dense, sparse = (read_json(preprocessed[name] / "nnUNetPlans.json") for name in ("dense", kind))
    assert without(sparse, LABEL_KEYS) == without(dense, LABEL_KEYS)


@pytest.mark.parametrize("kind", ["tenth", "scribbles"])
def test_the_preprocessed_images_are_the_same_byte_for_byte(
    preprocessed: dict[str, Path], kind: str
) -> None:
    dense, sparse = (preprocessed[name] / "nnUNetPlans_3d_fullres" for name in ("dense", kind))
    images = sorted(dense.glob("*.image.b2nd"))
    assert len(images) == NUM_CASES
    for image in images:
        assert image.read_bytes() == (sparse / image.name).read_bytes()
        inside = image.name.replace("image", "inside")
        assert (dense / inside).exists() == (sparse / inside).exists()
