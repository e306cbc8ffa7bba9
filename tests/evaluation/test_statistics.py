import numpy as np
import pytest

from medtextdiff.evaluation.controlled import compare_runs
from medtextdiff.evaluation.statistics import (
    bootstrap_interval,
    bootstrap_intervals,
    bootstrap_two_level,
    holm,
    paired_test,
)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        interval = bootstrap_interval(rng.normal(0.8, 0.1, size=40), seed=trial, num_resamples=400)
        covered += interval.low <= 0.8 <= interval.high
    assert 0.90 <= covered / 400 <= 0.98


def test_the_interval_is_that_of_the_normal_law_for_many_values():
    values = np.random.default_rng(1).normal(size=2000)
    interval = bootstrap_interval(values, seed=0)
    assert interval.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / np.sqrt(2000)
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_the_interval_moves_and_scales_with_the_values():
    values = np.random.default_rng(2).random(15)
    one = bootstrap_interval(values, seed=3)
    other = bootstrap_interval(10 + 2 * values, seed=3)
    assert other == pytest.approx([10 + 2 * end for end in one])


def test_a_wider_level_gives_a_wider_interval():
    values = np.random.default_rng(2).random(15)
    narrow, wide = (bootstrap_interval(values, seed=0, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_equal_values_and_single_values_have_no_width():
    assert bootstrap_interval([0.5] * 8, seed=0) == (0.5, 0.5, 0.5)
    assert bootstrap_interval([0.7], seed=0) == (0.7, 0.7, 0.7)


def test_columns_are_as_if_alone():
    table = np.random.default_rng(3).random((12, 3))
    together = bootstrap_intervals(table, seed=5, num_resamples=300)
    assert together == [pytest.approx(bootstrap_interval(column, seed=5, num_resamples=300)) for column in table.T]


def test_groups_of_equal_images_count_as_one():
    values = np.random.default_rng(4).random(10)
    single = bootstrap_interval(values, seed=0)
    twice = bootstrap_interval(np.repeat(values, 2), seed=0, groups=[str(k) for k in range(10) for _ in range(2)])
    assert twice == pytest.approx(single)


def test_two_levels_with_equal_runs_are_one_level():
    values = np.random.default_rng(5).random(20)
    two = bootstrap_two_level(np.tile(values, (3, 1)), seed=0)
    one = bootstrap_interval(values, seed=1)
    assert two.mean == pytest.approx(one.mean)
    assert two.high - two.low == pytest.approx(one.high - one.low, rel=0.1)


def test_two_levels_see_the_spread_between_runs():
    images = np.random.default_rng(6).normal(0.8, 0.02, size=20)
    runs = np.array([-0.1, 0.0, 0.1])[:, None]
    two = bootstrap_two_level(images + runs, seed=0)
    one = bootstrap_interval(images, seed=0)
    assert two.high - two.low > 3 * (one.high - one.low)
    many_runs = bootstrap_two_level((images + runs).T, seed=0)  # more rows than columns
    assert many_runs.mean == pytest.approx(two.mean)


def test_wilcoxon_is_scipys():
    from scipy import stats

    rng = np.random.default_rng(7)
    for n in (6, 20, 80):
        a, b = rng.random(n), rng.random(n)
        assert paired_test(a, b).p_value == pytest.approx(stats.wilcoxon(a, b).pvalue, rel=1e-6)


def test_wilcoxon_known_values():
    assert paired_test([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5).p_value == pytest.approx(2 / 2**5)
    assert paired_test([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0] * 6).p_value == pytest.approx(2 / 2**6)
    assert paired_test([1.0, -1.0], [0.0, 0.0]).p_value == pytest.approx(1)


def test_wilcoxon_with_ties_is_exact_for_few_pairs():
    # Five equal differences: all 32 signs are equally likely, two of them are as far out.
    found = paired_test([0.8, 0.5, 0.3, 0.9, 0.2], [0.7, 0.4, 0.2, 0.8, 0.1])
    assert found.p_value == pytest.approx(2 / 32)
    assert found.difference == pytest.approx((0.1, 0.1, 0.1))


def test_equal_scores_give_p_one():
    found = paired_test([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    assert (found.p_value, found.num_pairs) == (1.0, 3)
    assert found.difference == (0, 0, 0)


def test_the_paired_test_is_antisymmetric():
    rng = np.random.default_rng(8)
    a, b = rng.random(12), rng.random(12)
    one, other = paired_test(a, b), paired_test(b, a)
    assert one.p_value == other.p_value
    assert one.difference.mean == pytest.approx(-other.difference.mean)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.04]) == [0.04]
    assert holm([]) == []
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([], seed=0), "at least one image"),
        (lambda: bootstrap_interval([0.1, float("nan")], seed=0), "1 of 2 values are not finite"),
        (lambda: bootstrap_interval([0.1], seed=0, level=95.0), "between 0 and 1"),
        (lambda: bootstrap_interval([0.1], seed=0, num_resamples=0), "at least 1"),
        (lambda: bootstrap_interval([0.1, 0.2], seed=0, groups=["a"]), "1 groups for 2 values"),
        (lambda: paired_test([0.1, 0.2], [0.1]), "same images"),
        (lambda: holm([1.2]), "between 0 and 1"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_two_levels_draw_groups_whole():
    values = np.random.default_rng(8).random((3, 10))
    single = bootstrap_two_level(values, seed=0)
    twice = bootstrap_two_level(
        np.repeat(values, 2, axis=1), seed=0, groups=[str(k) for k in range(10) for _ in range(2)]
    )
    assert twice == pytest.approx(single)


def test_a_group_is_one_pair_of_the_test():
    a, b = np.random.default_rng(9).random((2, 12))
    names = [str(k) for k in range(12) for _ in range(3)]
    alone = paired_test(a, b)
    thrice = paired_test(np.repeat(a, 3), np.repeat(b, 3), groups=names)
    assert thrice.p_value == pytest.approx(alone.p_value)
    assert thrice.num_pairs == 36
    assert paired_test(np.repeat(a, 3), np.repeat(b, 3)).p_value < alone.p_value


def test_slices_of_few_patients_seldom_show_a_difference_that_is_none():
    shown = 0
    for draw in range(40):
        random = np.random.default_rng(draw)
        own = np.repeat(random.normal(0, 0.05, 10), 10)  # of ten patients, ten slices each; no true difference
        runs = 0.7 + random.normal(0, 0.01, (3, 100))
        better = compare_runs(
            {"none": dict(enumerate(runs)), "other": dict(enumerate(runs + own))},
            num_resamples=300,
            groups=[str(k // 10) for k in range(100)],
        )[1]
        shown += better["verdict"] != "not shown"
    assert shown <= 5
