"""The arithmetic of `compare`: several runs of several models on the same images."""

import numpy as np
import pytest

from medtextdiff.evaluation.controlled import compare_runs


def scores(shift=0.1, runs=3):
    random = np.random.default_rng(0)
    reference = random.uniform(0.6, 0.8, (3, 12))
    return {"none": reference, "better": reference[:runs] + shift, "same": reference}


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


def test_fewer_runs_of_one_model_are_compared_by_their_means():
    line = compare_runs(scores(runs=2), num_resamples=300)[1]
    assert line["num_runs"] == 2
    assert line["difference"]["mean"] == pytest.approx(
        float(scores(runs=2)["better"].mean() - scores()["none"].mean()), abs=1e-9
    )


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="5 images"):
        compare_runs({"a": np.ones((2, 6)), "b": np.ones((2, 5))})
