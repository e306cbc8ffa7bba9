import math

import numpy as np
import pytest
import torch

from medtextdiff.config import ConfigError
from medtextdiff.text import lora, mlm, tokenizer
from medtextdiff.text.errors import TextError
from medtextdiff.text.masked import bert, modernbert

DOCUMENTS = [f"Document {number}: nuclei in the upper right, {number % 7} mm." for number in range(200)]
WORDS = tokenizer.bytes_only()


@pytest.fixture(scope="module")
def data():
    return mlm.MaskedWords(DOCUMENTS, WORDS, length=64)


def model(**changes):
    torch.manual_seed(0)
    sizes = {"width": 32, "layers": 4, "heads": 2, "mlp_width": 32, "local_attention": 16}
    return modernbert.Config(**sizes | changes).build(WORDS)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_rows_hold_every_document_whole_and_once():
    data = mlm.MaskedWords(DOCUMENTS, WORDS, length=256)
    found = []
    for index in range(len(data)):
        ids, lengths = data.row(index)
        assert len(ids) <= 256
        assert int(lengths.sum()) == len(ids)
        found += [WORDS.decode(part, skip_special_tokens=True).strip() for part in ids.split(lengths.tolist())]
        assert all(part[0] == WORDS.cls_token_id for part in ids.split(lengths.tolist()))
    assert sorted(found) == sorted(DOCUMENTS)
    assert data.num_tokens == sum(len(WORDS(text)["input_ids"]) for text in DOCUMENTS)
    assert data.num_tokens > 0.9 * 256 * (len(data) - 1)


def test_a_document_longer_than_a_row_is_cut_and_none_of_it_lost():
    data = mlm.MaskedWords(["a" * 1000], WORDS, length=128)
    rows = [data.row(index) for index in range(len(data))]
    assert sum(int((ids == WORDS.convert_tokens_to_ids("a")).sum()) for ids, _ in rows) == 1000
    assert max(len(ids) for ids, _ in rows) <= 128
    short = mlm.MaskedWords(["a" * 1000], WORDS, length=128, longest=20)
    assert max(int(short.row(index)[1].max()) for index in range(len(short))) <= 20


def test_a_note_that_names_a_special_token_means_the_letters():
    data = mlm.MaskedWords(["see [MASK] and [SEP]"], WORDS, length=64)
    assert torch.isin(data.row(0)[0], data._mask.specials).sum() == 2


def test_masking_statistics(data):
    samples = [data.sample(index, rng(index)) for index in range(len(data))]
    batch = data.collate(samples)
    asked = batch["labels"] != mlm.IGNORED
    words = ~torch.isin(torch.where(asked, batch["labels"], batch["ids"]), data._mask.specials)
    num = int(asked.sum())
    assert not (asked & ~words).any(), "a special token was asked for"
    assert asked.sum() / words.sum() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / int(words.sum())))
    masked = (batch["ids"] == WORDS.mask_token_id) & asked
    kept = (batch["ids"] == batch["labels"]) & asked
    spread = 4 / math.sqrt(num)
    assert masked.sum() / num == pytest.approx(0.8, abs=0.4 * spread)
    assert kept.sum() / num == pytest.approx(0.1 + 0.1 / 256, abs=0.3 * spread)
    swapped = batch["ids"][asked & ~masked & ~kept]
    assert not torch.isin(swapped, data._mask.specials).any()
    assert len(swapped.unique()) > 100


def test_words_that_are_not_asked_for_stay(data):
    sample = data.sample(3, rng())
    quiet = sample["labels"] == mlm.IGNORED
    assert torch.equal(sample["ids"][quiet], data.row(3)[0][quiet])


def test_the_same_generator_gives_the_same_masks(data):
    first, again, other = data.sample(0, rng(1)), data.sample(0, rng(1)), data.sample(0, rng(2))
    assert torch.equal(first["ids"], again["ids"])
    assert not torch.equal(first["labels"], other["labels"])


def test_a_row_always_asks_something():
    rare = mlm.MaskedWords(["ab"], WORDS, length=8, masking=mlm.Masking(rate=1e-9))
    assert (rare.sample(0, rng())["labels"] != mlm.IGNORED).sum() == 1


def padded_loss(network, batch):
    """The loss with each document in a row of its own, padded to the longest, by transformers alone."""
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence(batch["ids"].split(batch["lengths"].tolist()), batch_first=True)
    labels = pad_sequence(batch["labels"].split(batch["lengths"].tolist()), batch_first=True, padding_value=-100)
    real = pad_sequence([torch.ones(n) for n in batch["lengths"].tolist()], batch_first=True)
    return network(input_ids=ids, attention_mask=real, labels=labels).loss


@pytest.mark.parametrize("family", [modernbert, bert])
def test_packing_has_the_loss_and_gradient_of_padding(family):
    """Loss to 1e-5, over documents shorter and much longer than the local window."""
    torch.manual_seed(0)
    network = family.Config(width=32, layers=4, heads=2, mlp_width=32, max_tokens=1024).build(WORDS)
    texts = [f"{number}: " + "nuclei in the upper right, " * (number**2 % 37) for number in range(20)]
    data = mlm.MaskedWords(texts, WORDS, length=1024)
    batch = data.collate([data.sample(index, rng(index)) for index in range(len(data))])
    assert batch["lengths"].max() > 700
    packed = mlm.loss(network, batch)["loss"]
    packed.backward()
    ours = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    padded = padded_loss(network, batch)
    padded.backward()
    assert packed.item() == pytest.approx(padded.item(), abs=1e-5)
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours[name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_accuracy_and_tokens_are_counted(data):
    network = model().eval()
    batch = data.collate([data.sample(index, rng(index)) for index in range(4)])
    out = mlm.loss(network, batch)
    assert out["num_tokens"] == len(batch["ids"])
    assert 0 <= out["masked_accuracy"] <= 1


def test_evaluation_counts_each_word_once_whatever_the_batch():
    network = model().eval()
    data = mlm.MaskedWords(DOCUMENTS, WORDS, length=64)
    small, large = mlm.evaluate(network, data, batch_size=3), mlm.evaluate(network, data, batch_size=50)
    assert small == pytest.approx(large, rel=1e-5)
    assert 5 < small["loss"] < 6.5
    assert small["perplexity"] == pytest.approx(math.exp(small["loss"]))
    words = sum(len(text.split()) for text in DOCUMENTS)
    per_word = small["loss"] * sum(len(text) + 1 for text in DOCUMENTS) / words  # a token is a byte here
    assert math.log(small["perplexity_per_word"]) == pytest.approx(per_word)


def test_a_trained_model_is_saved_with_its_tokenizer(tmp_path):
    from medtextdiff.text.encoders import huggingface

    network = mlm.WithTokenizer(model(), WORDS)
    assert network.config.model_type == "modernbert"
    network.save_pretrained(tmp_path)
    assert huggingface.Config(path=str(tmp_path)).build()(["left"]).mask.sum() == len(" left") + 2


def test_a_fresh_model_knows_nothing_and_learns(data):
    network = model()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    first = None
    for step in range(30):
        batch = data.collate([data.sample((4 * step + k) % len(data), rng(4 * step + k)) for k in range(4)])
        out = mlm.loss(network, batch, rng())
        first = first if first is not None else out["loss"].item()
        out["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert first == pytest.approx(math.log(network.config.vocab_size), abs=0.3)
    assert out["loss"].item() < 0.8 * first


def test_a_row_of_unknown_words_alone_teaches_nothing_and_breaks_nothing(data):
    batch = dict(data.sample(0, rng()), labels=torch.full_like(data.sample(0, rng())["labels"], mlm.IGNORED))
    network = model()
    told = mlm.loss(network, batch)
    assert (float(told["loss"].detach()), float(told["masked_accuracy"])) == (0, 0)
    told["loss"].backward()


def test_lora_beside_new_weights_is_refused():
    with pytest.raises(ConfigError, match="weights are new and would stay so"):
        lora.Config(rank=2).apply(model())


def test_embeddings_are_tied():
    network = model()
    assert network.decoder.weight is network.model.embeddings.tok_embeddings.weight


class Words:
    cls_token_id, sep_token_id, pad_token_id = 2, 3, 0

    def __len__(self):
        return 8192


def test_the_small_models_have_the_same_size():
    with torch.device("meta"):
        ours, theirs = modernbert.Config().build(Words()), bert.Config().build(Words())
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (ours, theirs)]
    assert sizes == [6_106_624, 6_254_336]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)
    assert ours.config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"] * 2


def test_an_empty_corpus_is_refused():
    with pytest.raises(TextError, match="no document"):
        mlm.MaskedWords([], WORDS)


def test_a_tokenizer_without_mask_is_refused():
    words = tokenizer.bytes_only()
    words.mask_token = None
    with pytest.raises(TextError, match="mask_token"):
        mlm.MaskedWords(["a"], words)


def test_held_out_questions_do_not_depend_on_how_the_text_is_cut():
    """A BERT of 40 tokens and a ModernBERT of 1,000 are asked for the same tokens of the same text."""

    def asked(data, seed):
        found = {}
        for index in range(len(data)):
            sample = data.fixed_sample(index, seed)
            runs = zip(data._rows[index], sample["labels"].split(sample["lengths"].tolist()), strict=True)
            for piece, labels in runs:
                places = data._pieces.starts[piece] + (labels[1:-1] != mlm.IGNORED).nonzero().flatten().numpy()
                found |= dict(zip(places.tolist(), labels[1:-1][labels[1:-1] != mlm.IGNORED].tolist(), strict=True))
        return found

    long, short = (mlm.MaskedWords(DOCUMENTS, WORDS, length=n, seed=n) for n in (1000, 40))
    assert asked(long, 0) == asked(short, 0)
    assert asked(long, 0) != asked(long, 1)
    assert len(asked(long, 0)) == pytest.approx(0.3 * long.store.num_tokens, rel=0.1)


def test_held_out_draws_are_even():
    draws = [mlm._uniform(np.arange(100_000), 0, number) for number in range(3)]
    for draw in draws:
        assert draw.min() >= 0
        assert draw.max() < 1
        assert np.histogram(draw, 10, (0, 1))[0] == pytest.approx(10_000, rel=0.05)
    assert abs(np.corrcoef(draws)[np.triu_indices(3, 1)]).max() < 0.02
