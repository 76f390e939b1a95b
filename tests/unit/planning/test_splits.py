"""Cross-validation splits."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseunet.data.dataset import Split
from sparseunet.errors import RequestError
from sparseunet.planning.splits import (
    extend_splits,
    make_splits,
    splits_from_json,
    splits_to_json,
    torn_groups,
)

VISITS = {
    f"patient{patient:02d}_frame{frame:02d}": f"patient{patient:02d}"
    for patient in range(12)
    for frame in (1, 12, 13)[: 1 + patient % 3]
}
case_names = st.sets(st.text("abc123_", min_size=1, max_size=6), min_size=2, max_size=40).map(list)


@given(case_names, st.integers(2, 7))
def test_every_case_is_validated_on_exactly_once_and_never_trained_on_in_that_fold(names, folds):
    splits = make_splits(names, num_folds=folds)
    assert len(splits) == min(folds, len(names))
    assert sorted(name for split in splits for name in split.val) == sorted(names)
    for split in splits:
        assert split.val
        assert sorted(split.train + split.val) == sorted(names)


@given(case_names, st.randoms())
def test_the_order_in_which_cases_are_given_does_not_matter(names, random):
    shuffled = list(names)
    random.shuffle(shuffled)
    assert make_splits(names) == make_splits(shuffled)


@pytest.mark.parametrize("num_cases", [5, 7, 12, 200])
def test_splits_equal_scikit_learns_shuffled_folds_that_nnunet_uses(num_cases):
    from sklearn.model_selection import KFold

    names = [f"case_{number:03d}" for number in range(num_cases)]
    expected = [
        {"train": [names[index] for index in train], "val": [names[index] for index in val]}
        for train, val in KFold(n_splits=5, shuffle=True, random_state=12345).split(names)
    ]
    assert splits_to_json(make_splits(names)) == expected


def test_splits_survive_json():
    splits = make_splits(["a", "b", "c"])
    assert splits_from_json(json.loads(json.dumps(splits_to_json(splits)))) == splits


@pytest.mark.parametrize("names", [[], ["only"]])
def test_one_case_cannot_be_split(names):
    with pytest.raises(RequestError, match="at least two cases"):
        make_splits(names)


def test_a_name_given_twice_is_refused():
    with pytest.raises(RequestError, match="more than once: b"):
        make_splits(["a", "b", "b"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, ["must be a list"]),
        ([], ["must be a list"]),
        ([{"train": ["a"]}, {"train": ["a", "b"], "val": ["b"]}], ["fold 0", "fold 1", "on b"]),
    ],
)
def test_a_wrong_splits_file_is_explained(content, words):
    with pytest.raises(RequestError) as caught:
        splits_from_json(content, source="splits_final.json")
    for word in ["splits_final.json", *words]:
        assert word in str(caught.value)


def test_new_cases_join_the_smallest_folds_and_nobody_moves():
    before = make_splits([f"case_{number:02d}" for number in range(12)])
    names = [f"case_{number:02d}" for number in range(12)] + ["new_a", "new_b", "new_c"]
    after = extend_splits(before, names)
    for old, new in zip(before, after, strict=True):
        assert set(old.train) <= set(new.train)
        assert set(old.val) <= set(new.val)
        assert sorted((*new.train, *new.val)) == names
    assert sorted(name for split in after for name in split.val) == names
    assert [len(split.val) for split in after] == [3, 3, 3, 3, 3]


def test_cases_that_are_gone_leave_every_fold():
    before = make_splits(["a", "b", "c", "d"])
    after = extend_splits(before, ["a", "c", "d"])
    for old, new in zip(before, after, strict=True):
        assert set(new.train) == set(old.train) - {"b"}
        assert set(new.val) == set(old.val) - {"b"}


def test_new_cases_are_trained_on_where_a_person_chose_who_validates():
    mine = (Split(train=("a", "b"), val=("c",)), Split(train=("a",), val=("c",)))
    after = extend_splits(mine, ["a", "b", "c", "d"])
    assert after == (
        Split(train=("a", "b", "d"), val=("c",)),
        Split(train=("a", "d"), val=("c",)),
    )


def test_splits_that_fit_the_cases_stay_equal():
    splits = make_splits(["a", "b", "c", "d", "e", "f"])
    assert extend_splits(splits, ["a", "b", "c", "d", "e", "f"]) == splits


@given(case_names, st.integers(1, 9), st.integers(2, 7))
def test_a_group_is_never_on_both_sides_of_a_fold(names, num_groups, folds):
    groups = {name: str(sum(map(ord, name)) % num_groups) for name in names}
    if len(set(groups.values())) < 2:
        with pytest.raises(RequestError, match="in 1 group"):
            make_splits(names, groups=groups, num_folds=folds)
        return
    splits = make_splits(names, groups=groups, num_folds=folds)
    assert torn_groups(splits, groups) == []
    assert len(splits) == min(folds, len(set(groups.values())))
    assert sorted(name for split in splits for name in split.val) == sorted(names)


@given(case_names)
def test_groups_of_one_case_change_nothing(names):
    assert make_splits(names, groups={name: f"z{name[::-1]}" for name in names}) == make_splits(
        names
    )


def test_folds_hold_equally_many_groups():
    splits = make_splits(list(VISITS), groups=VISITS)
    assert [len({VISITS[name] for name in split.val}) for split in splits] == [3, 3, 2, 2, 2]
    assert splits == make_splits(list(VISITS)[::-1], groups=VISITS)


def test_without_groups_the_same_patients_are_on_both_sides():
    assert torn_groups(make_splits(list(VISITS)), VISITS)


def test_a_new_scan_joins_its_group_and_a_new_group_the_smallest_fold():
    before = make_splits(list(VISITS), groups=VISITS)
    added = {"patient03_frame12": "patient03", "new_a": "new", "new_b": "new"}
    groups = VISITS | added
    after = extend_splits(before, list(groups), groups=groups)
    assert torn_groups(after, groups) == []
    assert sorted(name for split in after for name in split.val) == sorted(groups)
    for old, new in zip(before, after, strict=True):
        assert set(old.train) <= set(new.train)
        assert set(old.val) <= set(new.val)
        assert ("patient03_frame12" in new.val) == ("patient03_frame01" in new.val)
        if "new_a" in new.val:
            assert len(old.val) == min(len(split.val) for split in before)


def test_a_new_scan_of_a_validated_patient_is_not_trained_on_in_splits_of_a_persons_own():
    mine = (Split(train=("a_1",), val=("b_1",)),)
    groups = {"a_1": "a", "a_2": "a", "b_1": "b", "b_2": "b", "c_1": "c"}
    (after,) = extend_splits(mine, list(groups), groups=groups)
    assert after == Split(train=("a_1", "a_2", "c_1"), val=("b_1", "b_2"))


def test_groups_that_an_old_fold_tears_apart_are_named_and_stay_where_they_are():
    groups = {"a_1": "a", "a_2": "a", "a_3": "a", "b_1": "b"}
    before = (Split(train=("a_1",), val=("a_2", "b_1")), Split(train=("a_2", "b_1"), val=("a_1",)))
    assert torn_groups(before, groups) == ["a"]
    after = extend_splits(before, list(groups), groups=groups)
    for old, new in zip(before, after, strict=True):
        assert set(old.train) <= set(new.train)
        assert set(old.val) <= set(new.val)
        assert "a_3" in new.val
