"""Maximum coverage: as good as promised, exact, within its memory; and learned features."""

import itertools
import logging
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import blobs, intensities

from sparseunet.annotation.selection import load_selector
from sparseunet.annotation.selection.coverage import greedy_coverage, normalise_rows
from sparseunet.annotation.selection.learned_features import learn_features
from sparseunet.annotation.selection.representative import MASKED, THREE_PLANES
from sparseunet.annotation.selection.slices import SelectionRequest, SliceStack
from sparseunet.data.dataset import Case
from sparseunet.data.geometry import Geometry
from sparseunet.data.io import write_image

BOUND = 1 - 1 / np.e


def coverage_of(features: np.ndarray, rows: tuple[int, ...]) -> float:
    """Return F of Z20 eq. 7, counted from similarity -1, the least there is."""
    unit = normalise_rows(features)
    return float(((unit @ unit.T)[list(rows)].max(axis=0) + 1).sum())


def features_of(kind: str, *, num: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if kind == "anywhere":
        return random.standard_normal((num, 3))
    groups = random.standard_normal((4, 5))
    return groups[random.integers(0, 4, num)] + 0.3 * random.standard_normal((num, 5))


@settings(max_examples=60)
@given(st.sampled_from(["anywhere", "groups"]), st.integers(1, 5), st.integers(0, 10_000))
def test_greedy_coverage_reaches_the_promised_share_of_the_best(
    kind: str, count: int, seed: int
) -> None:
    features = features_of(kind, num=11, seed=seed)
    greedy = tuple(row for row, _ in greedy_coverage(features, count=count))
    best = max(coverage_of(features, rows) for rows in itertools.combinations(range(11), count))
    assert coverage_of(features, greedy) >= BOUND * best - 1e-4


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 120))
def test_looking_again_only_where_needed_changes_no_choice(seed: int, count: int) -> None:
    features = features_of("anywhere", num=120, seed=seed)
    unit = normalise_rows(features)
    similarity, best, chosen = unit @ unit.T, np.full(120, -1.0), []
    for _ in range(count):
        gains = np.maximum(similarity, best).sum(axis=1) - best.sum()
        gains[chosen] = -np.inf
        chosen.append(int(gains.argmax()))
        best = np.maximum(best, similarity[chosen[-1]])
    found = [row for row, _ in greedy_coverage(features, count=count)]
    assert len(set(found)) == count
    # Where gains are equal but for rounding, either may come first.
    agree = coverage_of(features, tuple(found)) / coverage_of(features, tuple(chosen))
    assert found == chosen or agree == pytest.approx(1, abs=1e-5)


def test_a_partition_is_respected_and_the_best_of_each_part_comes_first() -> None:
    features = features_of("groups", num=60, seed=1)
    groups = [row % 3 for row in range(60)]
    chosen = greedy_coverage(features, count=9, groups=groups, counts=(5, 0, 4))
    assert np.bincount([groups[row] for row, _ in chosen], minlength=3).tolist() == [5, 0, 4]
    covered = [share for _, share in chosen]
    assert covered == sorted(covered)


def test_coverage_of_a_whole_dataset_stays_within_bounded_memory() -> None:
    features = np.random.default_rng(0).standard_normal((15_500, 32)).astype(np.float32)
    tracemalloc.start()
    chosen = greedy_coverage(features, count=20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len({row for row, _ in chosen}) == 20
    assert peak < 40e6  # the similarities of all pairs would take 961e6


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> list[SliceStack]:
    """Two equal scans and one that differs."""
    folder, shape, made = tmp_path_factory.mktemp("scans"), (12, 24, 20), []
    for number, seed in enumerate((0, 0, 7)):
        path = folder / f"scan_{number}_0000.nii.gz"
        labels = blobs(shape, seed=seed, width=4.0)
        geometry = Geometry(shape=shape, spacing_mm=(3.0, 1.0, 1.0))
        write_image(path, intensities(labels, seed=seed), geometry)
        case = Case(name=f"scan_{number}", images=(path,), label=None)
        made.append(SliceStack(case=case, axis=0, num_slices=12, spacing_mm=(3.0, 1.0, 1.0)))
    return made


def test_a_scan_that_equals_another_gets_nothing_when_the_dataset_decides(
    stacks: list[SliceStack],
) -> None:
    request = SelectionRequest(counts=None, total=6, seed=1)
    chosen = load_selector("dataset")(stacks, request=request)
    assert len({(item.stack, item.index) for item in chosen}) == 6
    assert {item.stack for item in chosen} == {0, 2}


@pytest.mark.parametrize("recipe", [THREE_PLANES, MASKED], ids=["three planes", "masked"])
def test_features_are_kept_by_content_and_the_same_when_learned_again(
    stacks: list[SliceStack], tmp_path: Path, recipe
) -> None:  # type: ignore[no-untyped-def]
    request = SelectionRequest(counts=(1, 1, 1), total=3, seed=2, cache=tmp_path)
    recipe = replace(recipe, num_epochs=4)
    first = learn_features(stacks, request=request, recipe=recipe)
    (kept,) = tmp_path.iterdir()
    assert [len(part) for part in first] == [12, 12, 12]
    assert np.array_equal(first[0], first[1]), "equal scans have equal features"
    again = learn_features(stacks, request=replace(request, cache=None), recipe=recipe)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    with kept.open("wb") as stream:
        np.savez(stream, **{str(number): np.full((12, 2), 7.0) for number in range(3)})
    assert learn_features(stacks, request=request, recipe=recipe)[0][0, 0] == 7
    other_seed = learn_features(stacks, request=replace(request, seed=3), recipe=recipe)
    assert not np.array_equal(first[0], other_seed[0])


def test_a_time_budget_that_cuts_the_training_says_so(
    stacks: list[SliceStack], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request = SelectionRequest(counts=(1, 1, 1), total=3, cache=tmp_path, time_budget_s=1e-3)
    with caplog.at_level(logging.WARNING):
        cut = learn_features(stacks, request=request, recipe=MASKED)
    assert "5 of 90 iterations to keep within 0.001 s" in caplog.text
    again = learn_features(stacks, request=request, recipe=MASKED)
    assert all(np.array_equal(one, other) for one, other in zip(cut, again, strict=True))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        learn_features(stacks, request=replace(request, time_budget_s=None), recipe=MASKED)
    assert not caplog.text


def test_training_learns_to_reconstruct_and_leaves_the_random_state_alone() -> None:
    import torch

    from sparseunet.annotation.selection.learned_features import _train
    from sparseunet.networks.slice_encoders import ENCODERS

    before = torch.random.get_rng_state()
    line = torch.linspace(-2, 2, 64)
    pictures = torch.stack(
        [(line[:, None] * slope + line * (1 - slope))[None] for slope in torch.linspace(0, 1, 40)]
    )
    for make in ENCODERS.values():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = make(1)
            at_first = float(network.loss(pictures).detach())
            _train(network, pictures, device=torch.device("cpu"), planned=60, time_budget_s=None)
            assert float(network.loss(pictures).detach()) < 0.8 * at_first
        features = network(pictures)
        assert features.shape[0] == 40
        near = torch.nn.functional.cosine_similarity(features[:-1], features[1:]).mean()
        far = torch.nn.functional.cosine_similarity(features[:20], features[20:]).mean()
        assert near > far
    assert torch.equal(before, torch.random.get_rng_state())
