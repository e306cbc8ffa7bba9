from types import SimpleNamespace

import pytest
import torch

from medtextdiff.text.attention import attention_masks
from medtextdiff.text.encoders import tiny

BERT = SimpleNamespace(model_type="bert")
MODERNBERT = SimpleNamespace(model_type="modernbert", sliding_window=2)
DOCUMENTS = torch.tensor([[0, 0, 0, 0, 1, -1], [5, 5, 5, 5, 5, 5]])


def test_positions_look_into_their_own_document_only():
    mask = attention_masks(BERT, DOCUMENTS)
    assert torch.equal(mask[:, 0], DOCUMENTS[:, :, None] == DOCUMENTS[:, None, :])
    assert mask.any(-1).all()


def test_local_layers_look_as_far_as_the_window():
    masks = attention_masks(MODERNBERT, DOCUMENTS)
    place = torch.arange(6)
    near = (place[:, None] - place[None, :]).abs() <= 2
    assert torch.equal(masks["full_attention"], attention_masks(BERT, DOCUMENTS))
    assert torch.equal(masks["sliding_attention"], masks["full_attention"] & near)
    whole = attention_masks(MODERNBERT, DOCUMENTS[1:])
    assert whole["full_attention"] is None
    assert torch.equal(whole["sliding_attention"][0, 0], near)


@pytest.mark.parametrize("as_bert", [False, True])
def test_it_gives_what_transformers_own_masks_give(as_bert):
    encoder = tiny.Config(as_bert=as_bert).build()
    ids = torch.randint(5, 261, (2, 60), generator=torch.Generator().manual_seed(0))
    real = torch.ones(2, 60, dtype=torch.long)
    real[1, 45:] = 0
    with torch.no_grad():
        theirs = encoder.model(input_ids=ids, attention_mask=real).last_hidden_state
        ours = encoder.model(
            input_ids=ids, attention_mask=attention_masks(encoder.model.config, real)
        ).last_hidden_state
    torch.testing.assert_close(ours[real.bool()], theirs[real.bool()], atol=1e-5, rtol=0)
