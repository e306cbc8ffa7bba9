"""Linear probes and retrieval: what can be read off is, what cannot is not, and no test row chooses."""

import numpy as np
import pytest

from medtextdiff.evaluation.linear_probe import RIDGES, linear_probe
from medtextdiff.evaluation.retrieval import ranks


@pytest.fixture
def random():
    return np.random.default_rng(0)


def made(random, num, signal):
    labels = [("left", "right", "both")[k % 3] for k in range(num)]
    centres = {"left": [signal, 0], "right": [-signal, 0], "both": [0, signal]}
    features = random.normal(size=(num, 20))
    features[:, :2] += np.array([centres[label] for label in labels])
    return features, labels, [f"wording {k % 7}" for k in range(num)]


def test_what_lies_on_a_line_is_read_off(random):
    (x, y, groups), (z, truth, _) = made(random, 200, 6.0), made(random, 90, 6.0)
    found = linear_probe(x, y, z, truth, groups)
    assert found.correct.mean() > 0.97
    assert found.ridge in RIDGES


def test_noise_gives_chance(random):
    (x, y, groups), (z, truth, _) = made(random, 200, 0.0), made(random, 300, 0.0)
    assert linear_probe(x, y, z, truth, groups).correct.mean() == pytest.approx(1 / 3, abs=0.12)


def test_scale_and_shift_of_a_feature_do_not_matter(random):
    (x, y, groups), (z, truth, _) = made(random, 120, 2.0), made(random, 60, 2.0)
    scale, shift = random.uniform(0.1, 10, 20), random.normal(size=20)
    a = linear_probe(x, y, z, truth, groups)
    b = linear_probe(x * scale + shift, y, z * scale + shift, truth, groups)
    np.testing.assert_array_equal(a.correct, b.correct)


def test_a_feature_that_never_changes_is_no_trouble(random):
    (x, y, groups), (z, truth, _) = made(random, 120, 6.0), made(random, 60, 6.0)
    x[:, 5] = z[:, 5] = 3.0
    assert linear_probe(x, y, z, truth, groups).correct.mean() > 0.9


def test_a_label_that_training_lacks_is_wrong(random):
    (x, y, groups), (z, _, _) = made(random, 60, 6.0), made(random, 6, 6.0)
    assert not linear_probe(x, y, z, ["elsewhere"] * 6, groups).correct.any()


def test_bad_features_are_refused(random):
    x, y, groups = made(random, 30, 1.0)
    with pytest.raises(ValueError, match="needs its label"):
        linear_probe(x, y[:-1], x, y, groups)
    with pytest.raises(ValueError, match="two labels"):
        linear_probe(x, ["left"] * 30, x, y, groups)
    with pytest.raises(ValueError, match="not finite"):
        linear_probe(np.full_like(x, np.nan), y, x, y, groups)


def test_ranks_find_each_querys_own(random):
    candidates = random.normal(size=(10, 5))
    np.testing.assert_array_equal(ranks(2 * candidates + 7, candidates), np.ones(10))
    swapped = candidates[[1, 0, *range(2, 10)]]
    assert (ranks(swapped, candidates)[:2] > 1).all()


def test_features_that_are_all_alike_win_nothing():
    np.testing.assert_array_equal(ranks(np.ones((6, 3)), np.ones((6, 3))), np.full(6, 6))


def test_ranks_need_pairs():
    with pytest.raises(ValueError, match="needs its candidate"):
        ranks(np.ones((6, 3)), np.ones((5, 3)))
