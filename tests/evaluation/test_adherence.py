"""Classifiers of attributes, adherence, utility, and the challenges' formulas."""

import numpy as np
import pytest

from medtextdiff.evaluation import adherence, attribute_probe, challenge, utility

NAMES = ["a", "b"]
GROUPS = {"both": ["a", "b"], "only a": ["a"]}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def made_up(rng, num, noise=0.3):
    """Two attributes, each shown by one of six features."""
    labels = rng.integers(0, 2, size=(num, 2))
    features = rng.normal(size=(num, 6))
    features[:, :2] = 2 * labels - 1 + noise * rng.normal(size=(num, 2))
    return features, labels


def hidden(labels, rng, share=0.5):
    return np.where(rng.random(labels.shape) < share, attribute_probe.UNKNOWN, labels)


def test_a_probe_learns_from_partial_labels(rng):
    features, labels = made_up(rng, 300)
    probe = attribute_probe.fit(features, hidden(labels, rng), seed=0)
    fresh, truth = made_up(rng, 200)
    assert (probe.answers(fresh) == truth).mean() > 0.97
    chances = probe.probabilities(fresh)
    assert 0 <= chances.min() <= chances.max() <= 1


def test_unknown_labels_do_not_count(rng):
    """What stands in the place of an unknown label changes nothing, but its being unknown does."""
    features, labels = made_up(rng, 100)
    partial = labels.copy()
    partial[50:] = attribute_probe.UNKNOWN
    short = attribute_probe.fit(features[:50], labels[:50], seed=0, strengths=[0.1])
    padded = attribute_probe._solve(((features - short.mean) / short.scale).astype(np.float32), partial, 0.1)
    assert padded[0] == pytest.approx(short.weight, abs=2e-3)


def test_a_rare_attribute_is_not_always_denied(rng):
    features, labels = made_up(rng, 400)
    labels[:, 0] = np.where(rng.random(400) < 0.1, labels[:, 0], 0)
    features[:, 0] = 2 * labels[:, 0] - 1 + 0.3 * rng.normal(size=400)
    probe = attribute_probe.fit(features, labels, seed=0)
    assert probe.answers(features)[labels[:, 0] == 1, 0].mean() > 0.8


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="at least 10"):
        attribute_probe.fit(np.zeros((5, 2)), np.zeros((5, 1), dtype=np.int64), seed=0)


def test_balanced_accuracy():
    answers, labels = np.array([1, 1, 0, 0]), np.array([1, 0, 0, -1])
    assert attribute_probe.balanced_accuracy(answers, labels) == pytest.approx((1 + 0.5) / 2)
    assert np.isnan(attribute_probe.balanced_accuracy(answers, np.ones(4, dtype=np.int64)))


def test_adherence_of_right_and_of_random_images(rng):
    """A generator that obeys is kept fully, one that does not is no better than its shuffled prompts."""
    truth = rng.integers(0, 2, size=(400, 2))
    claims = hidden(truth, rng)
    real = rng.integers(0, 2, size=(300, 2))
    beside = {"real_answers": real, "real_claims": real, "real_images": np.arange(300), "seed": 0}
    both, single = adherence.table(NAMES, GROUPS, answers=truth, claims=claims, **beside)
    assert [line.name for line in both] == ["both", "only a"]
    assert [line.name for line in single] == NAMES
    assert both[0].right.mean == 1
    assert both[0].kept == pytest.approx(1, abs=0.1)
    assert both[0].shuffled == pytest.approx(0.5, abs=0.06)
    assert both[0].claims == int((claims >= 0).sum())
    random, _ = adherence.table(NAMES, GROUPS, answers=rng.permutation(truth), claims=claims, **beside)
    assert random[0].kept == pytest.approx(0, abs=0.15)


def test_attributes_that_are_hardly_claimed_have_no_line():
    claims = np.full((50, 2), attribute_probe.UNKNOWN)
    claims[:20, 0] = 1
    claims[:4, 1] = 1
    answers = np.ones((50, 2), dtype=np.int64)
    beside = {"real_answers": answers, "real_claims": answers, "real_images": np.arange(50), "seed": 0}
    _, single = adherence.table(NAMES, GROUPS, answers=answers, claims=claims, **beside)
    assert [line.name for line in single] == ["a"]
    assert adherence.right_per_image(answers, claims)[0] == (2, 2)
    assert adherence.right_per_image(answers, claims)[30] == (0, 0)


def test_nine_claims_of_an_image_are_no_nine_images():
    """Of 20 images half are right in all of 9 attributes, half in none: as uncertain as one claim of each."""
    names = [f"place {k}" for k in range(9)]
    claims = np.ones((20, 9), dtype=np.int64)
    answers = np.repeat([[1], [0]], 10, axis=0) * claims
    given = {"answers": answers, "claims": claims, "real_answers": answers, "real_claims": claims}
    whole, single = adherence.table(names, {"all": names}, **given, real_images=np.arange(20), seed=0)
    assert (whole[0].claims, whole[0].images, single[0].claims) == (180, 20, 20)
    assert whole[0].right == pytest.approx(single[0].right, abs=0.02)
    twice, _ = adherence.table(names, {"all": names}, **given, real_images=np.arange(20) // 2, seed=0)
    assert twice[0].real.high - twice[0].real.low > whole[0].real.high - whole[0].real.low
    assert twice[0].right == whole[0].right


def test_utility_ranks_true_labels_above_wrong_ones(rng):
    good, test = made_up(rng, 150), made_up(rng, 150)
    wrong = (good[0], rng.permutation(good[1]))
    lines, columns = utility.table({"good": good, "wrong": wrong}, test, seed=0)
    assert columns == [0, 1]
    assert lines[0].score.mean > 0.95
    assert lines[0].score.low > lines[1].score.high
    one_sided = (good[0], np.ones_like(good[1]))
    assert utility.table({"one-sided": one_sided}, test, seed=0) == ([], [])


def test_a_rare_attribute_is_learned_better_from_more_images():
    gains = []
    for seed in range(4):
        random = np.random.default_rng(seed)
        labels = (random.random((2000, 1)) < 0.1).astype(int)
        features = np.concatenate([labels + random.normal(size=labels.shape), random.normal(size=(2000, 5))], axis=1)
        sets = {"few": (features[:200], labels[:200]), "many": (features[:1000], labels[:1000])}
        lines, _ = utility.table(sets, (features[1000:], labels[1000:]), seed=seed)
        gains.append(lines[1].score.mean - lines[0].score.mean)
    assert np.mean(gains) > 0


def test_the_2024_way_to_resize_repeats_the_buffer():
    image = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)
    found = challenge.resize_2024(image, side=3)
    assert found.ravel()[:12].tolist() == image.ravel().tolist()
    assert found.ravel()[12:24].tolist() == image.ravel().tolist()


def test_the_2024_fid_of_probabilities_is_small(rng):
    def classify(images):
        sums = np.stack([image.reshape(-1, 3).mean(axis=0) for image in images])
        return np.exp(sums / 50) / np.exp(sums / 50).sum(axis=1, keepdims=True)

    images = [rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) for _ in range(24)]
    found = challenge.medvqa2024(images[:12], images[12:], classify)
    assert 0 <= found["fid of probabilities"] < 4
    assert 1 <= found["inception score, mean"] <= 3


def test_the_2025_formulas_by_hand():
    """One-dimensional pairs with known distances; of two pairs the script scores the first only."""
    near = challenge.Pair(np.array([[1.0], [3.0]]), np.array([[1.0], [3.0]]), np.array([[1.0], [3.0]]))
    far = challenge.Pair(np.array([[11.0], [13.0]]), np.array([[1.0], [3.0]]), np.array([[1.0], [3.0]]))
    found = challenge.medvqa2025([near, far])
    assert found["fidelity"] == pytest.approx(1000)
    assert found["fidelity, all pairs"] == pytest.approx((1000 + 1000 / (1 + 50)) / 2)
    assert found["agreement"] == pytest.approx(1)
    assert found["diversity"] == pytest.approx(0)  # unit vectors of positive numbers are all 1
    with pytest.raises(ValueError, match="at least one pair"):
        challenge.medvqa2025([])
