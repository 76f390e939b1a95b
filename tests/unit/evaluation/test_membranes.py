import math

import numpy as np
import pytest
from phantoms import blobs
from skimage.metrics import adapted_rand_error

from sparseunet.evaluation.membranes import find_objects, score_objects


def test_equal_objects_score_one_whatever_their_numbers():
    objects = np.array([[1, 1, 0, 2, 2, 2]])

    scores = score_objects(objects, np.array([[7, 7, 3, 4, 4, 4]]))

    assert (scores.merge, scores.split, scores.f_score) == (1, 1, 1)


def test_a_merge_costs_the_merge_score_and_a_split_the_split_score():
    two, one = np.array([[1, 1, 2, 2]]), np.array([[1, 1, 1, 1]])

    merged, split = score_objects(two, one), score_objects(one, two)

    # 2 pairs lie together in both maps; 6 in the map with one object, 2 in that with two
    assert (merged.merge, merged.split) == (pytest.approx(2 / 6), 1)
    assert (split.merge, split.split) == (1, pytest.approx(2 / 6))
    assert merged.f_score == split.f_score == pytest.approx(2 * (1 / 3) / (1 + 1 / 3))


def test_what_lies_on_the_membrane_of_the_reference_does_not_count():
    reference = np.array([[1, 1, 0, 0, 2, 2]])

    thin = score_objects(reference, np.array([[1, 1, 1, 0, 2, 2]]))

    assert thin.f_score == 1


def test_a_membrane_predicted_inside_an_object_takes_pairs_from_it():
    reference = np.array([[1, 1, 1, 1]])

    scores = score_objects(reference, np.array([[1, 1, 0, 0]]))

    assert (scores.merge, scores.split) == (1, pytest.approx(1 / 6))


@pytest.mark.parametrize("seed", range(4))
def test_the_scores_are_those_of_the_snemi3d_challenge(seed):
    reference = find_objects(blobs((6, 20, 20), seed=seed, share=0.6) > 0)
    prediction = find_objects(blobs((6, 20, 20), seed=seed + 9, share=0.6) > 0)
    own = prediction.copy()  # scikit-image has no rule for membrane inside an object
    own[prediction == 0] = prediction.max() + 1 + np.arange((prediction == 0).sum())

    # divided by the pairs in the first map, then by those in the second, whatever their names say
    error, of_reference, of_prediction = adapted_rand_error(reference, own)
    scores = score_objects(reference, prediction)

    assert scores.f_score == pytest.approx(1 - error)
    assert (scores.split, scores.merge) == pytest.approx((of_reference, of_prediction))


def test_a_gap_of_one_voxel_in_a_wall_merges_two_rooms():
    wall = np.zeros((5, 9, 11), bool)
    wall[:, :, 5] = True
    broken = wall.copy()
    broken[2, 4, 5] = False

    whole, leaking = find_objects(~wall), find_objects(~broken)
    scores = score_objects(whole, leaking)

    assert (whole.max(), leaking.max()) == (2, 1)
    assert scores.split == 1
    assert scores.merge == pytest.approx(0.5, abs=0.01)


def test_without_any_object_there_is_nothing_to_score():
    scores = score_objects(np.zeros((2, 2, 2), int), np.ones((2, 2, 2), int))

    assert math.isnan(scores.f_score)
