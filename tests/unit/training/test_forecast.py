"""The table before training says what its batches hold."""

import json
from dataclasses import replace

import numpy as np
import pytest
from phantoms import box

from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.geometry import Geometry
from sparseunet.data.labels import LabelSchema
from sparseunet.planning.plan import Configuration, NetworkPlan
from sparseunet.preprocessing.case import PreprocessedCase, Restoration
from sparseunet.preprocessing.store import CaseStore
from sparseunet.preprocessing.write import write_case
from sparseunet.training.fit import batch_rules
from sparseunet.training.forecast import forecast_training, format_forecast, write_forecast
from sparseunet.training.loader import BatchDataset, summarise_cases
from sparseunet.training.recipe import Recipe

LABELS = LabelSchema(classes={"background": 0, "organ": 1, "lesion": 2}, regions={})
SHAPE, PATCH = (16, 24, 24), (8, 16, 16)
ORGAN = box(SHAPE, start=(4, 4, 4), stop=(14, 20, 20))
LESION = box(SHAPE, start=(6, 6, 6), stop=(8, 9, 9))


def _configuration(patch_size=(8, 16, 16)):
    return Configuration(
        name="test",
        data_identifier="test",
        batch_size=2,
        patch_size=patch_size,
        median_shape=tuple(map(float, SHAPE[-len(patch_size) :])),
        spacing_mm=(1.0,) * len(patch_size),
        normalization=("zscore",),
        use_mask_for_norm=(False,),
        network=NetworkPlan(
            architecture="plain_unet",
            features_per_stage=(4, 8),
            kernel_sizes=((3,) * len(patch_size),) * 2,
            strides=((1,) * len(patch_size), (2,) * len(patch_size)),
            encoder_depths=(1, 1),
            decoder_depths=(1,),
        ),
        batch_dice=False,
    )


def _write(folder, name, *, slices=range(16), axis=0, lesion=True, scribble=False):
    """Write a case that is annotated in some slices, or only in a corner of them."""
    source_ZYX = np.full(SHAPE, Source.NONE, np.uint8)
    source_ZYX[(slice(None),) * axis + (list(slices),)] = Source.MANUAL
    if scribble:
        source_ZYX[:, 7:] = Source.NONE
    labels_ZYX = ORGAN.astype(np.uint8) + (LESION & lesion)
    case = PreprocessedCase(
        name=name,
        image_CZYX=np.zeros((1, *SHAPE), np.float32),
        inside_ZYX=np.ones(SHAPE, bool),
        annotation=Annotation(
            labels_ZYX=np.where(source_ZYX > 0, labels_ZYX, 0).astype(np.uint8),
            source_ZYX=source_ZYX,
        ),
        restoration=Restoration(
            geometry=Geometry(shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0)),
            transpose_forward=(0, 1, 2),
            crop_start=(0, 0, 0),
            crop_shape=SHAPE,
            network_shape=SHAPE,
        ),
    )
    write_case(folder, case, patch_size=PATCH)


@pytest.fixture
def store(tmp_path):
    """A dense case with a lesion, two sparse ones without, and one without any annotation."""
    _write(tmp_path, "dense")
    _write(tmp_path, "slices", slices=[2, 9], lesion=False)
    _write(tmp_path, "other_axis", slices=[5, 12, 20], axis=1, lesion=False)
    _write(tmp_path, "nothing", slices=[])
    return CaseStore(tmp_path)


def _forecast(store, *, configuration=None, names=None, **rules):
    return forecast_training(
        store,
        store.cases if names is None else names,
        configuration=configuration or _configuration(),
        labels=LABELS,
        recipe=Recipe(**({"iterations": 40, "seed": 3} | rules)),
    )


@pytest.mark.parametrize("patch_size", [(8, 16, 16), (16, 16)])
def test_a_short_training_sees_exactly_what_was_foretold(store, patch_size):
    """Counted in the batches themselves, by another way."""
    configuration = _configuration(patch_size)
    recipe = Recipe(iterations=40, seed=3, augmentation="none")
    forecast = _forecast(store, configuration=configuration)
    rules = replace(batch_rules(configuration, recipe, LABELS), augmentation="none")
    dataset = BatchDataset(store, summarise_cases(store, store.cases, rules), rules)
    batches = [dataset[step] for step in range(40)]
    annotated = [int((batch.weight_BZYX > 0).sum()) for batch in batches]
    assert forecast.num_batches == 40
    assert forecast.voxels_per_batch == pytest.approx(np.mean(annotated))
    assert forecast.annotated_share == pytest.approx(np.mean(annotated) / 2 / np.prod(patch_size))
    for value, each in enumerate(forecast.classes):
        voxels = [
            int(((batch.labels_BZYX == value) & (batch.weight_BZYX > 0)).sum()) for batch in batches
        ]
        assert each.voxels_per_batch == pytest.approx(np.mean(voxels))
        assert each.batches_with_it == pytest.approx(np.mean(np.array(voxels) > 0))


def test_cases_slices_and_views_are_those_of_the_annotation(store):
    forecast = _forecast(store, names=["slices"], configuration=_configuration((16, 24, 24)))
    background, organ, lesion = forecast.classes
    assert (forecast.num_slices, forecast.views_per_slice) == (2, 80)  # twice in each of 40 batches
    assert (organ.num_cases, organ.num_slices, organ.views_per_slice) == (1, 1, 80)
    assert (lesion.num_cases, lesion.num_slices, lesion.views_per_slice) == (0, 0, None)
    assert (background.num_cases, background.num_slices) == (1, None)
    across_y = _forecast(store, names=["other_axis"], configuration=_configuration((16, 24, 24)))
    assert (across_y.num_slices, across_y.views_per_slice) == (3, 80)
    assert across_y.classes[1].num_slices == 2


def test_views_grow_with_the_length_of_the_training(store):
    short, long = _forecast(store, iterations=200), _forecast(store, iterations=20_000)
    assert short.num_batches == long.num_batches == 200
    assert long.views_per_slice == pytest.approx(100 * short.views_per_slice, rel=0.2)


def test_the_same_recipe_gives_the_same_forecast(store):
    assert _forecast(store) == _forecast(store)
    assert _forecast(store) != _forecast(store, seed=4)


def test_patch_shares_show_up_in_the_forecast(store):
    seldom, often = _forecast(store), _forecast(store, patch_shares={"lesion": 9, "rest": 1})
    assert often.classes[2].batches_with_it > 0.9
    assert often.classes[2].voxels_per_batch > seldom.classes[2].voxels_per_batch


def test_sources_that_are_not_trusted_do_not_count(store):
    trust = {"manual": 0.0, "interpolated": 1.0, "pseudo": 1.0}
    assert _forecast(store, trust=trust).voxels_per_batch == 0


def test_cases_without_annotation_are_named_in_one_line(store):
    forecast = _forecast(store)
    assert (forecast.num_cases, forecast.left_out) == (4, ("nothing",))
    assert format_forecast(forecast)[-1] == (
        "1 of 4 training cases has no annotated voxel and is left out: nothing."
    )
    assert _forecast(store, names=["nothing"]) is None


def test_what_is_seen_too_rarely_is_warned_about_with_what_to_do(store, tmp_path):
    missing = _forecast(store, names=["slices"]).warnings
    assert [text for text in missing if "lesion is annotated in no training case" in text]
    for number in range(30):
        _write(tmp_path, f"more_{number}", slices=[2, 9], lesion=False)
    forecast = _forecast(CaseStore(tmp_path), iterations=40)
    assert any("patch shares lesion=50 rest=50" in text for text in forecast.warnings)
    assert any("each annotated slice is seen only" in text.lower() for text in forecast.warnings)
    assert any("iterations to see it" in text for text in forecast.warnings)
    often = {"iterations": 2000, "patch_shares": {"lesion": 1, "rest": 1}}
    assert _forecast(CaseStore(tmp_path), **often).warnings == ()


def test_a_share_of_what_no_case_has_is_warned_about(store):
    shares = {"organ": 1, "unannotated": 1}
    (warning,) = _forecast(store, names=["dense"], iterations=2000, patch_shares=shares).warnings
    assert "voxels that are unannotated" in warning


def test_the_forecast_is_kept_as_json(store, tmp_path):
    forecast = _forecast(store)
    write_forecast(tmp_path / "forecast.json", forecast)
    content = json.loads((tmp_path / "forecast.json").read_text())
    assert content["kind"] == "training_forecast"
    assert [each["name"] for each in content["classes"]] == ["background", "organ", "lesion"]
    assert content["voxels_per_batch"] == forecast.voxels_per_batch


@pytest.mark.parametrize("patch_size", [(4, 4, 4), (4, 4)])
@pytest.mark.parametrize("name", ["background", "unannotated"])
def test_patches_hold_background_or_unannotated_voxels_of_the_stored_labels(
    tmp_path, name, patch_size
):
    _write(tmp_path, "scribble", slices=[5, 6], scribble=True)
    store = CaseStore(tmp_path)
    recipe = Recipe(patch_shares={name: 1})
    rules = batch_rules(_configuration(patch_size), recipe, LABELS)
    rules = replace(rules, augmentation="none", batch_size=20)
    dataset = BatchDataset(store, summarise_cases(store, store.cases, rules), rules)
    batch = dataset[0]
    annotated = batch.weight_BZYX > 0
    wanted = annotated & (batch.labels_BZYX == 0) if name == "background" else ~annotated
    assert bool(wanted.flatten(1).any(dim=1).all())
    if len(patch_size) == 2:
        assert {place.start[0] for place in dataset.places(0)} <= {5, 6}
