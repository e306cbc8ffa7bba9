"""The study with people: what is drawn, what the page holds, what the answers say."""

import json
import re

import pytest

from medtextdiff.evaluation import study, study_page

POOLS = {"real": [f"r{k}" for k in range(40)], "one": [f"a{k}" for k in range(30)], "two": [f"b{k}" for k in range(30)]}


def test_half_is_real_and_a_tenth_comes_twice():
    items = study.draw(POOLS, 40, seed=1)
    first = [item for item in items if item.repeats is None]
    again = [item for item in items if item.repeats is not None]
    assert [item.number for item in items] == list(range(1, 45))
    assert {name: sum(item.system == name for item in first) for name in POOLS} == {"real": 20, "one": 10, "two": 10}
    assert len({item.image for item in first}) == 40
    assert len(again) == 4
    for item in again:
        original = items[item.repeats - 1]
        assert (original.image, original.system) == (item.image, item.system)
        assert item.number - original.number >= 5
    assert items == study.draw(POOLS, 40, seed=1)
    assert items != study.draw(POOLS, 40, seed=2)


@pytest.mark.parametrize(
    ("pools", "num", "says"),
    [
        ({"real": ["a"]}, 4, "at least one system"),
        (POOLS, 3, "too few"),
        (POOLS, 100, "smaller -n"),
    ],
)
def test_a_study_that_cannot_be_is_refused(pools, num, says):
    with pytest.raises(ValueError, match=says):
        study.draw(pools, num, seed=0)


def rate(items, rater, **answers):
    """Answers of a rater who knows: `answers` maps a question to a function of the item."""
    return [study.Rating(rater, item.number, {name: say(item) for name, say in answers.items()}) for item in items]


def test_who_sees_through_it_all_and_who_guesses():
    items = study.draw(POOLS, 40, seed=0)
    knows = rate(
        items,
        "A",
        real=lambda item: int(item.system == "real"),
        confidence=lambda item: 5,
        realism=lambda item: 5 if item.system == "real" else 2,
        usable=lambda item: int(item.system == "real"),
    )
    believes = rate(items, "B", real=lambda item: 1, confidence=lambda item: 1, realism=lambda item: 4)
    found = study.score(items, knows + believes, seed=0)
    assert found["raters"]["A"]["recognised"]["all"]["mean"] == 1
    assert found["raters"]["B"]["recognised"]["all"]["mean"] == 0.5
    assert found["raters"]["B"]["recognised"]["synthetic images"]["mean"] == 0
    assert found["raters"]["A"]["agreement with oneself"]["realism"]["equal"] == 1
    assert found["recognised"]["share"]["mean"] == 0.75
    assert found["recognised"]["by confidence"]["5"]["right"] == 1
    assert found["systems"]["one"]["realism"]["mean"] == 3
    assert found["systems"]["one"]["taken for real"]["mean"] == 0.5
    assert found["systems"]["real"]["usable"]["mean"] == 1
    assert found["agreement between raters"]["real"]["alpha"] < 0.5
    json.dumps(found, allow_nan=False)


def test_repeats_count_for_agreement_with_oneself_only():
    items = study.draw(POOLS, 40, seed=0)
    answers = rate(items, "A", real=lambda item: int(item.repeats is None))
    found = study.score(items, answers, seed=0)
    assert found["systems"]["real"]["taken for real"]["mean"] == 1
    assert found["raters"]["A"]["agreement with oneself"]["real"] == {"pairs": 4, "kappa": 0.0, "equal": 0.0}
    assert found["agreement between raters"] == {}


def test_the_page_needs_nothing_and_tells_nothing():
    shown = [study_page.Shown(k, "data:image/png;base64,AAAA", f"a </script> prompt {k}") for k in (1, 2)]
    page = study_page.page("abc", shown, prompts=True)
    assert "</script> prompt" not in page
    told = json.loads(re.search(r'id="sheet">(.*?)</script>', page, re.DOTALL)[1])
    assert [item["prompt"] for item in told["items"]] == ["a </script> prompt 1", "a </script> prompt 2"]
    assert told["items"][0].keys() == {"number", "image", "prompt"}
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//|url\(|@import|fetch\(|XMLHttp", page)
    bare = study_page.page("abc", shown, prompts=False)
    assert "prompt 1" not in bare
