"""Sentences told otherwise, contradicted, and told apart."""

import random

import pytest
import torch

from medtextdiff.recipes import job
from medtextdiff.text import assertions, contrast, meaning, mlm, tokenizer
from medtextdiff.text.errors import TextError
from medtextdiff.text.masked import bert, modernbert

WORDS = tokenizer.bytes_only()
SIDES = ("left", "right")
DOCUMENTS = [
    f"A {size} mass in the {side} lung, seen {n} times."
    for size in ("small", "large")
    for side in SIDES
    for n in range(1, 9)
]
SETTINGS = contrast.Config(num=6, contradictions=2, joined=0.5)


def model(kind=modernbert):
    torch.manual_seed(0)
    sizes = {"width": 32, "layers": 2, "heads": 2, "mlp_width": 32}
    return kind.Config(**sizes).build(WORDS)


def contrasted(settings=SETTINGS):
    data = mlm.MaskedWords(DOCUMENTS, WORDS, length=256)
    return contrast.Contrasted(data, contrast.Sentences(DOCUMENTS, settings), WORDS)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sentence", ["No effusion.", "The LEFT lung.", "3 nodules", "An opacity, bilateral"])
def test_a_telling_sentence_holds_a_word_that_another_excludes(sentence):
    assert meaning.is_telling(sentence)


@pytest.mark.parametrize("sentence", ["", "The heart is seen.", "Noble leftovers", "10 cm"])
def test_parts_of_words_tell_nothing(sentence):
    assert not meaning.is_telling(sentence)


def test_a_contradiction_differs_in_one_word_or_two_that_changed_places():
    for seed in range(40):
        sentence = "The left lung is clear; a mass in the right lung."
        found = meaning.contradict(sentence, random.Random(seed))
        before, after = sentence.split(), found.split()
        assert len(before) == len(after)
        changed = [(a.strip(".;"), b.strip(".;")) for a, b in zip(before, after, strict=True) if a != b]
        if len(changed) == 2:
            assert changed == [("left", "right"), ("right", "left")]
        else:
            assert len(changed) == 1
            if changed[0] == ("a", "no"):  # a mass denied
                continue
            assert any(changed[0][0] in group and changed[0][1] in group for group in meaning.GROUPS)


@pytest.mark.parametrize(
    ("sentence", "turned"),
    [
        ("There is an effusion.", "There is no effusion."),
        ("Pneumonia is seen.", "No pneumonia is seen."),
        ("No effusion.", "Effusion."),
        ("There is no polyp here.", "There is polyp here."),
    ],
)
def test_a_finding_may_be_denied_and_a_denied_one_affirmed(sentence, turned):
    assert turned in {meaning.contradict(sentence, random.Random(seed)) for seed in range(60)}


@pytest.mark.parametrize(
    "sentence",
    [
        *(
            "There is not any effusion.",
            "The effusion is not seen.",
            "Negative for pneumonia.",
            "An effusion is absent.",
        ),
        *("There is a large pleural effusion.", "A 3 cm mass in the left lung."),  # not before the noun alone
    ],
)
def test_nothing_is_denied_twice_or_in_the_middle(sentence):
    found = {meaning.contradict(sentence, random.Random(seed)) for seed in range(60)}
    assert not any("no " in text.lower() for text in found)


def test_words_joined_by_and_do_not_change_places():
    found = {meaning.contradict("Left and right lung.", random.Random(seed)) for seed in range(40)}
    assert "Right and left lung." not in found
    assert "Bilateral and right lung." in found  # capitals stay where they were


@pytest.mark.parametrize(
    "sentence",
    [
        "Consolidation in the left lung and in the right lung.",
        "The left lung and the right lung are clear.",
        "left kidney, right kidney",
    ],
)
def test_words_of_one_phrase_said_twice_do_not_change_places(sentence):
    """The right lung and the left lung are the same two."""
    words = sorted(sentence.lower().split())
    found = [meaning.contradict(sentence, random.Random(seed)) for seed in range(60)]
    assert not [told for told in found if sorted(told.lower().split()) == words]


def test_words_of_two_phrases_do_change_places():
    sentence = "A nodule in the left lung and a mass in the right lung."
    told = {meaning.contradict(sentence, random.Random(seed)) for seed in range(60)}
    assert "A nodule in the right lung and a mass in the left lung." in told


@pytest.mark.parametrize("denial", ["None", "Nothing", "isn't", "isn\u2019t"])
def test_reworded_no_denial_is_lost(denial):
    sentence = f"{denial} of the lesions on the left is new"
    assert all(denial.lower() in meaning.reword(sentence, random.Random(seed)).lower() for seed in range(60))


def test_a_sentence_that_tells_nothing_cannot_be_contradicted():
    with pytest.raises(ValueError, match="no word"):
        meaning.contradict("The heart is seen.", random.Random(0))


def test_reworded_a_sentence_keeps_every_telling_word():
    sentence = "Two masses in the upper left lobe, without effusion, seen by the reader."
    told = {meaning.reword(sentence, random.Random(seed)) for seed in range(30)}
    assert len(told) > 10
    for one in told:
        assert {"two", "upper", "left", "without", "effusion"} <= set(one.lower().replace(",", "").split())


@pytest.mark.parametrize(
    ("sentence", "kept"),
    [
        ("Pleural effusion is not seen on the left side, the radiologist says.", {"not", "effusion"}),
        ("The large effusion that was seen has resolved since yesterday.", {"resolved", "effusion"}),
        ("A fracture of the rib was ruled out by the film of the day.", {"ruled", "out", "fracture"}),
    ],
)
def test_reworded_what_is_denied_stays_denied(sentence, kept):
    for seed in range(30):
        assert kept <= set(meaning.reword(sentence, random.Random(seed)).lower().strip(".").split())


def test_a_list_that_is_denied_is_not_turned_round():
    sentence = "No effusion, pneumothorax, fracture"
    for seed in range(30):
        assert meaning.reword(sentence, random.Random(seed)).lower().startswith("no effusion, pneumothorax")


def test_an_endless_sentence_is_no_sentence():
    endless = "left " + ",".join(map(str, range(1, 3000)))
    with pytest.raises(TextError, match="has 0 different sentences"):
        contrast.Sentences([endless], SETTINGS)


def test_draws_are_sentences_their_wordings_and_their_contradictions():
    drawn = contrast.Sentences(DOCUMENTS, SETTINGS).draw(random.Random(1))
    assert len(drawn) == 6 * 4
    plain, against = drawn[6:12], drawn[12:]
    assert len(set(plain)) == 6
    for number, sentence in enumerate(plain):
        assert all(one != sentence for one in against[2 * number : 2 * number + 2])
    assert drawn == contrast.Sentences(DOCUMENTS, SETTINGS).draw(random.Random(1))


def test_no_more_sentences_are_kept_than_asked_for_and_each_once():
    many = [f"A mass in the left lung {word}." for word in map(str, range(500))]
    kept = contrast.Sentences([*many, *many], SETTINGS.replace(kept=50))
    assert len(kept) == 50
    assert len(contrast.Sentences([*many, *many], SETTINGS)) == 500
    assert any(int(text.split()[-1].strip(".")) > 250 for text in kept.draw(random.Random(0))[6:12])  # not the first 50


def test_too_few_telling_sentences_are_told():
    with pytest.raises(TextError, match="contrast=null"):
        contrast.Sentences(["The heart is seen. A mass in the left lung."], SETTINGS)


@pytest.mark.parametrize("kind", [modernbert, bert])
def test_it_learns_to_tell_them_apart_and_masked_words_count_too(kind):
    data, network, loss = contrasted(), model(kind), SETTINGS.beside(mlm.loss)
    batch = data.collate([data.sample(0, rng()), data.sample(1, rng(1))])
    first = loss(network, batch)
    alone = mlm.loss(network, batch)
    torch.testing.assert_close(first["rest_loss"], alone["loss"].detach())
    torch.testing.assert_close(first["loss"], alone["loss"] + first["contrast"])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(25):
        optimizer.zero_grad()
        loss(network, batch)["loss"].backward()
        optimizer.step()
    last = loss(network, batch)
    assert last["contrast"] < 0.8 * first["contrast"]


def test_a_row_finds_itself_among_its_own_sentences_alone():
    """Two rows in a batch are two contests, so that processes can share a batch."""
    settings = SETTINGS.replace(asserted=1.0)
    data, network = contrasted(settings), model().eval()
    head = settings.head(network)["asserted"]
    one, two = data.sample(0, rng()), data.sample(1, rng(1))
    with torch.no_grad():
        apart = [settings.told_apart(network, data.collate([row]), head) for row in (one, two)]
        together = settings.told_apart(network, data.collate([one, two]), head)
    for name in ("contrast", "asserted"):
        mean = torch.stack([found[name] for found in apart]).mean()
        torch.testing.assert_close(together[name], mean, rtol=1e-4, atol=1e-4)


def test_scores_are_the_same_each_time():
    data, network = contrasted(), model().eval()
    first = contrast.evaluate(network, SETTINGS, data, draws=2)
    assert first == contrast.evaluate(network, SETTINGS, data, draws=2)
    assert 0 <= first["told_apart"] <= 1


@pytest.mark.parametrize("weights", [{}, {"own_words": 0.5}, {"own_words": 0.5, "asserted": 0.5}])
def test_scores_are_named_before_there_are_any(weights: dict[str, float]):
    settings = SETTINGS.replace(**weights)
    data, network = contrasted(settings), model().eval()
    head = settings.head(network).get("asserted")
    assert tuple(contrast.evaluate(network, settings, data, draws=1, head=head)) == settings.scores()


def test_a_sentence_learns_to_find_its_own_words_among_all():
    settings = SETTINGS.replace(own_words=0.5)
    data, network, loss = contrasted(settings), model(), settings.beside(mlm.loss)
    batch = data.collate([data.sample(0, rng())])
    first = loss(network, batch)
    torch.testing.assert_close(
        first["loss"], first["rest_loss"] + first["contrast"] + 0.5 * first["own_words"], rtol=1e-5, atol=1e-5
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss(network, batch)["loss"].backward()
        optimizer.step()
    last = loss(network, batch)["own_words"]
    different = [len(set(ids.tolist())) for ids in batch["told"].split(batch["told_lengths"].tolist())]
    least = float(torch.tensor(different, dtype=torch.float32).log().mean())  # all its words, and them alone
    assert least < last < 0.7 * first["own_words"]


def test_a_sentence_learns_to_show_what_it_asserts():
    settings = SETTINGS.replace(asserted=1.0)
    data, network = contrasted(settings), model()
    whole = job.Wrapped(text=network, **settings.head(network))
    loss = settings.beside(job.on_component("text", mlm.loss), text=lambda wrapped: wrapped.text)
    batch = data.collate([data.sample(0, rng()), data.sample(1, rng(1))])
    assert batch["asserted"].shape == (2 * 6 * 3, len(assertions.NAMES))
    first = loss(whole, batch, rng())
    torch.testing.assert_close(
        first["loss"], first["rest_loss"] + first["contrast"] + first["asserted"], rtol=1e-5, atol=1e-5
    )
    optimizer = torch.optim.Adam(whole.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss(whole, batch, rng())["loss"].backward()
        optimizer.step()
    assert loss(whole, batch, rng())["asserted"] < 0.5 * first["asserted"]


def test_what_is_asserted_is_that_of_each_sentence_and_contradiction():
    settings = SETTINGS.replace(asserted=1.0)
    sentences = contrast.Sentences(DOCUMENTS, settings)
    found = contrast.Contrasted(mlm.MaskedWords(DOCUMENTS, WORDS, length=256), sentences, WORDS).sentences(
        random.Random(3)
    )
    drawn = sentences.draw(random.Random(3))[settings.num :]
    assert len(found["asserted"]) == len(drawn)
    for text, row in zip(drawn, found["asserted"].tolist(), strict=True):
        assert {name for name, is_said in zip(assertions.NAMES, row, strict=True) if is_said} == assertions.asserted(
            text
        )


def test_without_it_there_is_no_head_and_nothing_to_learn():
    assert SETTINGS.head(model()) == {}
    assert "asserted" not in contrasted().sample(0, rng())
