import math

import pytest
import torch

from medtextdiff.text import mlm, tokenizer
from medtextdiff.text.attention import attention_masks
from medtextdiff.text.errors import TextError

DOCUMENTS = [f"Document {number}: nuclei in the upper right, {number % 7} mm." for number in range(200)]
WORDS = tokenizer.bytes_only()


@pytest.fixture(scope="module")
def data():
    return mlm.MaskedWords(DOCUMENTS, WORDS, length=64)


def model(**changes):
    torch.manual_seed(0)
    return mlm.Config(**{"width": 32, "layers": 4, "heads": 2, "mlp_width": 32, "local_attention": 16} | changes).build(
        WORDS
    )


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_packing_loses_nothing_and_pads_only_the_end(data):
    stream = data._ids.reshape(-1)
    expected = sum(len(WORDS(text)["input_ids"]) for text in DOCUMENTS)
    real = stream[stream != WORDS.pad_token_id]
    assert len(real) == expected
    assert len(stream) - len(real) < 64
    pieces = WORDS.decode(real).split("[CLS]")[1:]
    assert sorted(piece.replace("[SEP]", "").strip() for piece in pieces) == sorted(DOCUMENTS)


def test_masking_statistics(data):
    samples = [data.sample(index, rng(index)) for index in range(len(data))]
    batch = data.collate(samples)
    asked = batch["labels"] != mlm.IGNORED
    words = ~torch.isin(torch.where(asked, batch["labels"], batch["ids"]), data._specials)
    num = int(asked.sum())
    assert not (asked & ~words).any(), "a special token was asked for"
    assert asked.sum() / words.sum() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / int(words.sum())))
    masked = (batch["ids"] == WORDS.mask_token_id) & asked
    kept = (batch["ids"] == batch["labels"]) & asked
    spread = 4 / math.sqrt(num)
    assert masked.sum() / num == pytest.approx(0.8, abs=0.4 * spread)
    assert kept.sum() / num == pytest.approx(0.1 + 0.1 / 256, abs=0.3 * spread)
    swapped = batch["ids"][asked & ~masked & ~kept]
    assert not torch.isin(swapped, data._specials).any()
    assert len(swapped.unique()) > 100


def test_words_that_are_not_asked_for_stay(data):
    sample = data.sample(3, rng())
    quiet = sample["labels"] == mlm.IGNORED
    assert torch.equal(sample["ids"][quiet], torch.from_numpy(data._ids[3]).long()[quiet])


def test_the_same_generator_gives_the_same_masks(data):
    first, again, other = data.sample(0, rng(1)), data.sample(0, rng(1)), data.sample(0, rng(2))
    assert torch.equal(first["ids"], again["ids"])
    assert not torch.equal(first["labels"], other["labels"])


def test_a_row_always_asks_something():
    rare = mlm.MaskedWords(["ab"], WORDS, length=8, masking=mlm.Masking(rate=1e-9))
    assert (rare.sample(0, rng())["labels"] != mlm.IGNORED).sum() == 1


def test_attention_stays_inside_each_document():
    """A packed document gives the states that it gives alone, in global and local layers."""
    network = model().eval()
    texts = ["nuclei in the upper right", "a polyp, 3 mm, and a rather long rest of the sentence", "left"]
    packed = mlm.MaskedWords(texts, WORDS, length=128)
    row = {"ids": torch.from_numpy(packed._ids[:1]).long(), "documents": torch.from_numpy(packed._documents[:1]).long()}
    masks = attention_masks(network.config, row["documents"])
    with torch.no_grad():
        together = network.model(input_ids=row["ids"], attention_mask=masks).last_hidden_state[0]
        for number in range(3):
            place = row["documents"][0] == number
            alone = network.model(input_ids=row["ids"][:, place]).last_hidden_state[0]
            torch.testing.assert_close(together[place], alone, atol=2e-5, rtol=0)
    assert together.isfinite().all()


def test_the_loss_is_the_cross_entropy_of_the_masked_words(data):
    network = model().eval()
    batch = data.collate([data.sample(index, rng(index)) for index in range(4)])
    out = mlm.loss(network, batch, rng())
    network.sparse_prediction = False
    masks = attention_masks(network.config, batch["documents"])
    logits = network(input_ids=batch["ids"], attention_mask=masks).logits
    asked = batch["labels"] != mlm.IGNORED
    expected = torch.nn.functional.cross_entropy(logits[asked], batch["labels"][asked])
    torch.testing.assert_close(out["loss"], expected)
    right = (logits[asked].argmax(-1) == batch["labels"][asked]).float().mean()
    torch.testing.assert_close(out["masked_accuracy"], right)


def test_evaluation_counts_each_word_once_whatever_the_batch(data):
    network = model().eval()
    small, large = mlm.evaluate(network, data, batch_size=3), mlm.evaluate(network, data, batch_size=50)
    assert small == pytest.approx(large, rel=1e-5)
    assert 5 < small["loss"] < 6.5


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


def test_a_bert_can_be_trained_too(data):
    from transformers import BertConfig, BertForMaskedLM

    network = BertForMaskedLM(
        BertConfig(vocab_size=320, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )
    out = mlm.loss(network, data.collate([data.sample(0, rng())]), rng())
    out["loss"].backward()
    assert 0 <= out["masked_accuracy"] <= 1


def test_embeddings_are_tied():
    network = model()
    assert network.decoder.weight is network.model.embeddings.tok_embeddings.weight


def test_the_small_model_has_3_8_million_parameters():
    class Words:
        cls_token_id, sep_token_id, pad_token_id = 2, 3, 0

        def __len__(self):
            return 8192

    with torch.device("meta"):
        network = mlm.Config().build(Words())
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_832_448
    assert network.config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"] * 2


def test_an_empty_corpus_is_refused():
    with pytest.raises(TextError, match="no document"):
        mlm.MaskedWords([], WORDS)


def test_a_tokenizer_without_mask_is_refused():
    words = tokenizer.bytes_only()
    words.mask_token = None
    with pytest.raises(TextError, match="mask_token"):
        mlm.MaskedWords(["a"], words)
