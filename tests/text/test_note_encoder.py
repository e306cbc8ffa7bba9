import copy

import pytest
import torch
from transformers import CamembertConfig, CamembertModel, MPNetConfig, MPNetModel, T5Config, T5EncoderModel

from medtextdiff.text.encoders import fixed_length
from medtextdiff.text.errors import TextError
from medtextdiff.text.note_encoder import Cuts, NoteEncoder
from medtextdiff.text.tokenizer import bytes_only
from medtextdiff.types import TextEncoder


def assert_row_equal(features, row, alone, tolerance=1e-5):
    words = int(alone.mask[0].sum())
    assert int(features.mask[row].sum()) == words
    torch.testing.assert_close(features.tokens[row, :words], alone.tokens[0, :words], atol=tolerance, rtol=0)
    torch.testing.assert_close(features.pooled[row], alone.pooled[0], atol=tolerance, rtol=0)


def test_it_is_a_text_encoder(make):
    assert isinstance(make(), TextEncoder)
    assert make(width=48).width == 48


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_padded_word_changes_nothing(make, notes, pooling):
    encoder = make(exact=False, cache_size=0, pooling=pooling)
    features = encoder(notes)
    assert features.tokens.isfinite().all()
    for row, note in enumerate(notes):
        assert_row_equal(features, row, encoder([note]))


def test_much_padding_beyond_the_local_window_changes_nothing(make):
    encoder = make(exact=False, cache_size=0, local_attention=8)
    features = encoder(["one", "many words " * 200])
    assert features.tokens.isfinite().all()
    assert_row_equal(features, 0, encoder(["one"]))


def test_a_word_is_seen_from_afar(make):
    """Global layers carry the first word to the last; otherwise the padding tests would prove little."""
    encoder = make()
    ends = [encoder([f"{first} " + "word " * 30]).tokens[0, -2] for first in ("left", "rift")]
    assert (ends[0] - ends[1]).abs().max() > 1e-3


def test_exact_gives_the_same_bits_in_any_company(make, notes):
    together = make()(notes)
    for row, note in enumerate(notes):
        assert_row_equal(together, row, make(cache_size=0)([note]), tolerance=0)


def test_order_is_kept_and_doubles_are_equal(make, notes):
    encoder = make(exact=False, cache_size=0)
    forward, backward = encoder(notes), encoder(notes[::-1])
    torch.testing.assert_close(forward.tokens, backward.tokens.flip(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(forward.pooled, backward.pooled.flip(0), atol=1e-6, rtol=0)
    assert torch.equal(forward.mask, backward.mask.flip(0))
    assert torch.equal(forward.tokens[3], forward.tokens[6])


def test_the_same_note_meets_the_model_once(make):
    encoder = make(trainable=True)
    rows = []
    encoder.model.register_forward_pre_hook(
        lambda _module, _args, kw: rows.append(len(kw["input_ids"])), with_kwargs=True
    )
    encoder(["a", "b", "a", "a", ""])
    assert sum(rows) == 2


def test_many_notes_go_in_chunks_of_like_length(make, monkeypatch):
    monkeypatch.setattr("medtextdiff.text.note_encoder.BATCH_TOKENS", 64)
    encoder = make(exact=False, cache_size=0)
    shapes = []
    encoder.model.register_forward_pre_hook(
        lambda _module, _args, kw: shapes.append(tuple(kw["input_ids"].shape)), with_kwargs=True
    )
    encoder(["word " * (number % 7 + 1) for number in range(7)] + ["long " * 40])
    assert sum(rows for rows, _ in shapes) == 8
    assert all(rows * length <= 64 or rows == 1 for rows, length in shapes)
    assert 1 < len(shapes) < 8


def test_special_tokens_are_words(make):
    assert int(make()(["abc"]).mask.sum()) == len(" abc") + 2


def test_an_empty_note_is_absent(make):
    encoder = make()
    encoder.model.register_forward_pre_hook(lambda *_: pytest.fail("an empty note met the model"))
    features = encoder(["", "  \n"])
    assert features.tokens.shape == (2, 1, encoder.width)
    assert not features.mask.any()
    assert not features.tokens.any()
    assert not features.pooled.any()


def test_no_notes_at_all(make):
    features = make()([])
    assert features.tokens.shape[0] == features.mask.shape[0] == features.pooled.shape[0] == 0


def test_padding_is_zero(make, notes):
    features = make(exact=False)(notes)
    assert not features.tokens[~features.mask].any()


def test_cuts_are_counted_once_a_note(make):
    for cache_size in (0, 10):
        encoder = make(max_tokens=8, cache_size=cache_size)
        for _ in range(2):
            features = encoder(["123456789", "abc", "123456789"])  # 9 letters, a leading space, [CLS], [SEP]
        assert features.tokens.shape[1] == 8
        assert encoder.cuts == Cuts(notes=1, tokens=4)
        assert encoder.report() == {"max_tokens": 8, "notes_cut": 1, "tokens_lost": 4}
        assert encoder.lengths(["123456789", "", "abc"]) == [12, 0, 6]


def test_a_cut_note_keeps_its_last_special_token(make):
    encoder = make(max_tokens=6)
    seen = []
    encoder.model.register_forward_pre_hook(lambda _module, _args, kw: seen.append(kw["input_ids"]), with_kwargs=True)
    encoder(["123456789"])
    assert seen[0][0, 0] == encoder.tokenizer.cls_token_id
    assert seen[0][0, -1] == encoder.tokenizer.sep_token_id


def test_a_cut_note_of_clip_keeps_its_end(make):
    """Its tokenizer names no separator, only an end."""
    encoder = make(max_tokens=6)
    end = encoder.tokenizer.sep_token_id
    encoder.tokenizer.eos_token, encoder.tokenizer.sep_token = encoder.tokenizer.sep_token, None
    seen = []
    encoder.model.register_forward_pre_hook(lambda _module, _args, kw: seen.append(kw["input_ids"]), with_kwargs=True)
    encoder(["123456789"])
    assert encoder.tokenizer.sep_token_id is None
    assert seen[0][0, -1] == end


def test_a_note_of_5000_words(make):
    encoder = make(width=16, heads=1, layers=2)
    features = encoder(["lung " * 5000, "left"])
    assert encoder.limit == 8192
    assert features.tokens.shape[1] == 8192
    assert features.tokens.isfinite().all()
    assert encoder.cuts == Cuts(1, 5 * 5000 + 1 + 2 - 8192)


def test_more_tokens_than_the_model_takes_is_refused(make):
    with pytest.raises(TextError, match="at most 64"):
        make(positions=64, max_tokens=65)


def test_the_cache_changes_nothing(make, notes):
    plain, cached = make(cache_size=0), make(cache_size=2)
    for _ in range(3):
        ours, theirs = plain(notes), cached(notes)
        assert torch.equal(ours.tokens, theirs.tokens)
        assert torch.equal(ours.pooled, theirs.pooled)
    assert len(cached._cache) == 2


def test_the_cache_forgets_when_weights_or_precision_change(make):
    encoder, other = make(), make(seed=1)
    before = encoder(["left"]).pooled
    encoder.load_state_dict(other.state_dict())
    assert torch.equal(encoder(["left"]).pooled, other(["left"]).pooled)
    assert not torch.equal(encoder(["left"]).pooled, before)
    assert encoder.double()(["left"]).pooled.dtype == torch.float64


def test_frozen_means_eval_without_gradients_and_without_autocast(make):
    encoder = make()
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    before = encoder(["left"]).tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = make()(["left"]).tokens
    assert torch.equal(before, within)
    assert not before.requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_trainable_gives_gradients_and_is_never_remembered(make):
    encoder = make(trainable=True)
    encoder.train()
    assert encoder.model.training
    features = encoder(["left", "right", ""])
    features.pooled.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert not encoder._cache


def test_a_copy_gives_the_same(make, notes):
    encoder = make()
    assert torch.equal(copy.deepcopy(encoder)(notes).tokens, encoder(notes).tokens)


def test_a_note_that_names_a_special_token_means_its_letters(make):
    encoder = make()
    assert encoder.lengths(["[SEP]"]) == [len(" [SEP]") + 2]


@pytest.mark.parametrize(
    ("notes", "message"),
    [("left", "one string"), (["geheim \ud800"], "not valid Unicode")],
)
def test_bad_notes_are_refused_without_saying_them(make, notes, message):
    with pytest.raises(TextError, match=message) as caught:
        make()(notes)
    assert "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_note_that_is_no_string_is_refused(make):
    with pytest.raises((TextError, TypeError)):  # the type check of the tests comes before ours
        make()(["left", None])


def test_notes_are_never_logged(make, caplog, capfd):
    with caplog.at_level(0):
        make(max_tokens=4)(["geheim " * 3000])
    assert "geheim" not in caplog.text
    assert "geheim" not in "".join(capfd.readouterr())


def test_models_that_count_positions_from_their_padding_take_fewer(make):
    settings = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings |= {"intermediate_size": 16, "max_position_embeddings": 18, "pad_token_id": 1}
    words = bytes_only(18)
    for model in (MPNetModel(MPNetConfig(**settings)), CamembertModel(CamembertConfig(**settings))):
        encoder = NoteEncoder(model.eval(), words)
        assert encoder.limit == 16
        assert encoder(["a note that is too long"]).tokens.shape[1] <= 16
    with pytest.raises(TextError, match="a 't5' does not read notes here"):
        NoteEncoder(T5EncoderModel(T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=16, num_layers=1)), words)


def test_a_fixed_length_beyond_the_positions_is_told_at_once(folder):
    with pytest.raises(TextError, match="takes at most"):
        fixed_length.Config(path=str(folder), num_tokens=100_000).build()
