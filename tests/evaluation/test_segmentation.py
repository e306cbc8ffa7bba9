import math

import numpy as np
import pytest

from medtextdiff.evaluation.segmentation import Row, score_as_published, score_image, summarise


def foreground(pred, truth, **options):
    return score_image(pred, truth, 2, **options)["foreground"]


def test_equal_masks_are_perfect(make_square):
    scores = foreground(make_square(5, 5), make_square(5, 5))
    assert scores == {"dice": 1, "iou": 1, "hd95": 0, "present": 1, "missed": 0, "false_alarm": 0}


def test_half_overlap(make_square):
    scores = foreground(make_square(5, 5), make_square(5, 10))  # 50 of 100 pixels shared
    assert scores["dice"] == pytest.approx(0.5)
    assert scores["iou"] == pytest.approx(50 / 150)


@pytest.mark.parametrize("shift", [1, 3, 7])
def test_hd95_of_a_shifted_square_is_its_shift(make_square, shift):
    assert foreground(make_square(5, 5), make_square(5, 5 + shift))["hd95"] == pytest.approx(shift)
    assert foreground(make_square(5 + shift, 5), make_square(5, 5))["hd95"] == pytest.approx(shift)


def test_hd95_in_mm_follows_the_axis(make_square):
    down, right = make_square(9, 5), make_square(5, 9)
    assert foreground(down, make_square(5, 5), spacing=(0.5, 2.0))["hd95"] == pytest.approx(2)
    assert foreground(right, make_square(5, 5), spacing=(0.5, 2.0))["hd95"] == pytest.approx(8)


def test_hd95_of_two_far_points():
    pred, truth = np.zeros((2, 40, 40), dtype=np.int64)
    pred[0, 0] = truth[30, 39] = 1
    assert foreground(pred, truth)["hd95"] == pytest.approx(math.hypot(30, 39))


def test_scores_do_not_depend_on_the_order_of_the_masks(make_square):
    a, b = make_square(5, 5, 12), make_square(8, 9, 7)
    for metric in ("dice", "iou", "hd95"):
        assert foreground(a, b)[metric] == pytest.approx(foreground(b, a)[metric])


def test_scores_are_the_same_for_mirrored_masks(make_square):
    a, b = make_square(5, 5, 12), make_square(8, 9, 7)
    assert foreground(a[:, ::-1], b[:, ::-1]) == pytest.approx(foreground(a, b))


def test_a_missed_structure_is_a_miss(make_square):
    nothing = np.zeros((64, 48), dtype=np.int64)
    missed = foreground(nothing, make_square(5, 5))
    assert missed == {"dice": 0, "iou": 0, "hd95": 80, "present": 1, "missed": 1, "false_alarm": 0}  # 64, 48, 80
    invented = foreground(make_square(5, 5), nothing, spacing=(0.5, 0.5))
    assert invented == {"dice": 0, "iou": 0, "hd95": 40, "present": 0, "missed": 0, "false_alarm": 1}


def test_nothing_found_where_nothing_is_counts_as_right():
    nothing = np.zeros((8, 8), dtype=np.int64)
    scores = foreground(nothing, nothing, tolerance=1.0)
    assert (scores["dice"], scores["iou"], scores["hd95"], scores["nsd"]) == (1, 1, 0, 1)
    assert (scores["present"], scores["missed"], scores["false_alarm"]) == (0, 0, 0)


def test_ignored_pixels_count_nowhere(make_square):
    truth, pred = make_square(5, 5), make_square(5, 5)
    pred[40:, :] = 1  # wrong, but nobody knows the truth there
    assert foreground(pred, truth)["dice"] < 1
    truth[40:, :] = 255
    assert foreground(pred, truth) == foreground(make_square(5, 5), make_square(5, 5))


def test_a_structure_found_only_in_ignored_pixels_is_not_found(make_square):
    truth = make_square(5, 5)
    truth[40:, :] = 255
    assert foreground(make_square(45, 5), truth)["missed"] == 1


def test_several_classes():
    truth, pred = np.zeros((2, 30, 30), dtype=np.int64)
    truth[:10], truth[20:] = 1, 2
    pred[:10], pred[20:] = 1, 1  # class 2 taken for class 1
    scores = score_image(pred, truth, 4)
    assert list(scores) == ["foreground", "class_1", "class_2", "class_3"]
    assert scores["foreground"]["dice"] == 1
    assert scores["class_1"]["dice"] == pytest.approx(2 / 3)
    assert (scores["class_2"]["dice"], scores["class_2"]["missed"]) == (0, 1)
    assert (scores["class_3"]["dice"], scores["class_3"]["present"]) == (1, 0)


def test_nsd_grows_with_its_tolerance(make_square):
    masks = make_square(5, 5), make_square(5, 8)
    values = [foreground(*masks, tolerance=t)["nsd"] for t in (0.0, 1.0, 3.0)]
    assert values == sorted(values)
    assert values[0] < values[1] < values[2] == 1


def test_distances_can_be_left_out(make_square):
    masks = make_square(5, 5), make_square(5, 8)
    whole = foreground(*masks)
    assert foreground(*masks, tolerance=1.0, distances=False) == {k: v for k, v in whole.items() if k != "hd95"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pred": np.zeros((7, 8), dtype=np.int64)}, "7 x 8 and the true one 8 x 8"),
        ({"pred": np.full((8, 8), 2)}, "predicted mask has label 2; allowed are 0 to 1"),
        ({"pred": np.full((8, 8), 255)}, "predicted mask has label 255"),
        ({"truth": np.full((8, 8), -1)}, "true mask has label -1; allowed are 0 to 1 and 255"),
        ({"truth": np.full((8, 8), 255)}, "nothing to score"),
        ({"num_classes": 1}, "at least 2"),
        ({"spacing": (0.0, 1.0)}, "size of a pixel in mm"),
        ({"spacing": (math.nan, 1.0)}, "size of a pixel in mm"),
    ],
)
def test_bad_masks_are_refused(change, message):
    zeros = np.zeros((8, 8), dtype=np.int64)
    with pytest.raises(ValueError, match=message):
        score_image(**({"pred": zeros, "truth": zeros, "num_classes": 2} | change))


def test_as_published_follows_its_formula(make_square):
    scores = score_as_published(make_square(5, 5), make_square(5, 10))
    iou = (50 + 1e-5) / (150 + 1e-5)
    assert scores == {"dice": pytest.approx(2 * iou / (1 + iou)), "iou": pytest.approx(iou)}
    nothing = np.zeros((8, 8), dtype=np.int64)
    assert score_as_published(nothing, nothing) == {"dice": 1, "iou": 1}


def test_as_published_takes_logits(make_square):
    pred, truth = make_square(5, 5), make_square(5, 10)
    logits = np.stack([1.0 - pred, pred]).astype(np.float32)
    assert score_as_published(logits, truth) == score_as_published(pred, truth)


def test_summary_is_the_mean_over_images_with_an_interval(rows):
    found = summarise(rows, num_resamples=500)
    dice = [row.scores["foreground"]["dice"] for row in rows]
    summary = found["regions"]["foreground"]["dice"]
    assert summary["mean"] == pytest.approx(np.mean(dice))
    assert min(dice) < summary["low"] < summary["mean"] < summary["high"] < max(dice)
    assert (found["num_images"], found["num_with_notes"], found["num_groups"]) == (9, 8, 9)


def test_summary_is_repeatable_and_takes_its_seed(rows):
    assert summarise(rows, num_resamples=500) == summarise(rows, num_resamples=500)
    assert summarise(rows, num_resamples=500) != summarise(rows, num_resamples=500, seed=1)


def test_a_miss_stays_in_the_summary(make_square, rows):
    miss = Row("miss", score_image(np.zeros((64, 48), dtype=np.int64), make_square(5, 5), 2))
    with_miss = summarise([*rows, miss], num_resamples=50)["regions"]["foreground"]
    hits = [row.scores["foreground"]["hd95"] for row in rows]
    assert with_miss["hd95"]["mean"] == pytest.approx((sum(hits) + 80) / 10)
    assert (with_miss["num_missed"], with_miss["num_present"], with_miss["num_false_alarm"]) == (1, 10, 0)


def test_images_of_one_patient_are_drawn_together(rows):
    def width(groups):
        grouped = [Row(row.id, row.scores, group=group) for row, group in zip(rows, groups, strict=True)]
        dice = summarise(grouped, num_resamples=2000)["regions"]["foreground"]["dice"]
        return dice["high"] - dice["low"]

    alone = width([None] * 9)
    assert width([str(k) for k in range(9)]) == pytest.approx(alone)
    assert width(list("aaabbbccc")) > 1.2 * alone


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [], "no images"),
        (lambda rows: [*rows, rows[0]], "'image_0' was scored twice"),
        (lambda rows: [*rows, Row("x", {"foreground": {"dice": 1.0}})], "'x' has other regions or metrics"),
    ],
)
def test_rows_that_cannot_be_averaged(rows, change, message):
    with pytest.raises(ValueError, match=message):
        summarise(change(rows))


def test_two_thousand_rows_are_quick(rows):
    import time

    many = [Row(f"{k}", rows[k % 9].scores) for k in range(2000)]
    start = time.perf_counter()
    assert summarise(many)["num_images"] == 2000
    assert time.perf_counter() - start < 10
