"""The probes' sentences: train and test are kept apart, labels are even, seeds repeat, and the words mean the label."""

import re
from collections import Counter

import pytest

from medtextdiff.text.probe_sentences import PROBES, TEMPLATES, paraphrases, sentences, shape


def wordings(task, part):
    templates = TEMPLATES[task][part]
    clauses = {clause for label in templates.words for clause in templates.of(label)} | {
        *templates.aside,
        *templates.own_aside,
    }
    return {shape(clause) for clause in clauses}


@pytest.mark.parametrize("task", PROBES)
def test_train_and_test_templates_are_kept_apart(task):
    train, test = wordings(task, "train"), wordings(task, "test")
    assert len(train) >= 5
    assert len(test) >= 5
    assert not train & test


@pytest.mark.parametrize("task", PROBES)
def test_no_test_sentence_is_trained_on(task):
    train, test = sentences(task, "train", 400), sentences(task, "test", 300)
    assert not {one.text for one in train} & {one.text for one in test}
    assert len({one.text for one in train}) == len(train) >= 150
    assert len({one.text for one in test}) == len(test) >= 100


@pytest.mark.parametrize("task", PROBES)
@pytest.mark.parametrize("part", ["train", "test"])
def test_every_label_comes_equally_often(task, part):
    counts = Counter(one.label for one in sentences(task, part, 300))
    assert set(counts) == set(TEMPLATES[task][part].words)
    assert len(set(counts.values())) == 1


@pytest.mark.parametrize("task", PROBES)
def test_seeds_repeat_and_differ(task):
    assert sentences(task, "test", 30, 1) == sentences(task, "test", 30, 1)
    assert sentences(task, "test", 30, 1) != sentences(task, "test", 30, 2)


@pytest.mark.parametrize("task", PROBES)
@pytest.mark.parametrize("part", ["train", "test"])
def test_every_slot_is_filled(task, part):
    for one in sentences(task, part, 300):
        assert "{" not in one.text
        assert one.text[0].isupper() or one.text[0].isdigit()


def test_a_sentence_about_one_side_names_that_side():
    for part in ("train", "test"):
        for one in sentences("side", part, 300):
            if one.label != "both":
                assert re.search(rf"\b{one.label}\b", one.text.lower())


def test_half_of_the_sentences_name_the_other_side_too():
    one_sided = [one.text.lower() for one in sentences("side", "test", 300) if one.label != "both"]
    share = sum("left" in text and "right" in text for text in one_sided) / len(one_sided)
    assert 0.3 < share < 0.7


def test_paraphrases_pair_and_share_no_wording():
    pairs = paraphrases(100)
    assert len({query for query, _ in pairs}) == len({answer for _, answer in pairs}) == 100
    for query, answer in pairs:
        assert ("left" in query.lower()) == ("left" in answer.lower())
    with pytest.raises(ValueError, match="ask for at most"):
        paraphrases(100_000)


def test_no_sentence_of_the_data_is_copied():
    text = " ".join(one.text for task in PROBES for part in ("train", "test") for one in sentences(task, part, 300))
    for phrase in (
        "Bilateral pulmonary infection",
        "The nuclei are evenly distributed",
        "one small yellow round polyp",
    ):
        assert phrase.lower() not in text.lower()


def test_shapes_forget_what_fills_them():
    assert shape("The {side} lung") == shape("the {other}  lung") == "the _ lung"
    assert PROBES[0] == "side"
