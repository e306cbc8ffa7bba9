import pytest
import torch
from pydantic import ValidationError

from medtextdiff import config
from medtextdiff.diffusion import objective, pretrain
from medtextdiff.diffusion.denoiser import Scratch
from medtextdiff.types import Batch

TARGETS = ["eps", "v", "x0"]
SCHEDULES = ["linear", "cosine"]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def pair(batch=4):
    return torch.randn(batch, 3, 8, 8, generator=rng(1)), torch.randn(batch, 3, 8, 8, generator=rng(2))


class Perfect:
    """Knows the clean images, so tells the exact target."""

    def __init__(self, built, images, channels=3):
        self.built, self.images, self.channels = built, images, channels

    def __call__(self, x, t, text=None, taps=()):
        noise = self.built.to_noise(x, self.images, t)
        target = self.built.target(self.images, noise, t)
        return torch.cat([target, torch.full_like(target, 9)], 1)[:, : self.channels], []


class Off(Perfect):
    """Perfect, but for a constant."""

    def __call__(self, x, t, text=None, taps=()):
        return super().__call__(x, t)[0] + 0.5, []


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noise_has_its_limits(schedule):
    built = objective.Config(schedule=schedule).build()
    x, noise = pair()
    early = built.add_noise(x, noise, torch.zeros(4, dtype=torch.long))
    late = built.add_noise(x, noise, torch.full((4,), 999))
    assert (early - x).abs().max() < 0.05
    assert (late - noise).abs().max() < 0.05
    assert (built.alphas_cumprod.diff() < 0).all()


def test_linear_schedule_is_ddpms():
    from diffusers import DDPMScheduler

    expected = DDPMScheduler(beta_schedule="linear").alphas_cumprod
    torch.testing.assert_close(objective.Config().build().alphas_cumprod.float(), expected, rtol=1e-4, atol=1e-6)


def test_cosine_schedule_is_diffusers():
    from diffusers import DDPMScheduler

    expected = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
    built = objective.Config(schedule="cosine").build()
    torch.testing.assert_close(built.alphas_cumprod.float(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_image_and_noise_come_back_from_the_target(target):
    built = objective.Config(target=target).build()
    x, noise = pair()
    t = torch.tensor([0, 50, 300, 600])
    x_t = built.add_noise(x, noise, t)
    x0 = built.to_x0(x_t, built.target(x, noise, t), t)
    torch.testing.assert_close(x0, x, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(built.to_noise(x_t, x, t), noise, rtol=1e-3, atol=1e-3)


def test_v_is_the_rotation_of_image_and_noise():
    built = objective.Config(target="v").build()
    x, noise = pair()
    t = torch.tensor([0, 50, 300, 999])
    x_t, v = built.add_noise(x, noise, t), built.target(x, noise, t)
    torch.testing.assert_close(x_t**2 + v**2, x**2 + noise**2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize("target", TARGETS)
def test_perfect_denoiser_has_no_loss(target, channels):
    built = objective.Config(target=target).build()
    images, _ = pair()
    assert float(built.loss(Perfect(built, images, channels), images, rng())) < 1e-6


@pytest.mark.parametrize(("kind", "expected"), [("l1", 0.5), ("l2", 0.25)])
def test_loss_of_a_known_error(kind, expected):
    built = objective.Config(loss=kind).build()
    images, _ = pair()
    assert float(built.loss(Off(built, images), images, rng())) == pytest.approx(expected, abs=1e-3)


def test_silent_denoiser_pays_the_variance_of_the_noise():
    built = objective.Config().build()
    images = torch.zeros(64, 3, 16, 16)
    loss = built.loss(lambda x, t: (torch.zeros_like(x), []), images, rng())
    assert float(loss) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("target", TARGETS)
def test_min_snr_weighs_the_error_of_the_image_alike(target):
    """Told as an error of the image, the weight is min(SNR, gamma) whatever the target."""
    built = objective.Config(target=target, min_snr=5.0).build()
    t = torch.tensor([0, 100, 400, 800])
    alphas = built.alphas_cumprod[t]
    snr = alphas / (1 - alphas)
    # d(target) / d(x0): s/a = 1/sqrt(SNR) for eps at fixed x_t, 1/s for v, 1 for x0
    squared = {"eps": snr, "v": 1 / (1 - alphas), "x0": torch.ones_like(snr)}[target]
    torch.testing.assert_close((built.weight(t) * squared).double(), snr.clamp(max=5), rtol=1e-5, atol=1e-6)


def test_draws_do_not_depend_on_the_batch_size():
    built = objective.Config().build()
    images, _ = pair(4)
    whole = built.draw(images, rng())
    one = rng()
    parts = [built.draw(images[:1], one), built.draw(images[1:], one)]
    assert torch.equal(whole[0], torch.cat([t for t, _ in parts]))
    assert torch.equal(whole[1], torch.cat([noise for _, noise in parts]))


def test_timestep_power_favours_low_noise():
    images = torch.zeros(4000, 1, 1, 1)
    for power in (1.0, 2.0):
        t, _ = objective.Config(timestep_power=power).build().draw(images, rng())
        assert t.min() >= 0
        assert t.max() <= 999
        # E[u^p] = 1 / (p + 1)
        assert float(t.float().mean()) == pytest.approx(1000 / (power + 1), rel=0.05)


def test_bad_settings():
    with pytest.raises(ValidationError):
        objective.Config(target="noise")
    with pytest.raises(ValidationError, match="beta_end"):
        objective.Config(beta_start=0.1, beta_end=0.01)
    with pytest.raises(config.ConfigError):
        config.override(pretrain.Config(), ["objective.num_timesteps=0"])


def test_pretraining_learns():
    torch.manual_seed(0)
    model = Scratch.tiny().build()
    ramp = torch.linspace(-1, 1, 16).expand(3, 16, 16)
    batch = Batch(ids=["a", "b"], notes=["", ""], images=torch.stack([ramp, ramp.mT]))
    loss = pretrain.Config().build()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    values = []
    for step in range(60):
        value = loss(model, batch, rng(step))["loss"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-10:]) < 0.7 * sum(values[:10])
