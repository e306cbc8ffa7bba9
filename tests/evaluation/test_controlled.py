"""The arithmetic of `compare`: several runs of several models on the same images."""

import numpy as np
import pytest

from medtextdiff.evaluation.controlled import compare_runs


def scores(shift=0.1, runs=3):
    random = np.random.default_rng(0)
    reference = random.uniform(0.6, 0.8, (3, 12))
    rows = {"none": reference, "better": reference[:runs] + shift, "same": reference}
    return {name: dict(enumerate(values)) for name, values in rows.items()}


def test_a_gain_is_shown_against_the_first():
    none, better, same = compare_runs(scores(), num_resamples=300)
    assert "difference" not in none
    assert better["verdict"] == "higher"
    assert better["difference"]["mean"] == pytest.approx(0.1)
    assert better["p_holm"] == pytest.approx(2 * better["p_value"])
    assert same["verdict"] == "not shown"
    assert (none["num_runs"], none["num_images"]) == (3, 12)


def test_a_loss_is_lower():
    assert compare_runs(scores(-0.1), num_resamples=300)[1]["verdict"] == "lower"


def test_only_runs_of_the_same_seed_are_compared():
    line = compare_runs(scores(runs=2), num_resamples=300)[1]
    assert (line["num_runs"], line["num_paired"]) == (2, 2)
    assert line["difference"]["mean"] == pytest.approx(0.1)
    lost = scores()
    del lost["none"][0], lost["better"][1]  # as many runs, but of other seeds
    line = compare_runs(lost, num_resamples=300)[1]
    assert (line["num_runs"], line["num_paired"]) == (2, 1)
    assert line["verdict"] == "not shown"  # one pair says nothing of other seeds
    assert line["difference"]["mean"] == pytest.approx(0.1)
    assert line["difference"]["high"] == pytest.approx(0.1)


def test_without_a_seed_in_common_the_means_are_compared():
    apart = {"none": scores()["none"], "better": {7: scores()["better"][0], 8: scores()["better"][1]}}
    line = compare_runs(apart, num_resamples=300)[1]
    assert line["num_paired"] == 0
    expected = np.mean([apart["better"][7], apart["better"][8]]) - np.mean(list(apart["none"].values()))
    assert line["difference"]["mean"] == pytest.approx(expected)
    assert line["verdict"] == "not shown"


def test_one_run_of_each_with_the_same_seed_may_show_a_gain():
    alone = {"none": {0: scores()["none"][0]}, "better": {0: scores()["better"][0]}}
    assert compare_runs(alone, num_resamples=300)[1]["verdict"] == "higher"
    alone["better"] = {1: alone["better"][0]}
    assert compare_runs(alone, num_resamples=300)[1]["verdict"] == "not shown"


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="5 images"):
        compare_runs({"a": {0: np.ones(6)}, "b": {0: np.ones(5)}})
