"""Notes that follow their image."""

import pytest

from medtextdiff.data.notes import flip_note_vertical, mirror_note, rotate_note_90


@pytest.mark.parametrize(
    ("note", "mirrored"),
    [
        ("The nuclei density in the upper right is high.", "The nuclei density in the upper left is high."),
        (
            "one infected areas, left lung and middle right lung.",
            "one infected areas, right lung and middle left lung.",
        ),
        ("Left lung, RIGHT lung", "Right lung, LEFT lung"),
        ("upper-right, lower-left and lower-rigth", "upper-left, lower-right and lower-left"),
        (
            "right-sided effusion, leftmost, rightward, left-hand",
            "left-sided effusion, rightmost, leftward, right-hand",
        ),
        (
            "Bilateral and unilateral findings, bright cleft, aright",
            "Bilateral and unilateral findings, bright cleft, aright",
        ),
        ("opacity in RUL and LLL, not in SUL", "opacity in LUL and RLL, not in SUL"),
        ("mass at 3 o'clock, cyst at 12 o'clock, 10 o’clock", "mass at 9 o'clock, cyst at 12 o'clock, 2 o’clock"),
        ("top-left,left", "top-right,right"),
        ("", ""),
    ],
)
def test_mirror(note, mirrored):
    assert mirror_note(note) == mirrored


def test_known_limit_other_senses_of_right_are_swapped():
    assert mirror_note("if left untreated") == "if right untreated"


@pytest.mark.parametrize(
    ("note", "flipped"),
    [
        ("Density in the upper right", "Density in the lower right"),
        ("at the Top left, above the bottom", "at the Bottom left, below the top"),
        ("superior pole, uppermost, opacity in RLL", "inferior pole, lowermost, opacity in RUL"),
        ("supper, stop, lowering", "supper, stop, lowering"),
        ("6 o'clock and 9 o'clock", "12 o'clock and 9 o'clock"),
    ],
)
def test_flip(note, flipped):
    assert flip_note_vertical(note) == flipped


@pytest.mark.parametrize(
    ("note", "turned"),
    [
        ("The density in the upper right is high.", "The density in the upper left is high."),
        ("in the upper left", "in the lower left"),
        ("in the lower left", "in the lower right"),
        ("in the lower right", "in the upper right"),
        ("Density in the left", "Density in the lower"),
        ("located in top left, right of the image", "located in bottom left, top of the image"),
        ("Upper-right", "Upper-left"),
        ("nothing is said", "nothing is said"),
        ("12 o'clock", "9 o'clock"),
    ],
)
def test_quarter_turn(note, turned):
    assert rotate_note_90(note) == turned


@pytest.mark.parametrize(
    "note",
    ["above the left one", "left lung", "bilateral", "right-sided", "opacity in RUL", "the leftmost", "superior"],
)
def test_quarter_turn_gives_up_where_words_cannot_follow(note):
    assert rotate_note_90(note) is None


NOTES = ["upper right, lower left", "Top left and 4 o'clock", "in the right", "lower"]


@pytest.mark.parametrize("note", NOTES)
def test_group_laws(note):
    assert mirror_note(mirror_note(note)) == note
    assert flip_note_vertical(flip_note_vertical(note)) == note
    assert mirror_note(flip_note_vertical(note)) == flip_note_vertical(mirror_note(note))
    half = rotate_note_90(rotate_note_90(note))
    assert half == mirror_note(flip_note_vertical(note))
    assert rotate_note_90(rotate_note_90(half)) == note
