"""Notes told otherwise: what each edit does, that seeds repeat, and that what is not concerned stays."""

import itertools

import pytest

from medtextdiff.data import note_edits

LUNGS = "Bilateral pulmonary infection, two infected areas, all left lung and middle right lung."
NUCLEI = "The nuclei density in the upper right is high."


@pytest.mark.parametrize(
    ("note", "left"),
    [
        (LUNGS, "Pulmonary infection, two infected areas, all lung and lung."),
        ("The left lung.", "The lung."),
        ("Opacity in the RUL, left-sided effusion.", "Opacity in the, effusion."),
        ("all lesions", "all lesions"),
        ("", ""),
        ("Bright cells, copyright leftover", "Bright cells, copyright leftover"),
    ],
)
def test_places_are_dropped(note, left):
    assert note_edits.drop_places(note) == left


@pytest.mark.parametrize("note", [LUNGS, NUCLEI, "one large round polyp, located in center of the image"])
def test_rewording_changes_the_words_and_keeps_sides(note):
    told = note_edits.reword(note)
    assert told != note
    for word in ("left", "right", "upper", "middle"):
        assert told.count(word) == note.count(word)
    assert told[0].isupper() == note[0].isupper()


def test_what_has_no_known_phrase_is_not_reworded():
    assert note_edits.reword("All lesions.") == "All lesions."


def test_typos_repeat_by_seed_and_grow_with_the_share():
    note = LUNGS + " " + NUCLEI
    assert note_edits.misspell(note, 0.2, 3) == note_edits.misspell(note, 0.2, 3)
    assert note_edits.misspell(note, 0.2, 3) != note_edits.misspell(note, 0.2, 4)
    wrong = [_changed(note, note_edits.misspell(note, share, 3)) for share in (0.0, 0.05, 0.1, 0.2, 1.0)]
    assert wrong[0] == set()
    assert all(a <= b for a, b in itertools.pairwise(wrong))
    assert wrong[-1] == {k for k, word in enumerate(note.split()) if len(word.strip(",.")) >= 3}


def test_the_share_of_typos_holds_on_average():
    counts = [len(_changed(NUCLEI, note_edits.misspell(NUCLEI, 0.1, seed))) for seed in range(400)]
    assert sum(counts) / 400 / len(NUCLEI.split()) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_beyond_all_words_is_refused(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        note_edits.misspell(NUCLEI, share)


def test_every_typo_is_one():
    for seed in range(200):
        word = note_edits.misspell("Aabb", 1.0, seed)
        assert word != "Aabb"
        assert 3 <= len(word) <= 5


def test_another_is_the_next_that_differs():
    assert [note_edits.another(["a", "a", "b"], k) for k in range(3)] == ["b", "b", "a"]
    with pytest.raises(ValueError, match="share one note"):
        note_edits.another(["a", "a"], 0)


def test_another_is_of_another_image_and_says_something():
    notes, images = ["left", "right", "", "left", "both"], ["1", "1", "2", "3", "3"]
    assert [note_edits.another(notes, k, images) for k in range(5)] == ["both", "left", "left", "right", "left"]
    with pytest.raises(ValueError, match="share one note"):
        note_edits.another(["left", "right"], 0, ["1", "1"])


def test_other_text_is_long_enough_and_names_no_place():
    text = note_edits.other_text(300, lambda text: len(text.split()), seed=1)
    assert 300 <= len(text.split()) < 600
    assert note_edits.drop_places(text) == text
    assert text != note_edits.other_text(300, lambda text: len(text.split()), seed=2)


def test_a_buried_note_ends_the_text_and_an_absent_one_stays_absent():
    assert note_edits.bury("Left lung.", "Other.") == "Other. Left lung."
    assert note_edits.bury("", "Other.") == ""


def test_the_unrelated_sentence_follows_from_note_and_seed():
    assert note_edits.unrelated(LUNGS, 1) == note_edits.unrelated(LUNGS, 1)
    assert {note_edits.unrelated(LUNGS, seed) for seed in range(40)} == set(note_edits.UNRELATED)


def _changed(note, told):
    return {k for k, (a, b) in enumerate(zip(note.split(), told.split(), strict=True)) if a != b}
