"""Scans of one patient, from dataset.json to the folds."""

import logging

from sparseunet.artifacts import read_json, write_json
from sparseunet.cli.main import main
from sparseunet.data.synthetic import make_dataset


def test_folds_follow_the_groups_of_dataset_json_and_old_folds_are_reported(tmp_path, caplog):
    raw = tmp_path / "raw" / "Dataset001_Visits"
    make_dataset(raw, num_training=6, num_test=1)
    for number in range(6):
        name = f"patient{number // 2}_visit{number % 2}"
        for path in raw.glob(f"*Tr/scan_{number:03d}*"):
            path.rename(path.with_name(path.name.replace(f"scan_{number:03d}", name)))
    splits_file = tmp_path / "preprocessed" / raw.name / "splits_final.json"

    def prepare():
        caplog.clear()
        words = ["plan_and_preprocess", "-d", "1", "-c", "2d", "-np", "1"]
        with caplog.at_level(logging.WARNING):
            assert main(["--workspace", str(tmp_path), *words]) == 0
        return [{name[:8] for name in split["val"]} for split in read_json(splits_file)]

    assert len(prepare()) == 5  # nnU-Net's folds: patients on both sides
    description = read_json(raw / "dataset.json")
    write_json(raw / "dataset.json", description | {"groups": "(.+)_visit"})
    assert len(prepare()) == 5
    assert "trains and validates on the same group" in caplog.text
    splits_file.unlink()
    assert sorted(map(sorted, prepare())) == [["patient0"], ["patient1"], ["patient2"]]
    assert "same group" not in caplog.text
    for split in read_json(splits_file):
        assert len(split["val"]) == 2
