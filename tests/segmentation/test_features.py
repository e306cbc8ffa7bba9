import pytest
import torch

from medtextdiff.config import ConfigError
from medtextdiff.diffusion import denoiser, objective
from medtextdiff.segmentation import features

TAPS = (0, 2)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return denoiser.Scratch.tiny().replace(trainable=False).build()


def levels_of(net, images, **changes):
    return features.Config(taps=TAPS, timesteps=(50, 150, 250)).replace(**changes).build()(net, images)


def test_timesteps_in_one_batch_are_separate_passes_timestep_by_timestep(net, images):
    together = levels_of(net, images)
    passes = [levels_of(net, images, timesteps=(t,)) for t in (50, 150, 250)]
    for k, level in enumerate(together):
        torch.testing.assert_close(level, torch.cat([one[k] for one in passes], dim=1), rtol=1e-4, atol=1e-5)


def test_levels_of_several_timesteps_keep_the_channels_last(net, images):
    """Heads read positions: channels first would cost them, and the bank's reader, a copy of every level."""
    last = net.to(memory_format=torch.channels_last)
    for level in levels_of(last, images.contiguous(memory_format=torch.channels_last)):
        assert level.is_contiguous(memory_format=torch.channels_last)


def test_shared_noise_is_the_seeded_one_and_makes_x_t(net):
    images = torch.rand(2, 3, 256, 256) * 2 - 1
    x, t = features.Config(taps=TAPS, timesteps=(50, 150)).build().noised(images)
    noise = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(40))
    expected = objective.Config().build().add_noise(images[1:], noise, torch.tensor([50]))
    assert t.tolist() == [50, 150, 50, 150]
    torch.testing.assert_close(x[2:3], expected, atol=1e-5, rtol=0)


def test_no_noise_scales_the_image(net, images):
    x, _ = features.Config(taps=TAPS, timesteps=(50,), noise="none").build().noised(images)
    alpha = objective.Config().build().alphas_cumprod[50]
    torch.testing.assert_close(x, images * alpha.sqrt().float())


@pytest.mark.parametrize("noise", ["shared", "none", "per_image"])
@pytest.mark.parametrize("normalise", ["none", "rms", "channel"])
def test_batch_is_its_singles(net, images, noise, normalise):
    together = levels_of(net, images, noise=noise, normalise=normalise)
    for row in range(len(images)):
        single = levels_of(net, images[row : row + 1], noise=noise, normalise=normalise)
        for level, one in zip(together, single, strict=True):
            torch.testing.assert_close(level[row : row + 1], one, rtol=1e-4, atol=1e-5)


def test_per_image_noise_differs_between_images(net, images):
    extractor = features.Config(taps=TAPS, timesteps=(900,), noise="per_image").build()
    x, _ = extractor.noised(images)
    assert (x[0] - x[1]).abs().max() > 0.5


def test_rms_makes_timesteps_weigh_alike(net, images):
    for level in levels_of(net, images, normalise="rms"):
        each = level.unflatten(1, (3, -1)).square().mean(dim=(2, 3, 4))
        torch.testing.assert_close(each, torch.ones_like(each), rtol=1e-4, atol=1e-4)


def test_channel_standardises_each_channel_even_of_a_single_place(net, images):
    for plain, level in zip(levels_of(net, images), levels_of(net, images, normalise="channel"), strict=True):
        torch.testing.assert_close(level, torch.nn.functional.instance_norm(plain), rtol=1e-4, atol=1e-5)
    smallest = images[..., : net.multiple, : net.multiple]
    assert levels_of(net, smallest, normalise="channel")[0].abs().max() == 0


def test_image_rides_on_the_finest_level_and_bgr_flips_it(net, images):
    plain, with_image = levels_of(net, images), levels_of(net, images, image=True)
    extractor = features.Config(taps=TAPS, timesteps=(50, 150, 250), image=True).build()
    assert tuple(level.shape[1] for level in with_image) == extractor.channels(net)
    torch.testing.assert_close(with_image[-1][:, : plain[-1].shape[1]], plain[-1])
    bgr = levels_of(net, images.flip(1), image=True, channel_order="bgr")
    torch.testing.assert_close(bgr, with_image)


def test_graph_follows_trainability(images):
    frozen = denoiser.Scratch.tiny().replace(trainable=False).build()
    trained = denoiser.Scratch.tiny().build()
    assert not any(level.requires_grad for level in levels_of(frozen, images))
    assert all(level.requires_grad for level in levels_of(trained, images))


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="at least one tap"):
        features.Config(taps=()).build()
    with pytest.raises(ConfigError, match="0 to 999"):
        features.Config(taps=TAPS, timesteps=(1000,)).build()
