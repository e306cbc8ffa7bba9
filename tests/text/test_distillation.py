"""Teacher and student of different vocabularies meet at the same words, and the student learns."""

import pytest
import torch
from torch import nn

from medtextdiff.text import alignment, lessons, mlm, packed_attention, tokenizer
from medtextdiff.text.distillation import Config, evaluate
from medtextdiff.text.encoders import tiny
from medtextdiff.text.errors import TextError
from medtextdiff.text.masked import bert, modernbert

TEXTS = [f"Nodule {number}: upper-left lobe,\n {number % 7} mm ödem; no effusion seen." for number in range(60)]
BYTES = tokenizer.bytes_only()
PIECES = tokenizer.train(TEXTS * 3, size=400)


class Whole(nn.Module):
    """What a recipe wraps."""

    def __init__(self, student, teacher, words):
        super().__init__()
        self.text = mlm.WithTokenizer(student, words)
        self.teacher = teacher.requires_grad_(False)
        self.projection = nn.Linear(student.config.hidden_size, teacher.config.hidden_size)


@pytest.fixture
def whole():
    torch.manual_seed(0)
    student = modernbert.Config(width=16, layers=2, heads=2, mlp_width=16, local_attention=16).build(PIECES)
    return Whole(student, tiny.Config(width=24, as_bert=True).build().model, PIECES)


def made(**options):
    return lessons.Lessons(TEXTS, PIECES, BYTES, **{"length": 128, "longest": 64, "teacher_longest": 200} | options)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("words", [BYTES, PIECES])
def test_each_token_lies_in_the_word_it_spells(words):
    text = "  Nodule 12:\tupper-left (3mm),\n\n  ödem "
    spans = alignment.word_spans(text)
    assert [text[begin:end] for begin, end in spans] == ["Nodule", "12:", "upper-left", "(3mm),", "ödem"]
    ((ids, numbers),) = alignment.tokenize(words, [text])
    for number, (begin, end) in enumerate(spans):
        spelled = words.decode(ids[numbers == number]).strip()
        assert spelled == (text[begin:end] if words is BYTES else text[begin:end].lower())
    assert len(set(numbers.tolist()) - {-1}) == 5


def test_two_tokenizers_have_other_pieces_of_the_same_words():
    data = made()
    batch = data.collate([data.sample(index, rng()) for index in range(3)])
    num = int(batch["num_words"].sum())
    counts = [torch.bincount(batch[name][batch[name] >= 0], minlength=num) for name in ("words", "teacher_words")]
    assert (counts[1] >= counts[0]).all()
    assert (counts[1] > counts[0]).any()
    for number in range(num):
        ours = PIECES.decode(batch["ids"][batch["words"] == number]).strip()
        theirs = BYTES.decode(batch["teacher_ids"][batch["teacher_words"] == number]).strip()
        assert ours == theirs.lower()


def test_a_word_is_the_mean_of_its_pieces_on_both_sides(whole):
    """Word by word against a model that reads each document alone, and a mean over its pieces written out."""
    data = made()
    batch = data.collate([data.sample(index, rng()) for index in range(2)])
    whole.eval()
    states = packed_attention.states(whole.teacher, batch["teacher_ids"], batch["teacher_lengths"])
    num = int(batch["num_words"].sum())
    found = alignment.means(states, batch["teacher_words"], num)
    documents = zip(
        batch["teacher_ids"].split(batch["teacher_lengths"].tolist()),
        batch["teacher_words"].split(batch["teacher_lengths"].tolist()),
        strict=True,
    )
    done = 0
    for ids, words in documents:
        alone = whole.teacher(input_ids=ids[None]).last_hidden_state[0]
        for number in words[words >= 0].unique():
            pieces = [alone[place] for place in range(len(ids)) if words[place] == number]
            torch.testing.assert_close(found[number], sum(pieces) / len(pieces), atol=1e-5, rtol=0)
            done += 1
    assert done == num


def test_the_loss_is_nothing_for_a_student_that_is_its_teacher(whole):
    torch.manual_seed(0)
    twin = bert.Config(width=24, layers=2, heads=2, mlp_width=24).build(BYTES).eval()
    model = Whole(twin, twin.base_model, BYTES)
    with torch.no_grad():
        model.projection.weight.copy_(torch.eye(24))
        model.projection.bias.zero_()
    data = lessons.Lessons(TEXTS, BYTES, BYTES, length=200, longest=200, teacher_longest=200)
    batch = data.collate([data.sample(0, rng())])
    for distance in ("cosine", "mse"):
        loss = Config(distance=distance, pooled_weight=1.0).build()
        assert float(loss(model, batch, rng())["loss"].detach()) == pytest.approx(0, abs=1e-5)


def test_no_word_of_a_document_is_lost_when_it_is_cut():
    text = " ".join(f"word{number}" for number in range(300)) + " " + "x" * 2000 + " the end"
    data = lessons.Lessons([text], PIECES, BYTES, length=64, longest=64, teacher_longest=120)
    assert len(data._starts) > 10
    pieces = [data.text(piece) for piece in range(len(data._starts) - 1)]
    assert " ".join(pieces).split() == [word for word in text.split() if len(word) < 100]  # not the endless word
    for index in range(len(data)):
        sample = data.sample(index, rng())
        assert sample["lengths"].max() <= 64
        assert sample["teacher_lengths"].max() <= 120
        assert len(sample["ids"]) <= 80


def test_masked_words_are_hidden_from_the_student_alone():
    masker = mlm.Masker(PIECES, mlm.Masking(rate=0.5))
    plain, hidden = made().sample(0, rng()), made(masker=masker).sample(0, rng())
    assert torch.equal(plain["teacher_ids"], hidden["teacher_ids"])
    assert torch.equal(plain["words"], hidden["words"])
    asked = hidden["labels"] != mlm.IGNORED
    assert torch.equal(hidden["labels"][asked], plain["ids"][asked])
    assert (plain["labels"] == mlm.IGNORED).all()
    assert (hidden["ids"] == PIECES.mask_token_id).any()


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_a_student_learns(whole, distance):
    loss = Config(distance=distance, pooled_weight=0.5, mlm_weight=0.1).build()
    data = made(masker=mlm.Masker(PIECES, mlm.Masking()))
    before = evaluate(loss, whole, data)
    assert set(before) == {"loss", "words", "pooled", "mlm"}
    teacher = {name: value.clone() for name, value in whole.teacher.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in whole.parameters() if p.requires_grad], lr=5e-3)
    for step in range(60):
        out = loss(whole, data.collate([data.sample(step % len(data), rng(step))]), rng())
        out["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    after = evaluate(loss, whole, data)
    assert after["words"] < 0.7 * before["words"]
    assert after["mlm"] < before["mlm"]
    assert all(torch.equal(value, teacher[name]) for name, value in whole.teacher.state_dict().items())


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="nothing to learn"):
        Config(word_weight=0.0)
    with pytest.raises(TextError, match="too short"):
        made(longest=5)
    with pytest.raises(TextError, match="no document"):
        lessons.Lessons([], PIECES, BYTES)
