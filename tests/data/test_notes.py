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
        ("from 3 to 5 o'clock", "from 9 to 7 o'clock"),
        ("between 10 and 2 o'clock", "between 2 and 10 o'clock"),
        ("cysts at 3, 5 and 7 o’clock, 11-1 o'clock", "cysts at 9, 7 and 5 o’clock, 1-11 o'clock"),
        ("2 cysts, 3 mm, at 4 o'clock; 12.5 to 4 o'clock", "2 cysts, 3 mm, at 8 o'clock; 12.5 to 8 o'clock"),
        ("", ""),
    ],
)
def test_mirror(note, mirrored):
    assert mirror_note(note) == mirrored


def test_turkish_letters_are_letters_of_the_same_word():
    assert mirror_note("R\u0130GHT lung, r\u0131ght-sided") == "LEFT lung, left-sided"
    assert flip_note_vertical("SUPER\u0130OR, \u0131nferior, \u017fuperior") == "INFERIOR, superior, inferior"
    assert rotate_note_90("Upper R\u0130ght") == rotate_note_90("Upper Right") == "Upper Left"


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
        ("between 10 and 2 o'clock", "between 8 and 4 o'clock"),
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
        ("from 3 to 5 o'clock", "from 12 to 2 o'clock"),
        (
            "The upper-left corner is dark, the right half is not",
            "The lower-left corner is dark, the upper half is not",
        ),
        ("a polyp on the left side of the image", "a polyp on the lower side of the image"),
        ("in the upper-center, center-left and lower-rigth", "in the left-center, center-lower and upper-right"),
    ],
)
def test_quarter_turn(note, turned):
    assert rotate_note_90(note) == turned


@pytest.mark.parametrize(
    "note",
    [
        "above the left one",
        "left lung",
        "bilateral",
        "right-sided",
        "opacity in RUL",
        "the leftmost",
        "superior",
        "dilated left ventricle",
        "left and right atrium",
        "fracture of the left femur, upper third",
        "upper part of the stomach",
        "left of the polyp",
        "the density is lower.",
        "left untreated",
    ],
)
def test_quarter_turn_gives_up_where_words_cannot_follow(note):
    assert rotate_note_90(note) is None


@pytest.mark.parametrize(
    ("note", "turned"),
    [
        ("in the left", "in the upper"),
        ("in the right", "in the lower"),
        ("in the upper", "in the right"),
        ("in the upper left", "in the upper right"),
        ("at the bottom right of the image, 3 o'clock", "at the bottom left of the image, 12 o'clock"),
        ("left lung", None),
    ],
)
def test_quarter_turn_of_the_patients_sides(note, turned):
    assert rotate_note_90(note, "patient") == turned


NOTES = ["upper right, lower left", "Top left and 4 o'clock", "in the right", "lower"]


@pytest.mark.parametrize("note", NOTES)
def test_group_laws(note):
    assert mirror_note(mirror_note(note)) == note
    assert flip_note_vertical(flip_note_vertical(note)) == note
    assert mirror_note(flip_note_vertical(note)) == flip_note_vertical(mirror_note(note))
    half = rotate_note_90(rotate_note_90(note))
    assert half == mirror_note(flip_note_vertical(note))
    assert rotate_note_90(rotate_note_90(half)) == note
    assert rotate_note_90(rotate_note_90(note, "patient"), "patient") == half
