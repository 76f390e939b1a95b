import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from phantoms import blobs

from sparseunet.artifacts import read_json, write_json
from sparseunet.data.annotation import Annotation, Source
from sparseunet.data.geometry import Geometry
from sparseunet.errors import RequestError, UnreadableFileError
from sparseunet.preprocessing.case import PreprocessedCase, Restoration
from sparseunet.preprocessing.manifest import SAMPLED_VOXELS, has_all_files, sample_voxels
from sparseunet.preprocessing.store import CaseStore
from sparseunet.preprocessing.write import write_case

SHAPE = (20, 30, 28)


def some_case(name="case", *, kind="sparse", shape=SHAPE, dtype=np.uint8):
    labels_ZYX = blobs(shape, seed=0, num_classes=3).astype(dtype)
    rng = np.random.default_rng(0)
    annotations = {
        "none": None,
        "dense": Annotation.from_label_map(labels_ZYX, ignore=None),
        "sparse": Annotation.from_label_map(np.where(one_slice(shape), labels_ZYX, 9), ignore=9),
        "filled": Annotation.from_label_map(
            np.where(one_slice(shape), labels_ZYX, 9).astype(dtype), ignore=9
        ).fill(
            labels_ZYX,
            rng.random(shape) > 0.5,
            source=Source.PSEUDO,
            confidence_ZYX=rng.random(shape, np.float32),
        ),
    }
    return PreprocessedCase(
        name=name,
        image_CZYX=rng.normal(size=(2, *shape)).astype(np.float32),
        inside_ZYX=rng.random(shape) > 0.2 if kind != "dense" else np.ones(shape, bool),
        annotation=annotations[kind],
        restoration=Restoration(
            geometry=Geometry(shape=shape, spacing_mm=(1.0, 1.5, 2.0)),
            transpose_forward=(0, 1, 2),
            crop_start=(0, 0, 0),
            crop_shape=shape,
            network_shape=shape,
            network_spacing_mm=(1.0, 1.5, 2.0),
        ),
    )


def one_slice(shape):
    where_ZYX = np.zeros(shape, bool)
    where_ZYX[[4, 11]] = True
    return where_ZYX


def assert_same(first, second):
    assert first.name == second.name
    assert first.restoration == second.restoration
    assert np.array_equal(first.image_CZYX, second.image_CZYX)
    assert np.array_equal(first.inside_ZYX, second.inside_ZYX)
    assert (first.annotation is None) == (second.annotation is None)
    if first.annotation is not None:
        assert np.array_equal(first.annotation.labels_ZYX, second.annotation.labels_ZYX)
        assert np.array_equal(first.annotation.source_ZYX, second.annotation.source_ZYX)
        confidence = first.annotation.confidence_ZYX, second.annotation.confidence_ZYX
        assert (confidence[0] is None) == (confidence[1] is None)
        assert confidence[0] is None or np.array_equal(*confidence)


@pytest.mark.parametrize("kind", ["none", "dense", "sparse", "filled"])
@pytest.mark.parametrize("patch_size", [(16, 16, 16), (24, 24)])
def test_what_is_written_is_read(tmp_path, kind, patch_size):
    case = some_case(kind=kind)
    write_case(tmp_path, case, patch_size=patch_size)
    store = CaseStore(tmp_path)
    assert store.cases == ("case",)
    assert_same(store.read("case"), case)
    assert store.manifest("case").is_dense == (kind == "dense")
    assert store.manifest("case").has_annotation == (kind != "none")


def test_patches_are_parts_of_the_whole(tmp_path):
    case = some_case(kind="filled")
    write_case(tmp_path, case, patch_size=(8, 8, 8))
    store, rng = CaseStore(tmp_path), np.random.default_rng(1)
    for _ in range(20):
        start = tuple(int(rng.integers(0, size)) for size in SHAPE)
        stop = tuple(
            int(rng.integers(first, size + 1)) for first, size in zip(start, SHAPE, strict=True)
        )
        box = tuple(slice(first, last) for first, last in zip(start, stop, strict=True))
        patch = store.read_patch("case", start, stop)
        assert np.array_equal(patch.image_CZYX, case.image_CZYX[:, *box])
        assert np.array_equal(patch.labels_ZYX, case.annotation.labels_ZYX[box])
        assert np.array_equal(patch.source_ZYX, case.annotation.source_ZYX[box])
        assert np.array_equal(patch.confidence_ZYX, case.annotation.confidence_ZYX[box])
        assert np.array_equal(patch.inside_ZYX, case.inside_ZYX[box])


def test_a_box_outside_the_case_is_refused(tmp_path):
    write_case(tmp_path, some_case(), patch_size=(8, 8, 8))
    for start, stop in [((-1, 0, 0), (3, 3, 3)), ((0, 0, 0), (20, 31, 28)), ((5, 5, 5), (4, 6, 6))]:
        with pytest.raises(ValueError, match="reaches outside case case"):
            CaseStore(tmp_path).read_patch("case", start, stop)


def test_arrays_with_one_value_take_no_file(tmp_path):
    write_case(tmp_path, some_case(kind="dense"), patch_size=(8, 8, 8))
    assert {path.name for path in tmp_path.iterdir()} == {
        "case.image.b2nd",
        "case.labels.b2nd",
        "case.npz",
        "case.json",
    }


def test_labels_are_stored_in_one_byte_where_they_fit(tmp_path):
    write_case(tmp_path, some_case(kind="dense", dtype=np.uint16), patch_size=(8, 8, 8))
    patch = CaseStore(tmp_path).read_patch("case", (0, 0, 0), SHAPE)
    assert patch.labels_ZYX.dtype == np.uint8


def test_voxels_to_sample_lie_in_their_class_and_among_the_annotated(tmp_path):
    case = some_case(kind="sparse")
    manifest = write_case(tmp_path, case, patch_size=(8, 8, 8))
    store = CaseStore(tmp_path)
    labels_ZYX, annotated_ZYX = case.annotation.labels_ZYX, case.annotation.annotated_ZYX
    voxels = store.class_voxels("case")
    assert set(voxels) == {1, 2, 3}
    for value, coordinates in voxels.items():
        assert coordinates.dtype == np.int32
        assert np.all(labels_ZYX[tuple(coordinates.T)] == value)
        assert np.all(annotated_ZYX[tuple(coordinates.T)])
        assert len(coordinates) == manifest.class_voxels[value] == (labels_ZYX == value).sum()
    assert np.array_equal(store.annotated_voxels("case"), np.argwhere(annotated_ZYX))
    assert store.annotated_slices("case", 0).tolist() == [4, 11]
    assert store.annotated_slices("case", 2).tolist() == list(range(28))


def test_a_case_without_labels_has_no_voxels_to_sample(tmp_path):
    write_case(tmp_path, some_case(kind="none"), patch_size=(8, 8, 8))
    store = CaseStore(tmp_path)
    assert store.class_voxels("case") == {}
    assert store.annotated_voxels("case").shape == (0, 3)
    assert store.annotated_slices("case", 1).tolist() == []


def test_a_sample_is_bounded_repeatable_and_covers_every_slice():
    sparse = np.concatenate([np.arange(50_000), [70_000], np.arange(90_000, 95_000)])
    sample = sample_voxels(sparse, case="a", slice_size=1000)
    assert np.array_equal(sample, sample_voxels(sparse, case="a", slice_size=1000))
    assert not np.array_equal(sample, sample_voxels(sparse, case="b", slice_size=1000))
    assert np.isin(sample, sparse).all()
    assert set(sample // 1000) == {*range(50), 70, *range(90, 95)}
    assert SAMPLED_VOXELS <= len(sample) <= SAMPLED_VOXELS + 16 * 56
    assert len(sample_voxels(np.arange(2_000_000), case="a")) == 20_000
    assert len(sample_voxels(np.arange(0), case="a")) == 0


def test_a_failing_write_leaves_the_earlier_state(tmp_path):
    write_case(tmp_path, some_case(), patch_size=(8, 8, 8))
    files = {path.name for path in tmp_path.iterdir()}
    broken = some_case(kind="filled")
    object.__setattr__(broken.annotation, "confidence_ZYX", "not an array")
    with pytest.raises(AttributeError):
        write_case(tmp_path, broken, patch_size=(8, 8, 8))
    assert {path.name for path in tmp_path.iterdir()} == files
    assert_same(CaseStore(tmp_path).read("case"), some_case())


def test_a_case_without_manifest_is_not_there(tmp_path):
    write_case(tmp_path, some_case(), patch_size=(8, 8, 8))
    (tmp_path / "case.json").unlink()
    assert CaseStore(tmp_path).cases == ()
    with pytest.raises(RequestError, match="no complete case 'case'"):
        CaseStore(tmp_path).manifest("case")


def test_writing_again_replaces_every_file(tmp_path):
    write_case(tmp_path, some_case(kind="filled"), patch_size=(8, 8, 8))
    write_case(tmp_path, some_case(kind="dense"), patch_size=(8, 8, 8))
    assert_same(CaseStore(tmp_path).read("case"), some_case(kind="dense"))
    assert not (tmp_path / "case.confidence.b2nd").exists()


def test_a_damaged_or_missing_file_is_named(tmp_path):
    manifest = write_case(tmp_path, some_case(), patch_size=(8, 8, 8))
    path = tmp_path / "case.image.b2nd"
    assert has_all_files(tmp_path, manifest)
    path.write_bytes(path.read_bytes()[:200])
    assert not has_all_files(tmp_path, manifest)
    with pytest.raises(UnreadableFileError, match=r"case \(.*case\.image\.b2nd\)"):
        CaseStore(tmp_path).read("case")
    path.unlink()
    assert not has_all_files(tmp_path, manifest)
    with pytest.raises(UnreadableFileError, match=r"case\.image\.b2nd"):
        CaseStore(tmp_path).read("case")


def test_a_case_of_another_version_is_refused(tmp_path):
    write_case(tmp_path, some_case(), patch_size=(8, 8, 8))
    content = read_json(tmp_path / "case.json")
    write_json(tmp_path / "case.json", {**content, "version": 99})
    with pytest.raises(RequestError, match=r"99.*preprocess"):
        CaseStore(tmp_path).manifest("case")


def test_the_same_case_gives_the_same_bytes(tmp_path):
    for folder in ["a", "b"]:
        write_case(tmp_path / folder, some_case(kind="filled"), patch_size=(8, 8, 8))
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {path.name for path in (tmp_path / "b").iterdir()}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert CaseStore(tmp_path / "a").content_hash() == CaseStore(tmp_path / "b").content_hash()


def test_the_content_hash_sees_names_and_voxels(tmp_path):
    hashes = set()
    for name, kind in [("a", "sparse"), ("b", "sparse"), ("a", "dense")]:
        folder = tmp_path / f"{name}{kind}"
        write_case(folder, some_case(name, kind=kind), patch_size=(8, 8, 8))
        hashes.add(CaseStore(folder).content_hash())
    assert len(hashes) == 3


def test_names_with_dots_and_unicode_do_not_collide(tmp_path):
    names = ["a", "a.labels", "a.image", "größe 1"]
    for number, name in enumerate(names):
        case = some_case(name)
        case.image_CZYX[:] += number
        write_case(tmp_path, case, patch_size=(8, 8, 8))
    store = CaseStore(tmp_path)
    assert store.cases == tuple(sorted(names))
    means = [store.read(name).image_CZYX.mean() for name in names]
    assert np.allclose(np.diff(means), 1, atol=1e-3)


def test_threads_and_processes_read_the_same_store(tmp_path):
    write_case(tmp_path, some_case(), patch_size=(8, 8, 8))
    store = pickle.loads(pickle.dumps(CaseStore(tmp_path)))
    whole_CZYX = store.read("case").image_CZYX
    boxes = [((z, 0, 0), (z + 4, 30, 28)) for z in range(16)]
    with ThreadPoolExecutor(4) as pool:
        patches = list(pool.map(lambda box: store.read_patch("case", *box).image_CZYX, boxes))
    with multiprocessing.get_context("fork").Pool(2) as workers:
        forked = workers.starmap(store.read_patch, [("case", *box) for box in boxes])
    for box, patch, other in zip(boxes, patches, forked, strict=True):
        assert np.array_equal(patch, whole_CZYX[:, box[0][0] : box[1][0]])
        assert np.array_equal(patch, other.image_CZYX)
