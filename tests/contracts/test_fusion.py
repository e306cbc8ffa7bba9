"""What every fusion promises; a new file in the family is tested here unasked."""

import importlib

import pytest
import torch

from medtextdiff import config
from medtextdiff.segmentation import fusion
from tests.reference.fill import seeded

NAMES = config.siblings(f"{fusion.__name__}.none")
CHANNELS, WIDTH = 16, 12


@pytest.fixture(params=NAMES)
def settings(request):
    return importlib.import_module(f"{fusion.__name__}.{request.param}").Config()


@pytest.fixture
def part(settings):
    torch.manual_seed(3)
    part = settings.build(channels=CHANNELS, text_width=WIDTH)
    with torch.no_grad():
        for weight in part.parameters():  # zero-initialised parts would pass any test of equality
            weight.add_(0.2 * torch.randn_like(weight))
    return part


@pytest.fixture
def inputs():
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [True] * 4 + [False]])
    return {
        "level": seeded(3, CHANNELS, 4, 6, seed=1),
        "tokens": seeded(3, 5, WIDTH, seed=2),
        "mask": mask,
        "pooled": seeded(3, WIDTH, seed=3),
        "positions": torch.rand(3, 2, 4, 6, generator=torch.Generator().manual_seed(4)),
    }


def test_shape_is_kept(part, inputs):
    assert part(**inputs).shape == inputs["level"].shape


def test_padded_words_change_nothing(part, inputs):
    out = part(**inputs)
    noisy = inputs["tokens"] + 100 * (~inputs["mask"])[..., None]
    torch.testing.assert_close(part(**inputs | {"tokens": noisy}), out)
    longer = torch.cat([noisy, seeded(3, 4, WIDTH, seed=9)], dim=1)
    mask = torch.cat([inputs["mask"], torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(part(**inputs | {"tokens": longer, "mask": mask}), out, rtol=1e-5, atol=1e-5)


def test_batch_is_its_singles(part, inputs):
    together = part(**inputs)
    for row in range(3):
        single = part(**{name: value[row : row + 1] for name, value in inputs.items()})
        torch.testing.assert_close(together[row : row + 1], single, rtol=1e-5, atol=1e-5)


def test_note_without_words_is_finite(part, inputs):
    nothing = torch.zeros_like(inputs["mask"])
    level = inputs["level"].requires_grad_()
    out = part(**inputs | {"mask": nothing, "level": level})
    out.sum().backward()
    assert out.isfinite().all()
    assert level.grad.isfinite().all()


def test_config_round_trips(settings):
    assert config.from_json(config.to_json(settings)) == settings
