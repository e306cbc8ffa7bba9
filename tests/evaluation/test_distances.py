"""Distances with known answers, and against torchmetrics."""

import numpy as np
import pytest
import torch

from medtextdiff.evaluation import distances


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def of_moments(mean, covariance, num, rng):
    """Rows whose sample mean and covariance are exactly these."""
    rows = rng.normal(size=(num, len(mean)))
    rows -= rows.mean(axis=0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return rows @ np.linalg.cholesky(covariance).T + mean


def test_frechet_of_gaussians_is_the_formula(rng):
    """|m|^2 + tr(A + B - 2 sqrt(AB)): for diagonal A, B the last is the sum of squared differences of deviations."""
    a = of_moments(np.zeros(3), np.diag([1.0, 4.0, 9.0]), 50, rng)
    b = of_moments(np.array([1.0, 2.0, 2.0]), np.diag([4.0, 4.0, 1.0]), 60, rng)
    assert distances.frechet(a, b) == pytest.approx(9 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2, rel=1e-9)
    assert distances.frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_with_fewer_images_than_features_is_that_of_the_matrix_root(rng):
    a, b = rng.normal(size=(12, 20)), rng.normal(size=(9, 20)) + 0.3
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    values = np.linalg.eigvals(cov_a @ cov_b).real.clip(0)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b) - 2 * np.sqrt(values).sum()
    assert distances.frechet(a, b) == pytest.approx(expected, rel=1e-6)


def test_distances_are_those_of_torchmetrics(rng):
    from torchmetrics.image.fid import _compute_fid
    from torchmetrics.image.kid import poly_mmd
    from torchmetrics.image.mifid import _compute_cosine_distance

    a, b = rng.normal(size=(40, 6)), rng.normal(size=(40, 6)) * 1.5 + 0.2
    ta, tb = torch.from_numpy(a), torch.from_numpy(b)
    fid = distances.frechet(a, b)
    assert fid == pytest.approx(float(_compute_fid(ta.mean(0), ta.T.cov(), tb.mean(0), tb.T.cov())), rel=1e-6)
    assert distances.kernel(a, b) == pytest.approx(float(poly_mmd(ta, tb)), rel=1e-9)
    near = a + 0.01 * rng.normal(size=a.shape)
    cosine = float(_compute_cosine_distance(torch.from_numpy(near), ta))
    assert cosine < 0.1
    assert distances.memorisation_informed(2.0, near, a) == pytest.approx(2.0 / cosine, rel=1e-6)


def test_mifid_is_fid_where_nothing_is_near(rng):
    generated, train = np.eye(4)[:2], np.eye(4)[2:]
    assert distances.memorisation_informed(3.0, generated, train) == 3.0


def test_kid_is_unbiased_and_fid_is_not(rng):
    """Two small sets of one distribution: KID averages to 0, FID does not."""
    draws = [(rng.normal(size=(10, 4)), rng.normal(size=(10, 4))) for _ in range(400)]
    kids, fids = zip(*((distances.kernel(a, b), distances.frechet(a, b)) for a, b in draws), strict=True)
    assert abs(np.mean(kids)) < 3 * np.std(kids) / 20
    assert np.mean(fids) > 10 * np.std(fids) / 20


def test_inception_score_goes_from_one_to_the_number_of_classes():
    assert distances.inception_score(np.full((8, 4), 0.25)) == pytest.approx(1)
    assert distances.inception_score(np.eye(4)) == pytest.approx(4)
    with pytest.raises(ValueError, match="sum 1"):
        distances.inception_score(np.ones((3, 3)))


def test_attribute_score_goes_from_one_to_two():
    assert distances.attribute_score(np.full((6, 3), 0.3)) == pytest.approx(1)
    assert distances.attribute_score(np.array([[0.0], [1.0]])) == pytest.approx(2)


def test_joint_distance_sees_shuffled_prompts(rng):
    claims = np.sign(rng.normal(size=(200, 1)))
    features = 3 * claims + rng.normal(size=(200, 2))
    weight = distances.joint_weight(features, claims)
    right = distances.joint(features, claims, weight)
    wrong = distances.joint(features, claims[rng.permutation(200)], weight)
    assert distances.frechet(features, features) == pytest.approx(0, abs=1e-9)
    assert distances.frechet(right, wrong) > 1


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (np.zeros((1, 2)), np.zeros((5, 2)), "at least 2 images"),
        (np.full((4, 2), np.nan), np.zeros((4, 2)), "not finite"),
    ],
)
def test_bad_sets_are_refused(a, b, says):
    for distance in (distances.frechet, distances.kernel):
        with pytest.raises(ValueError, match=says):
            distance(a, b)
