import pytest
import torch
from pydantic import ValidationError

from medtextdiff.diffusion import objective, sampling
from medtextdiff.diffusion.denoiser import Scratch
from medtextdiff.diffusion.sampling import Noise, guide, sample, solve, timesteps

SAMPLERS = [("ddim", 0.0), ("ddim", 1.0), ("euler", 0.0), ("dpm++", 0.0)]
OBJECTIVES = [
    {"target": "eps"},
    {"target": "v", "schedule": "cosine"},
    {"target": "x0", "schedule": "scaled_linear", "beta_start": 0.002},
    {"target": "v", "zero_terminal_snr": True},
    {"target": "x0", "schedule": "cosine", "zero_terminal_snr": True},
    {"target": "flow", "schedule": "straight"},
]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def settings(sampler, eta=0.0, steps=10, **more):
    return sampling.Config(sampler=sampler, eta=eta, steps=steps, **more)


def gaussian(built, mean=0.5, spread=0.3):
    """The best denoiser where all data is N(mean, spread^2): its prediction is known in closed form."""

    def predict(x, t):
        a, s = built.scales(int(t[0]))
        x0 = mean + a * spread**2 / (a**2 * spread**2 + s**2) * (x - a * mean)
        return built.target(x0, (x - a * x0) / s, t)

    return predict


@pytest.mark.parametrize(("sampler", "eta"), SAMPLERS)
@pytest.mark.parametrize("about", OBJECTIVES, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_only_image_of_a_data_set_is_found(about, sampler, eta, steps):
    """Where all data is one image, the best denoiser knows it, and every sampler must arrive there."""
    built = objective.Config(**about).build()
    image = torch.rand(1, 3, 8, 8, generator=rng(3)) * 1.8 - 0.9

    def best(x, t):
        images = image.expand_as(x)
        return built.target(images, built.to_noise(x, images, t), t)

    found = solve(best, built, settings(sampler, eta, steps), Noise([1, 2], (3, 8, 8)))
    torch.testing.assert_close(found, image.expand(2, -1, -1, -1), rtol=0, atol=5e-3)


@pytest.mark.parametrize(("sampler", "eta"), SAMPLERS)
@pytest.mark.parametrize("about", OBJECTIVES, ids=str)
def test_the_spread_of_data_is_found(about, sampler, eta):
    """What goes in as noise comes out as data: mean and deviation, also with new noise at each step."""
    built = objective.Config(**about).build()
    found = solve(gaussian(built), built, settings(sampler, eta, 500), Noise(range(8), (3, 16, 16)))
    assert float(found.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(found.std()) == pytest.approx(0.3, rel=0.06)


@pytest.mark.parametrize("about", [OBJECTIVES[k] for k in (0, 1, 3, 5)], ids=str)
def test_dpm_needs_fewer_steps_than_ddim(about):
    """Against the exact solution: the probability flow of normal data maps normal numbers linearly."""
    built = objective.Config(**about).build()
    a, s = built.scales(999)
    exact = 0.5 + 0.3 / (a**2 * 0.3**2 + s**2) ** 0.5 * (Noise([0], (3, 8, 8)).draw() - a * 0.5)
    errors = [
        float((solve(gaussian(built), built, settings(name, steps=40), Noise([0], (3, 8, 8))) - exact).abs().max())
        for name in ("ddim", "dpm++")
    ]
    assert errors[1] < 0.3 * errors[0], errors


def test_euler_on_straight_paths_is_eulers_method():
    built = objective.Config(target="flow", schedule="straight").build()
    velocity = gaussian(built)
    found = solve(velocity, built, settings("euler", steps=4), Noise([5], (1, 4, 4)))
    x = torch.randn(1, 4, 4, generator=rng(5))[None]
    times = timesteps(settings("euler", steps=4), 1000)
    ends = [*((t + 1) / 1000 for t in times), 0.0]
    for t, here, there in zip(times, ends[:-1], ends[1:], strict=True):
        x = x + (there - here) * velocity(x, torch.tensor([t]))
    torch.testing.assert_close(found, x, atol=1e-5, rtol=1e-5)


def test_ddim_with_noise_has_ddpms_variance():
    """From x0 = 0 the next sample's variance is what the forward process says (arXiv 2006.11239, eq. 7)."""
    built = objective.Config(target="x0").build()
    noise = Noise([0], (1, 200, 200))
    x = torch.zeros(1, 1, 200, 200)
    found = sampling._ddim(x, x, built.scales(500), built.scales(499), 1.0, noise)
    beta = 1 - (built.scales(500)[0] / built.scales(499)[0]) ** 2
    expected = (built.scales(499)[1] / built.scales(500)[1]) ** 2 * beta
    assert float(found.var()) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(("sampler", "eta"), SAMPLERS)
def test_each_image_has_its_seed(sampler, eta):
    built = objective.Config().build()
    together = solve(gaussian(built), built, settings(sampler, eta), Noise([4, 5, 6], (3, 8, 8)))
    alone = solve(gaussian(built), built, settings(sampler, eta), Noise([5], (3, 8, 8)))
    assert torch.equal(together[1:2], alone)


def test_guidance():
    conditional, unconditional = torch.randn(2, 2, 3, 8, 8, generator=rng()).unbind()
    torch.testing.assert_close(guide(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(guide(conditional, unconditional, 0.0), unconditional)
    w = 3.5  # as MSDM writes it
    torch.testing.assert_close(guide(conditional, unconditional, w + 1), (w + 1) * conditional - w * unconditional)
    rescaled = guide(conditional, unconditional, 5.0, rescale=1.0)
    torch.testing.assert_close(rescaled.std(dim=(1, 2, 3)), conditional.std(dim=(1, 2, 3)))


def test_timesteps_fall_from_the_noisiest():
    for steps in (1, 2, 25, 150, 1000):
        for spacing in ("trailing", "linspace"):
            times = timesteps(settings("ddim", steps=steps, spacing=spacing), 1000)
            assert times[0] == 999
            assert len(set(times)) == len(times) == steps
            assert times == sorted(times, reverse=True)
    assert timesteps(settings("ddim", steps=150, spacing="linspace"), 1000)[-1] == 0
    with pytest.raises(ValueError, match="from 1 to 10"):
        timesteps(settings("ddim", steps=11), 10)


def test_settings_that_cannot_be():
    for wrong in ({"steps": 0}, {"guidance": 1e6}, {"guidance": -1}, {"sampler": "ddimm"}, {"eta": 0.5}):
        with pytest.raises(ValidationError):
            sampling.Config(**wrong)


def test_gaussian_data_keep_their_spread():
    """For data N(0, 0.3^2) the best denoiser is known; deterministic DDIM maps noise to data of that spread."""
    built = objective.Config(target="x0").build()

    def best(x, t, text=None, taps=()):
        return gaussian(built, mean=0.0)(x, t), []

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
