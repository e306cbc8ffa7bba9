import pytest
import torch

from medtextdiff.diffusion import objective
from medtextdiff.diffusion.denoiser import Scratch
from medtextdiff.diffusion.sampling import sample


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("target", ["eps", "v", "x0"])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_the_only_image_of_a_data_set_is_found(target, schedule, steps):
    """Where all data is one image, the best denoiser knows it, and every sampler must arrive there."""
    built = objective.Config(target=target, schedule=schedule).build()
    image = torch.rand(1, 3, 8, 8, generator=rng(3)) * 1.8 - 0.9

    def best(x, t, text=None, taps=()):
        images = image.expand_as(x)
        return built.target(images, built.to_noise(x, images, t), t), []

    found = sample(best, built, (2, 3, 8, 8), steps, rng())
    # Early cosine steps have almost no signal: rounding in eps is enlarged there.
    torch.testing.assert_close(found, (image.expand(2, -1, -1, -1) + 1) / 2, rtol=0, atol=2e-3)


def test_gaussian_data_keep_their_spread():
    """For data N(0, 0.3^2) the best denoiser is known; deterministic DDIM maps noise to data of that spread."""
    built = objective.Config(target="x0").build()

    def best(x, t, text=None, taps=()):
        alphas = built.alphas_cumprod[t].float().reshape(-1, 1, 1, 1)
        return x * alphas.sqrt() * 0.09 / (alphas * 0.09 + 1 - alphas), []

    found = sample(best, built, (4, 3, 16, 16), 200, rng()) * 2 - 1
    assert float(found.std()) == pytest.approx(0.3, rel=0.05)


def test_same_seed_same_image_whatever_the_batch_size():
    torch.manual_seed(0)
    denoiser, built = Scratch.tiny().build().eval(), objective.Config().build()
    first = sample(denoiser, built, (1, 3, 8, 8), 4, rng())
    three = sample(denoiser, built, (3, 3, 8, 8), 4, rng())
    torch.testing.assert_close(first, three[:1], rtol=1e-5, atol=1e-5)
    assert float(three.min()) >= 0
    assert float(three.max()) <= 1


@pytest.mark.parametrize("steps", [0, 1001])
def test_bad_steps(steps):
    with pytest.raises(ValueError, match="from 1 to 1000"):
        sample(Scratch.tiny().build(), objective.Config().build(), (1, 3, 8, 8), steps, rng())
