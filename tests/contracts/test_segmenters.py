"""What every segmenter promises; a new file in the family is tested here unasked."""

import importlib

import pytest
import torch

from medtextdiff import config
from medtextdiff.segmentation import models
from medtextdiff.text.encoders import tiny
from medtextdiff.types import Segmenter
from tests.segmentation.conftest import small

NAMES = config.siblings(f"{models.__name__}.unet")
NOTES = ["many nuclei upper right", "", "few"]


def config_of(name):
    """A small config: `tiny()` where the part needs other parts, else its defaults."""
    if name == "fasttextdiff":
        return small(text=tiny.Config(width=16, layers=2))
    cls = importlib.import_module(f"{models.__name__}.{name}").Config
    return cls.tiny() if hasattr(cls, "tiny") else cls()


@pytest.fixture(scope="module", params=NAMES)
def settings(request):
    return config_of(request.param)


@pytest.fixture(scope="module")
def segmenter(settings):
    torch.manual_seed(0)
    return settings.build().eval()


def test_is_a_segmenter(segmenter):
    assert isinstance(segmenter, Segmenter)
    assert isinstance(segmenter, torch.nn.Module)


@pytest.mark.parametrize("size", [(32, 48), (17, 31), (5, 70)])
@torch.no_grad()
def test_any_size(segmenter, size):
    logits = segmenter(torch.rand(1, 3, *size) * 2 - 1, ["some note"])
    assert logits.shape == (1, segmenter.num_classes, *size)
    assert logits.isfinite().all()


@torch.no_grad()
def test_batch_is_its_singles(segmenter, images):
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0.5, 0.5, 1], [0.25, 0, 0.5, 0.5]])
    together = segmenter(images, NOTES, boxes)
    for row, note in enumerate(NOTES):
        single = segmenter(images[row : row + 1], [note], boxes[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], single, rtol=1e-4, atol=1e-4)


def test_any_number_of_classes(settings, images):
    five = settings.replace(num_classes=5).build().eval()
    assert five.num_classes == 5
    assert five(images, NOTES).shape == (3, 5, 32, 48)


def test_config_round_trips_through_json(settings):
    assert config.from_json(config.to_json(settings)) == settings


def test_every_trained_weight_gets_a_gradient(settings, images):
    segmenter = settings.build().train()
    segmenter(images, NOTES).square().mean().backward()
    without = [name for name, weight in segmenter.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not without  # DDP would wait for them


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
