import contextlib
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from phantoms import blobs, intensities

from sparseunet.artifacts import unfinished_prefix
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError
from sparseunet.fingerprint.fingerprint import IntensityProperties
from sparseunet.planning.plan import Configuration, NetworkPlan, Plan
from sparseunet.preprocessing.dataset import preprocess_dataset
from sparseunet.preprocessing.store import CaseStore

LABELS = LabelSchema(classes={"background": 0, "a": 1, "b": 2}, regions={}, ignore=3)
SHAPE = (10, 16, 18)
CONFIGURATION = Configuration(
    name="3d_fullres",
    data_identifier="nnUNetPlans_3d_fullres",
    batch_size=2,
    patch_size=(8, 8, 8),
    median_shape=(10.0, 16.0, 18.0),
    spacing_mm=(2.0, 1.0, 1.0),
    normalization=("zscore",),
    use_mask_for_norm=(False,),
    network=NetworkPlan(
        architecture="plain_unet",
        features_per_stage=(8,),
        kernel_sizes=((3, 3, 3),),
        strides=((1, 1, 1),),
        encoder_depths=(2,),
        decoder_depths=(),
    ),
    batch_dice=False,
)
PLAN = Plan(
    dataset_name="Dataset001_Phantom",
    plans_name="nnUNetPlans",
    planner="default",
    original_median_spacing_mm=(2.0, 1.0, 1.0),
    original_median_shape=SHAPE,
    image_reader_writer="SimpleITKIO",
    transpose_forward=(0, 1, 2),
    transpose_backward=(0, 1, 2),
    intensities=(
        IntensityProperties(
            mean=0.0,
            median=0.0,
            std=1.0,
            min=0.0,
            max=1.0,
            percentile_00_5=0.0,
            percentile_99_5=1.0,
        ),
    ),
    configurations={"3d_fullres": CONFIGURATION},
)


def write_dataset(folder, *, num_cases=4, annotated=(4,), spacing_mm=(2.0, 1.0, 1.0)):
    geometry = Geometry(shape=SHAPE, spacing_mm=spacing_mm)
    cases = []
    for number in range(num_cases):
        name = f"case_{number}"
        labels_ZYX = blobs(SHAPE, seed=number)
        image = folder / "imagesTr" / f"{name}_0000.nii.gz"
        label = folder / "labelsTr" / f"{name}.nii.gz"
        write_image(image, intensities(labels_ZYX, seed=number) + 100, geometry)
        sparse_ZYX = np.full(SHAPE, 3, np.uint8)
        sparse_ZYX[list(annotated)] = labels_ZYX[list(annotated)]
        write_label_map(label, sparse_ZYX, geometry)
        cases.append(Case(name=name, images=(image,), label=label))
    return Dataset(
        folder=folder,
        name="Dataset001_Phantom",
        channel_names=("MR",),
        labels=LABELS,
        file_ending=".nii.gz",
        cases=tuple(cases),
        description={},
    )


def preprocess(dataset, folder, *, num_workers=1, plan=PLAN, configuration=CONFIGURATION):
    (summary,) = preprocess_dataset(
        dataset,
        plan=plan,
        configurations=[replace(configuration, data_identifier=folder.name)],
        folder=folder.parent,
        num_workers=num_workers,
    )
    return summary


def modified(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}


def test_every_case_is_stored_and_slices_are_counted(tmp_path):
    dataset = write_dataset(tmp_path / "raw", annotated=(1, 4), spacing_mm=(1.0, 1.0, 1.0))
    summary = preprocess(dataset, tmp_path / "out")
    assert CaseStore(tmp_path / "out").cases == ("case_0", "case_1", "case_2", "case_3")
    assert (summary.num_cases, summary.num_unchanged) == (4, 0)
    assert (summary.num_annotated_cases, summary.num_dense_cases) == (4, 0)
    assert summary.annotated_slices_before == (8, 64, 72)
    assert summary.annotated_slices_after == (8, 64, 72)
    assert summary.annotated_share == pytest.approx(2 / 5)


def test_unchanged_cases_are_skipped_and_changed_ones_redone(tmp_path):
    dataset = write_dataset(tmp_path / "raw")
    preprocess(dataset, tmp_path / "out")
    first = modified(tmp_path / "out")
    assert preprocess(dataset, tmp_path / "out").num_unchanged == 4
    assert modified(tmp_path / "out") == first
    labels_ZYX = blobs(SHAPE, seed=77)
    geometry = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0))
    write_label_map(dataset.cases[2].label, labels_ZYX, geometry)
    assert preprocess(dataset, tmp_path / "out").num_unchanged == 3
    stored = CaseStore(tmp_path / "out").read("case_2")
    assert np.array_equal(stored.annotation.labels_ZYX, labels_ZYX)
    assert {name for name, time in modified(tmp_path / "out").items() if time != first[name]} == {
        "case_2.json"
    }


def test_other_settings_make_every_case_anew(tmp_path):
    dataset = write_dataset(tmp_path / "raw")
    preprocess(dataset, tmp_path / "out")
    finer = replace(CONFIGURATION, spacing_mm=(2.0, 0.5, 1.0))
    assert preprocess(dataset, tmp_path / "out", configuration=finer).num_unchanged == 0
    assert CaseStore(tmp_path / "out").manifest("case_0").shape == (10, 32, 18)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    dataset = write_dataset(tmp_path / "raw")
    preprocess(dataset, tmp_path / "out")
    (tmp_path / "out" / "case_1.json").unlink()
    image = tmp_path / "out" / "case_3.image.b2nd"
    image.write_bytes(image.read_bytes()[:100])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    prefix = unfinished_prefix().replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    half_written = tmp_path / "out" / f"{prefix}x"
    half_written.mkdir()
    (half_written / "case_2.image.b2nd").write_bytes(b"half")
    assert preprocess(dataset, tmp_path / "out").num_unchanged == 2
    assert not half_written.exists()
    for name in CaseStore(tmp_path / "out").cases:
        assert np.isfinite(CaseStore(tmp_path / "out").read(name).image_CZYX).all()


def test_all_failing_cases_are_named_together_and_the_others_are_done(tmp_path):
    dataset = write_dataset(tmp_path / "raw")
    whole = dataset.cases[1].images[0].read_bytes()
    dataset.cases[1].images[0].write_bytes(whole[: len(whole) // 2])
    other = Geometry(shape=(10, 16, 19), spacing_mm=(2.0, 1.0, 1.0))
    write_label_map(dataset.cases[3].label, np.zeros(other.shape, np.uint8), other)
    with pytest.raises(DatasetError) as caught:
        preprocess(dataset, tmp_path / "out")
    assert len(caught.value.problems) == 2
    assert "case_1" in str(caught.value)
    assert "case_3" in str(caught.value)
    assert CaseStore(tmp_path / "out").cases == ("case_0", "case_2")


def test_a_case_that_does_not_fit_the_plan_is_named(tmp_path):
    dataset = write_dataset(tmp_path / "raw", num_cases=1)
    two = replace(CONFIGURATION, normalization=("zscore",) * 2, use_mask_for_norm=(False,) * 2)
    with pytest.raises(DatasetError, match=r"case_0 .*1 channels; expected 2"):
        preprocess(dataset, tmp_path / "out", configuration=two)


def test_a_case_that_left_the_dataset_leaves_the_store(tmp_path):
    dataset = write_dataset(tmp_path / "raw")
    preprocess(dataset, tmp_path / "out")
    fewer = replace(dataset, cases=dataset.cases[:2])
    preprocess(fewer, tmp_path / "out")
    assert CaseStore(tmp_path / "out").cases == ("case_0", "case_1")
    assert not list((tmp_path / "out").glob("case_3*"))


def test_unlabelled_cases_are_stored_without_annotation(tmp_path):
    dataset = write_dataset(tmp_path / "raw", num_cases=2)
    unlabelled = replace(dataset, cases=tuple(replace(case, label=None) for case in dataset.cases))
    summary = preprocess(unlabelled, tmp_path / "out")
    assert (summary.num_cases, summary.num_annotated_cases, summary.annotated_share) == (2, 0, 0.0)
    assert CaseStore(tmp_path / "out").read("case_0").annotation is None


def test_the_number_of_workers_changes_no_byte(tmp_path):
    dataset = write_dataset(tmp_path / "raw", spacing_mm=(1.3, 1.2, 0.9))
    preprocess(dataset, tmp_path / "one", num_workers=1)
    preprocess(dataset, tmp_path / "three", num_workers=3)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "three").iterdir())
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


def stored_bytes(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_changed_label_leaves_the_image_untouched(tmp_path):
    dataset = write_dataset(tmp_path / "raw")
    finer = replace(CONFIGURATION, spacing_mm=(2.0, 0.5, 1.0))
    preprocess(dataset, tmp_path / "out", configuration=finer)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    geometry = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0))
    write_label_map(dataset.cases[2].label, blobs(SHAPE, seed=77), geometry)
    assert preprocess(dataset, tmp_path / "out", configuration=finer).num_unchanged == 3
    changed = {
        path.name
        for path, time in before.items()
        if not path.exists() or time != path.stat().st_mtime_ns
    }
    annotation = {"case_2.labels.b2nd", "case_2.source.b2nd", "case_2.npz"}
    assert changed == {"case_2.json", *annotation}
    preprocess(dataset, tmp_path / "fresh", configuration=finer)
    assert stored_bytes(tmp_path / "out") == stored_bytes(tmp_path / "fresh")


def test_a_label_that_comes_or_goes_leaves_the_image_untouched(tmp_path):
    dataset = write_dataset(tmp_path / "raw", num_cases=2)
    without = replace(dataset, cases=(replace(dataset.cases[0], label=None), dataset.cases[1]))
    preprocess(without, tmp_path / "out")
    image = tmp_path / "out" / "case_0.image.b2nd"
    written = image.stat().st_mtime_ns
    preprocess(dataset, tmp_path / "out")
    assert CaseStore(tmp_path / "out").manifest("case_0").has_annotation
    preprocess(without, tmp_path / "out")
    assert not CaseStore(tmp_path / "out").manifest("case_0").has_annotation
    assert image.stat().st_mtime_ns == written
    preprocess(without, tmp_path / "fresh")
    assert stored_bytes(tmp_path / "out") == stored_bytes(tmp_path / "fresh")


def test_another_label_schema_makes_only_annotations_anew(tmp_path):
    dataset = write_dataset(tmp_path / "raw", num_cases=2)
    preprocess(dataset, tmp_path / "out")
    image = tmp_path / "out" / "case_0.image.b2nd"
    written = image.stat().st_mtime_ns
    classes = {**LABELS.classes, "third": 3}
    dense = replace(dataset, labels=replace(LABELS, classes=classes, ignore=None))
    assert preprocess(dense, tmp_path / "out").num_unchanged == 0
    assert image.stat().st_mtime_ns == written
    assert CaseStore(tmp_path / "out").manifest("case_0").is_dense


@pytest.mark.parametrize("scheme", ["zscore", "ct"])
def test_other_statistics_matter_where_they_are_used(tmp_path, scheme):
    dataset = write_dataset(tmp_path / "raw", num_cases=2)
    chosen = replace(CONFIGURATION, normalization=(scheme,))
    preprocess(dataset, tmp_path / "out", configuration=chosen)
    other = replace(PLAN, intensities=(replace(PLAN.intensities[0], mean=77.0),))
    again = preprocess(dataset, tmp_path / "out", plan=other, configuration=chosen)
    assert again.num_unchanged == (0 if scheme == "ct" else 2)


def test_several_configurations_give_what_each_gives_alone(tmp_path):
    dataset = write_dataset(tmp_path / "raw")
    flat = replace(CONFIGURATION, name="2d", data_identifier="flat", spacing_mm=(0.5, 1.5))
    flat = replace(flat, patch_size=(16, 16))
    deep = replace(CONFIGURATION, data_identifier="deep", spacing_mm=(1.5, 1.0, 2.0))
    for folder, configurations in (("both", [flat, deep]), ("each", [flat]), ("each", [deep])):
        preprocess_dataset(
            dataset,
            plan=PLAN,
            configurations=configurations,
            folder=tmp_path / folder,
            num_workers=2,
        )
    assert stored_bytes(tmp_path / "both") == stored_bytes(tmp_path / "each")


def children_of(process):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process and fields[0] != "Z":
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_a_case_whose_process_is_killed_again_and_again_is_named_with_the_cause(tmp_path):
    dataset = write_dataset(tmp_path / "raw", num_cases=2)
    stop = threading.Event()

    def kill_every_worker():
        while not stop.is_set():
            for worker in children_of(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill_every_worker)
    killer.start()
    try:
        with pytest.raises(DatasetError) as caught:
            preprocess(dataset, tmp_path / "out", num_workers=2)
    finally:
        stop.set()
        killer.join()
    assert [problem.case for problem in caught.value.problems] == ["case_0", "case_1"]
    assert all("SIGKILL" in problem.found for problem in caught.value.problems)
    assert preprocess(dataset, tmp_path / "out").num_cases == 2
