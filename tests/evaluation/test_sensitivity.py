"""The arithmetic of `sensitivity`: tests against the right note, and what was given for what was asked."""

import numpy as np
import pytest

from medtextdiff.evaluation.sensitivity import (
    NOTHING,
    confusion,
    summarise_tellings,
    swapped,
    what_was_given,
)
from medtextdiff.evaluation.sensitivity_page import render, telling_lines


def summary(**options):
    random = np.random.default_rng(0)
    right = random.uniform(0.7, 0.9, 20)
    dice = np.stack([right, right - random.uniform(0.1, 0.2, 20), right])
    changed = np.array([[False] * 20, [True] * 20, [False] * 20])
    return summarise_tellings(["right", "none", "swapped"], dice, changed, num_resamples=500, **options)


def test_a_loss_is_shown_and_no_change_is_not():
    right, none, same = summary()
    assert "difference" not in right
    assert none["verdict"] == "lower"
    assert none["difference"]["high"] < 0
    assert none["p_holm"] == pytest.approx(2 * none["p_value"])
    assert same["verdict"] == "not shown"
    assert same["difference"] == {"mean": 0, "low": 0, "high": 0}
    assert (none["num_changed"], same["num_changed"]) == (20, 0)


def test_groups_widen_the_interval():
    alone, grouped = summary()[0]["dice"], summary(groups=[f"g{k // 5}" for k in range(20)])[0]["dice"]
    assert alone["mean"] == grouped["mean"]
    assert alone["low"] != grouped["low"]


def test_shapes_that_disagree_are_refused():
    with pytest.raises(ValueError, match="do not agree"):
        summarise_tellings(["a"], np.zeros((2, 3)), np.zeros((2, 3), dtype=bool))


def masks():
    left = np.zeros((4, 8), dtype=bool)
    left[:, 5:] = True
    return {"left": left, "right": left[:, ::-1], "all": left | left[:, ::-1]}


def test_the_best_overlap_is_what_was_given():
    truths = masks()
    assert what_was_given(truths["right"], truths, "left") == "right"
    assert what_was_given(np.zeros((4, 8), dtype=bool), truths, "left") == NOTHING
    assert what_was_given(truths["all"], truths, "left") == "all"


def test_a_tie_counts_as_what_was_asked():
    truths = masks()
    truths["also left"] = truths["left"]
    assert what_was_given(truths["left"], truths, "also left") == "also left"
    assert what_was_given(truths["left"], truths, "left") == "left"


def test_confusion_counts_each_answer_once():
    asked, given = ["l", "l", "r", "r"], ["l", "r", "r", NOTHING]
    np.testing.assert_array_equal(confusion(asked, given, ["l", "r"]), [[1, 1, 0], [0, 1, 1]])
    assert swapped(asked, given, {"l": "r", "r": "l"})["num"] == 1


def test_no_swap_in_18_is_no_proof_of_none():
    found = swapped(["l"] * 18, ["l"] * 18, {"l": "r", "r": "l"})
    assert (found["num"], found["of"], found["share"], found["low"]) == (0, 18, 0, 0)
    assert found["high"] == pytest.approx(0.1759, abs=1e-3)  # Wilson


def test_the_page_shows_every_part():
    found = summary()
    report = {
        "title": "Notes <b>",
        "meta": {"seed": 0},
        "num_records": 20,
        "num_images": 10,
        "tellings": found,
        "by_target": {"left": {"num": 10, "dice": found[0]["dice"], "means": {"none": 0.1, "swapped": 0.2}}},
        "answers": {
            "targets": ["left", "right"],
            "counts": [[9, 1, 0], [0, 10, 0]],
            "swapped": swapped(["left"], ["right"], {"left": "right"}),
        },
    }
    page = render(report)
    assert "Notes &lt;b&gt;" in page
    assert "<svg" in page
    assert "1 of 1: 100.0 %" in page
    assert page.count("<section>") == 4
    assert len(telling_lines(found, 20)) == 3
