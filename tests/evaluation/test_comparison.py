import pytest

from medtextdiff.evaluation.comparison import compare
from medtextdiff.evaluation.segmentation import Row


def with_scores(dice, hd95):
    return [
        Row(f"{k}", {"foreground": {"dice": d, "hd95": h}}) for k, (d, h) in enumerate(zip(dice, hd95, strict=True))
    ]


GOOD = with_scores([0.90, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96], [1.0] * 7)
BAD = with_scores([0.80, 0.80, 0.83, 0.81, 0.84, 0.83, 0.86], [3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
MIXED = with_scores([0.99, 0.80, 0.99, 0.81, 0.99, 0.91, 0.99], [1.0] * 7)


def test_a_clear_winner_either_way():
    verdicts = {line["metric"]: line["verdict"] for line in compare(GOOD, {"bad": BAD})}
    assert verdicts == {"dice": "better", "hd95": "better"}  # a smaller distance is better
    assert {line["verdict"] for line in compare(BAD, {"good": GOOD})} == {"worse"}


def test_no_winner_when_the_interval_includes_zero():
    line = compare(GOOD, {"mixed": MIXED})[0]
    assert line["difference"]["low"] < 0 < line["difference"]["high"]
    assert line["verdict"] == "not shown"


def test_no_winner_from_five_images_however_far_apart():
    line = compare(GOOD[:5], {"bad": BAD[:5]})[0]
    assert line["difference"]["low"] > 0
    assert line["p_value"] == pytest.approx(1 / 16)
    assert line["verdict"] == "not shown"


def test_no_winner_over_itself():
    for line in compare(GOOD, {"itself": GOOD}):
        assert (line["p_value"], line["verdict"]) == (1, "not shown")


def test_several_runs_are_corrected():
    alone = compare(GOOD, {"bad": BAD})[0]
    lines = [line for line in compare(GOOD, {"bad": BAD, "mixed": MIXED}) if line["metric"] == "dice"]
    assert [line["against"] for line in lines] == ["bad", "mixed"]
    assert alone["p_holm"] == alone["p_value"]
    assert lines[0]["p_holm"] == pytest.approx(2 * alone["p_value"])


def test_rows_are_paired_by_id_not_by_place():
    assert compare(GOOD, {"bad": BAD[::-1]}) == compare(GOOD, {"bad": BAD})


def test_other_images_or_scores_are_refused():
    with pytest.raises(ValueError, match="'bad' was not scored on the same images: 1 are in one run only, first '6'"):
        compare(GOOD, {"bad": BAD[:6]})
    with pytest.raises(ValueError, match="other regions or metrics"):
        compare(GOOD, {"bad": [Row(row.id, {"foreground": {"dice": 1.0}}) for row in BAD]})
