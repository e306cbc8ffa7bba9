"""What every text encoder keeps; a new file in text/encoders is tested at once."""

import importlib
import pkgutil

import pytest
import torch

from medtextdiff import config
from medtextdiff.text import encoders
from medtextdiff.text.encoders import tiny
from medtextdiff.types import TextEncoder

NAMES = sorted(module.name for module in pkgutil.iter_modules(encoders.__path__))
NO_ABSENT_NOTE = {"medtextdiff.text.encoders.fixed_length"}  # as published: padding is attended, "" is a note
NOTES = ["The nuclei density in the upper right is high.", "", "left", "Ödème à gauche\n左肺, 2 mm " * 5, "left", "  "]


@pytest.fixture(params=NAMES)
def part(request, tmp_path):
    """The encoder's Config; one that reads a folder gets a tiny model in it."""
    cls = importlib.import_module(f"{encoders.__name__}.{request.param}").Config
    if "path" not in cls.model_fields:
        return cls()
    if hasattr(cls, "tiny"):
        return cls.tiny(tmp_path)
    tiny.Config().build().save_pretrained(str(tmp_path))
    return cls(path=str(tmp_path))


def test_its_config_goes_to_json_and_back(part):
    assert config.from_json(config.to_json(part)) == part


def test_it_keeps_the_protocol(part):
    encoder = part.build()
    assert isinstance(encoder, TextEncoder)
    features = encoder(NOTES)
    length = features.tokens.shape[1]
    assert features.tokens.shape == (len(NOTES), length, encoder.width)
    assert features.mask.shape == (len(NOTES), length)
    assert features.pooled.shape == (len(NOTES), encoder.width)
    if part.kind() in NO_ABSENT_NOTE:
        return
    assert features.mask.any(1).tolist() == [bool(note.strip()) for note in NOTES]
    assert not features.tokens[~features.mask].any()
    assert not features.pooled[~features.mask.any(1)].any()


def test_a_batch_is_its_singles(part):
    encoder = part.build()
    features = encoder(NOTES)
    for row, note in enumerate(NOTES):
        alone = encoder([note])
        words = int(alone.mask.sum())
        assert int(features.mask[row].sum()) == words
        torch.testing.assert_close(features.tokens[row, :words], alone.tokens[0, :words], atol=1e-5, rtol=0)
        torch.testing.assert_close(features.pooled[row], alone.pooled[0], atol=1e-5, rtol=0)


def test_notes_that_differ_give_features_that_differ(part):
    left, right = part.build()(["left lung", "right lung"]).pooled
    assert (left - right).abs().max() > 1e-4


def test_a_trained_encoder_is_found_again(part, tmp_path):
    if "trainable" not in type(part).model_fields:
        pytest.skip("is never trained")
    part = part.replace(trainable=True)
    encoder = part.build()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1.1)
    encoder.save_pretrained(tmp_path / "saved")
    again = part.saved(str(tmp_path / "saved")).build().eval()
    assert again.trainable
    torch.testing.assert_close(again(["left lung"]).tokens, encoder.eval()(["left lung"]).tokens, atol=1e-6, rtol=0)
