"""A preprocessed case knows which classes nobody looked for in it."""

from dataclasses import replace

import numpy as np
import pytest
from phantoms import blobs, intensities

from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.dataset import Case, Dataset
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image, write_label_map
from sparseunet.data.labels import LabelSchema
from sparseunet.errors import DatasetError
from sparseunet.fingerprint.fingerprint import IntensityProperties
from sparseunet.planning.plan import Configuration, NetworkPlan, Plan
from sparseunet.preprocessing.annotated_outputs import annotated_outputs, require_only_annotated
from sparseunet.preprocessing.dataset import preprocess_dataset
from sparseunet.preprocessing.store import CaseStore
from sparseunet.training.loader import BatchDataset, BatchRules, summarise_cases

LABELS = LabelSchema(classes={"background": 0, "b": 2, "a": 1}, regions={}, ignore=3)
REGIONS = LabelSchema(
    classes={"background": 0},
    regions={"whole": (1, 2), "core": (2,)},
    regions_class_order=(1, 2),
)
SHAPE = (8, 12, 12)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0))
CONFIGURATION = Configuration(
    name="3d_fullres",
    data_identifier="out",
    batch_size=4,
    patch_size=(8, 8, 8),
    median_shape=(8.0, 12.0, 12.0),
    spacing_mm=(1.0, 1.0, 1.0),
    normalization=("zscore",),
    use_mask_for_norm=(False,),
    network=NetworkPlan(
        architecture="plain_unet",
        features_per_stage=(4,),
        kernel_sizes=((3, 3, 3),),
        strides=((1, 1, 1),),
        encoder_depths=(1,),
        decoder_depths=(),
    ),
    batch_dice=False,
)
PLAN = Plan(
    dataset_name="Dataset001_Phantom",
    plans_name="nnUNetPlans",
    planner="default",
    original_median_spacing_mm=(1.0, 1.0, 1.0),
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


@pytest.fixture
def dataset(tmp_path):
    """Three cases; the label map of the first holds class a alone."""
    cases = []
    for number in range(3):
        labels_ZYX = blobs(SHAPE, seed=number, num_classes=2 if number else 1)
        image = tmp_path / "raw" / "imagesTr" / f"case_{number}_0000.nii.gz"
        label = tmp_path / "raw" / "labelsTr" / f"case_{number}.nii.gz"
        write_image(image, intensities(labels_ZYX, seed=number), GEOMETRY)
        write_label_map(label, labels_ZYX, GEOMETRY)
        cases.append(Case(name=f"case_{number}", images=(image,), label=label))
    return Dataset(
        folder=tmp_path / "raw",
        name="Dataset001_Phantom",
        channel_names=("MR",),
        labels=LABELS,
        file_ending=".nii.gz",
        cases=tuple(cases),
        description={},
    )


def _preprocess(dataset, folder, **classes):
    (summary,) = preprocess_dataset(
        dataset,
        plan=PLAN,
        configurations=[replace(CONFIGURATION, data_identifier=folder.name)],
        folder=folder.parent,
        num_workers=1,
        **classes,
    )
    return summary, CaseStore(folder)


def test_the_manifest_says_which_outputs_were_annotated(dataset, tmp_path):
    some = {"case_0": ("a",), "case_1": ("a", "b")}
    summary, store = _preprocess(dataset, tmp_path / "out", annotated_classes=some)
    known = [store.manifest(name).annotated_outputs for name in store.cases]
    assert known == [(True, True, False), None, None]
    assert summary.num_partly_annotated_cases == 1


def test_with_every_class_annotated_everything_is_as_without_this_knowledge(dataset, tmp_path):
    _, plain = _preprocess(dataset, tmp_path / "plain")
    every = dict.fromkeys(plain.cases, ("a", "b"))
    summary, told = _preprocess(dataset, tmp_path / "told", annotated_classes=every)
    assert summary.num_partly_annotated_cases == 0
    assert told.content_hash() == plain.content_hash()
    for name in plain.cases:
        assert told.manifest(name) == plain.manifest(name)


def test_other_annotated_classes_renew_the_case_but_not_its_image(dataset, tmp_path):
    folder = tmp_path / "out"
    _, before = _preprocess(dataset, folder)
    image = folder / "case_0.image.b2nd"
    written, first_hash = image.stat().st_mtime_ns, before.content_hash()
    some = {"case_0": ("a",)}
    summary, after = _preprocess(dataset, folder, annotated_classes=some)
    assert summary.num_unchanged == 2
    assert after.manifest("case_0").annotated_outputs == (True, True, False)
    assert image.stat().st_mtime_ns == written
    assert after.content_hash() != first_hash
    assert _preprocess(dataset, folder, annotated_classes=some)[0].num_unchanged == 3
    summary, again = _preprocess(dataset, folder)
    assert summary.num_unchanged == 2
    assert again.content_hash() == first_hash


def test_labels_of_a_class_nobody_looked_for_are_refused(dataset, tmp_path):
    with pytest.raises(DatasetError) as refusal:
        _preprocess(dataset, tmp_path / "out", annotated_classes={"case_1": ("a",)})
    (problem,) = refusal.value.problems
    assert problem.case == "case_1"
    assert problem.found == "labels of b"
    assert problem.expected.startswith("labels of a alone")
    assert "annotated_classes" in problem.fix


def test_annotated_voxels_without_any_annotated_class_are_refused(dataset, tmp_path):
    with pytest.raises(DatasetError, match=r"annotated_classes of annotation\.json is empty"):
        _preprocess(dataset, tmp_path / "out", annotated_classes={"case_0": ()})


@pytest.mark.parametrize(
    ("value", "classes", "refused"),
    [(2, ("whole",), False), (2, ("core",), False), (1, ("core",), True), (0, ("core",), False)],
)
def test_a_region_may_hold_labels_of_regions_within_it(value, classes, refused):
    outputs = annotated_outputs(REGIONS, classes)
    annotation = Annotation(
        labels_ZYX=np.full((1, 2, 2), value, np.uint8),
        source_ZYX=np.full((1, 2, 2), Source.MANUAL, np.uint8),
    )
    case = Case(name="case", images=(), label=None)
    if refused:
        with pytest.raises(DatasetError, match="labels of whole"):
            require_only_annotated(case, annotation, REGIONS, outputs)
    else:
        require_only_annotated(case, annotation, REGIONS, outputs)


def test_a_batch_knows_the_annotated_outputs_of_each_patch(dataset, tmp_path):
    some = {"case_0": ("a",)}
    _, store = _preprocess(dataset, tmp_path / "out", annotated_classes=some)
    rules = BatchRules(
        patch_size=(8, 8, 8),
        batch_size=4,
        foreground_share=0.33,
        augmentation="none",
        mirror_axes=(),
        blank_outside=False,
        trust={Source.MANUAL: 1.0},
        seed=0,
        stream=0,
    )
    batches = BatchDataset(store, summarise_cases(store, store.cases), rules)
    rows = set()
    for step in range(10):
        batch = batches[step]
        if batch.annotated_BK is not None:
            rows |= {tuple(row) for row in batch.annotated_BK.tolist()}
            for known, labels_ZYX in zip(batch.annotated_BK, batch.labels_BZYX, strict=True):
                assert known[2] or not (labels_ZYX == 2).any()
    assert rows == {(True, True, False), (True, True, True)}
    others = BatchDataset(store, summarise_cases(store, store.cases[1:]), rules)
    assert all(others[step].annotated_BK is None for step in range(5))
