"""Precision, recall, density, coverage on sets whose answer is plain; resampling; memorisation; diversity."""

import math

import numpy as np
import pytest
import torch

from medtextdiff.evaluation import diversity, manifold, memorisation
from medtextdiff.evaluation.resampling import (
    clustered_share_interval,
    half_sample_interval,
    seed_interval,
    share_interval,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_same_set_is_precise_and_covered(rng):
    rows = rng.normal(size=(50, 3))
    found = manifold.compare(rows, rows, k=3)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_a_set_far_away_is_neither(rng):
    rows = rng.normal(size=(50, 3))
    assert manifold.compare(rows, rows + 100) == (0, 0, 0, 0)


def test_half_of_the_modes_is_precise_but_recalls_half(rng):
    """Real has two clusters; the generator knows one."""
    left, right = rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + 50
    found = manifold.compare(np.concatenate([left, right]), rng.normal(size=(80, 2)), k=5)
    assert found.precision > 0.85
    assert found.recall <= 0.5
    assert 0.3 < found.coverage <= 0.5


def test_density_on_a_line():
    """Real 0, 1, 2, 3 with k = 1: balls of radius 1. A point at 1.5 lies in the balls of 1 and 2."""
    real = np.array([[0.0], [1.0], [2.0], [3.0]])
    found = manifold.compare(real, np.array([[1.5], [1.5]]), k=1)
    assert found.density == 2
    assert found.coverage == 0.5
    assert found.precision == 1
    assert found.recall == 0  # the balls of the generated have radius 0


def test_too_few_images_for_k_are_refused():
    with pytest.raises(ValueError, match="more than 5 images"):
        manifold.compare(np.zeros((5, 2)), np.zeros((9, 2)))


def test_half_samples_of_a_mean_have_its_standard_error(rng):
    """For a mean the delete-half jackknife must give sd / sqrt(N)."""
    values = rng.normal(size=400)
    interval = half_sample_interval(lambda x: float(x.mean()), [values], seed=0, num_resamples=400)
    error = (interval.high - interval.low) / 2 / 1.96
    assert interval.mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std() / 20, rel=0.15)


def test_paired_halves_take_the_same_rows(rng):
    values = rng.normal(size=60)
    interval = half_sample_interval(lambda a, b: float((a - b).mean()), [values, values], seed=0, paired=True)
    assert interval.low == interval.high == 0


def test_seeds_have_an_interval_by_students_t():
    interval = seed_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2
    assert interval.high - 2 == pytest.approx(4.302653 / math.sqrt(3))
    assert math.isnan(seed_interval([1.0]).low)
    eleven = seed_interval([float(k) for k in range(11)])
    assert eleven.high - eleven.mean == pytest.approx(2.228 * np.std(range(11), ddof=1) / math.sqrt(11), rel=1e-3)


def test_wilsons_interval_is_the_textbooks():
    """10 of 100: 0.0552 to 0.1744 (Newcombe 1998's kind of table)."""
    interval = share_interval(10, 100)
    assert interval.low == pytest.approx(0.0552, abs=1e-4)
    assert interval.high == pytest.approx(0.1744, abs=1e-4)
    assert share_interval(0, 10).low == 0
    assert share_interval(10, 10).high == 1
    with pytest.raises(ValueError, match="hits"):
        share_interval(3, 2)


def test_an_interval_over_clusters_covers_what_one_over_cases_does_not(rng):
    """Nine claims of an image of which all are right or none: of 400 draws, how many intervals hold the true share."""
    inside = {"clusters": 0, "cases": 0}
    for _ in range(400):
        right = rng.random(25) < 0.6
        found = {
            "clusters": clustered_share_interval(9 * right, np.full(25, 9)),
            "cases": share_interval(int(9 * right.sum()), 225),
        }
        for name, interval in found.items():
            inside[name] += interval.low <= 0.6 <= interval.high
    assert inside["clusters"] > 0.92 * 400
    assert inside["cases"] < 0.6 * 400


def test_clusters_of_one_case_are_wilsons():
    hits = np.array([1] * 10 + [0] * 90)
    interval = clustered_share_interval(hits, np.ones(100, dtype=int))
    assert interval == pytest.approx(share_interval(10, 100), abs=2e-3)
    assert clustered_share_interval([9, 9, 9], [9, 9, 9]) == share_interval(3, 3)
    with pytest.raises(ValueError, match="cases"):
        clustered_share_interval([2], [1])


def test_copies_are_found_and_new_images_are_not(rng):
    train, held_out, new = (rng.normal(size=(200, 8)) for _ in range(3))
    copies = train[:100] + 1e-3 * rng.normal(size=(100, 8))
    mixed = memorisation.audit(np.concatenate([copies, new[:100]]), train, held_out)
    assert mixed.copies.mean == pytest.approx(0.5, abs=0.03)
    assert (mixed.nearest[:100] == np.arange(100)).all()
    assert mixed.more_than_calibrated
    honest = memorisation.audit(new, train, held_out)
    assert honest.copies.mean < 0.05
    assert not honest.more_than_calibrated
    assert honest.rate <= 0.01


def test_held_out_images_that_were_trained_on_hide_no_copies(rng):
    train, held_out = rng.normal(size=(200, 8)), rng.normal(size=(100, 8))
    held_out[:2] = train[:2]
    found = memorisation.audit(train[:50].copy(), train, held_out)
    assert (found.repeated, found.copies.mean, found.more_than_calibrated) == (2, 1.0, True)
    with pytest.raises(ValueError, match="every held-out image is a training image"):
        memorisation.audit(train[:50], train, train[:10])


def test_held_out_copies_are_found_although_their_last_bits_differ():
    rng = np.random.default_rng(3)
    train, others = rng.normal(size=(60, 20)), rng.normal(size=(30, 20))
    held_out = np.concatenate([others, train[:5] + 1e-7 * rng.normal(size=(5, 20))])
    found = memorisation.audit(train[:10] + 0.01, train, held_out)
    assert found.repeated == 5
    assert found.copies.mean == 1
    assert found.more_than_calibrated


def test_the_chance_of_copies_is_exact(rng):
    """Honest generators are called copiers in at most 5 % of many draws; the formula by hand for one of one."""
    flagged = 0
    for _ in range(300):
        train, held_out, new = rng.normal(size=(20, 1)) * 9, *(rng.normal(size=(40, 1)) * 9 for _ in range(2))
        flagged += memorisation.audit(new, train, held_out, rate=0.05).more_than_calibrated
    assert flagged <= 0.05 * 300 + 10
    assert memorisation._chance_of(1, 1, 1, 1) == pytest.approx(0.5)
    assert memorisation._chance_of(0, 5, 1, 9) == pytest.approx(1)


def test_memorisation_needs_every_set():
    rows = np.zeros((3, 2))
    with pytest.raises(ValueError, match="held-out"):
        memorisation.audit(rows, rows, rows[:0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        memorisation.audit(rows, rows, rows, rate=0.0)


def test_ms_ssim_is_that_of_torchmetrics():
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    g = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 192, 192, generator=g)
    b = (a + 0.2 * torch.rand(2, 3, 192, 192, generator=g)).clamp(0, 1)
    expected = multiscale_structural_similarity_index_measure(b, a, data_range=1.0, reduction="none")
    assert diversity.ms_ssim(a, b).tolist() == pytest.approx(expected.tolist(), abs=0.01)
    assert diversity.ms_ssim(a, a).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_equal_images_are_not_diverse():
    one = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    same = diversity.pair_similarities(one.expand(7, -1, -1, -1), seed=0)
    assert same == pytest.approx([1, 1, 1], abs=1e-5)
    with pytest.raises(ValueError, match="at least two"):
        diversity.pair_similarities(one, seed=0)
    assert [diversity.num_scales(side) for side in (16, 64, 128, 256)] == [1, 3, 4, 5]
    with pytest.raises(ValueError, match="at least 11"):
        diversity.num_scales(8)
