"""What a sentence asserts, by rules."""

import pytest

from medtextdiff.text.assertions import NAMES, asserted


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("Large left pleural effusion.", {"affirmed", "effusion", "left", "severe"}),
        ("Nodules in both lungs", {"affirmed", "nodule", "left", "right", "both"}),
        ("Three cysts at the bottom", {"affirmed", "cyst", "three", "lower"}),
        ("Mild OEDEMA", {"affirmed", "edema", "mild"}),
        ("", set()),
        ("Seen yesterday.", set()),
    ],
)
def test_findings_with_side_number_height_and_degree(sentence, said):
    assert asserted(sentence) == said


@pytest.mark.parametrize(
    "sentence",
    [
        "No pneumothorax, effusion, or consolidation.",
        "There is no evidence of pneumonia",
        "Pulmonary embolism was ruled out",
        "The lungs are free of infiltrates",
        "The effusion has resolved",
        "Nodules are not seen",
        "She denied fever or pain",
        "Neither mass nor cyst",
        "No disease of the left lung",
    ],
)
def test_what_is_denied_is_said_to_be_denied_and_nothing_else(sentence):
    assert asserted(sentence) == {"denied"}


@pytest.mark.parametrize(
    "sentence",
    [
        "The effusion has not resolved",
        "No change in the effusion",
        "No significant interval change in the effusion",
        "Effusion cannot be excluded",
        "CT without contrast: effusion",
    ],
)
def test_words_that_look_like_a_denial(sentence):
    assert asserted(sentence) == {"affirmed", "effusion"}


def test_a_clear_or_denied_side_is_no_place_of_a_finding():
    for sentence in (
        "The right lung is clear; consolidation on the left.",
        "Consolidation on the left, no effusion of the right lung",
        "No effusion on the right, but consolidation on the left",
    ):
        found = asserted(sentence)
        assert {"consolidation", "left"} <= found
        assert not {"right", "both", "effusion"} & found


def test_height_and_side_that_stand_together_belong_together():
    found = asserted("Opacities in the upper left lung and lower right lung")
    assert {"left upper", "right lower"} <= found
    assert not {"left lower", "right upper", "left middle"} & found
    assert {"left upper", "left middle", "left lower"} <= asserted("Infection of all left lung")
    assert "left lower" in asserted("opacity of the left lower lobe")


def test_a_number_counts_where_things_are_counted():
    assert "two" in asserted("Two infected areas")
    for size in ("A lesion of 2 cm", "A 2 mm nodule", "1.2 cm mass", "2 x 3 cm lesion", "No 1.2 cm mass"):
        assert not {"one", "two", "three"} & asserted(size)
    assert {"two", "three"} & asserted("Two 3 mm nodules") == {"two"}


def test_every_name_is_known_and_once():
    assert len(set(NAMES)) == len(NAMES)
    assert asserted("Severe bilateral pneumonia, multiple patches, left upper lobe; no fever") <= set(NAMES)


def test_an_endless_word_takes_no_endless_time():
    assert asserted("Effusion, " + "x" * 200_000 + "; left " * 1_000) >= {"affirmed", "effusion"}
