"""Words of a fresh student begin as a teacher's."""

import pytest
import tokenizers
import torch
from transformers import PreTrainedTokenizerFast

from medtextdiff.text import static_words, tokenizer
from medtextdiff.text.encoders import tiny
from medtextdiff.text.errors import TextError
from medtextdiff.text.masked import bert, modernbert

PIECES = tokenizer.train([f"nodule {number} in the upper left lobe" for number in range(60)] * 3, size=300)


@pytest.fixture
def teacher():
    return tiny.Config(width=24, as_bert=True).build()


def student(kind, width):
    torch.manual_seed(0)
    return kind.Config(width=width, layers=1, heads=2, mlp_width=16).build(PIECES)


@pytest.mark.parametrize("kind", [modernbert, bert])
@pytest.mark.parametrize("width", [32, 24])
def test_a_map_takes_each_word_to_the_teachers_reading_of_it(teacher, kind, width):
    """No direction is lost where the student is as wide as its teacher."""
    network = student(kind, width)
    before = network.get_input_embeddings().weight.detach().clone()
    back = static_words.begin(network, PIECES, teacher.model, teacher.tokenizer)
    table = network.get_input_embeddings().weight.detach()
    texts = {n: PIECES.decode([n]).strip() for n in range(len(PIECES)) if n not in PIECES.all_special_ids}
    known = [n for n, text in texts.items() if text and "\ufffd" not in text]
    assert 0 < len(known) < len(texts) - 100  # half of the single bytes are no characters
    wanted = teacher([PIECES.decode([n]).strip() for n in known]).pooled
    wanted = wanted - wanted.mean(dim=0)
    found = table[known] @ back.T
    torch.testing.assert_close(
        torch.nn.functional.cosine_similarity(found, wanted), torch.ones(len(known)), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(table[known][:, :24].std(), before[known][:, :24].std(), rtol=0.05, atol=0)
    others = [n for n in range(len(table)) if n not in known]
    assert PIECES.mask_token_id in others
    torch.testing.assert_close(table[others], before[others], rtol=0, atol=0)
    torch.testing.assert_close(table[:, 24:], before[:, 24:], rtol=0, atol=0)


def test_a_narrow_student_keeps_the_main_directions(teacher):
    network = student(modernbert, 8)
    back = static_words.begin(network, PIECES, teacher.model, teacher.tokenizer)
    table = network.get_input_embeddings().weight.detach()[PIECES.convert_tokens_to_ids(["n", "l", "u", "p"])]
    assert back.shape == (24, 8)
    torch.testing.assert_close(back.T @ back, torch.eye(8), atol=1e-5, rtol=0)
    near = torch.cdist(table, table) + 100 * torch.eye(4)
    assert near.min() > 0.01 * table.norm(dim=1).mean()  # different words stay apart


def wordpiece(*pieces):
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    vocabulary = {piece: number for number, piece in enumerate([*special.values(), *pieces])}
    model = tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(model), **special)


def test_a_later_piece_of_wordpiece_is_read_without_its_mark(teacher):
    words = wordpiece("lung", "##lung", "left")
    network = bert.Config(width=24, layers=1, heads=2, mlp_width=16).build(words)
    back = static_words.begin(network, words, teacher.model, teacher.tokenizer)
    found = network.get_input_embeddings().weight.detach() @ back.T
    torch.testing.assert_close(found[5], found[6])
    assert not torch.allclose(found[5], found[7])


def test_a_vocabulary_without_words_is_told(teacher):
    network = bert.Config(width=24, layers=1, heads=2, mlp_width=16).build(wordpiece())
    with pytest.raises(TextError, match="no words"):
        static_words.begin(network, wordpiece(), teacher.model, teacher.tokenizer)
