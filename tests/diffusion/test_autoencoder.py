import json

import numpy as np
import pytest
import torch

from medtextdiff.config import from_json, to_json
from medtextdiff.diffusion import autoencoder, reconstruction
from medtextdiff.diffusion.autoencoder import AutoencoderError
from medtextdiff.types import Batch


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(num=4, size=32, seed=0):
    """Smooth images in [-1, 1]."""
    noise = torch.randn(num, 3, size + 8, size + 8, generator=rng(seed))
    return (4 * torch.nn.functional.avg_pool2d(noise, 9, 1)).clamp(-1, 1)


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return autoencoder.Scratch.tiny().build()


def test_latents_are_coarse_and_images_come_back_at_their_size(tiny):
    images = pictures(size=24)
    moments = tiny.encode(images)
    assert moments.mean.shape == moments.std.shape == (4, tiny.latent_channels, 24 // tiny.downsampling, 6)
    assert (moments.std > 0).all()
    assert tiny.decode(moments.mean).shape == images.shape


def test_the_small_one_shrinks_eightfold():
    with torch.device("meta"):
        built = autoencoder.Scratch().build()
    assert built.downsampling == 8
    assert sum(p.numel() for p in built.parameters()) == 5_791_852


def test_measured_latents_have_mean_0_and_deviation_1(tiny):
    images = pictures(16)
    tiny.normalise(images.split(4))
    drawn = torch.cat([tiny.encode(images).draw(rng(k)) for k in range(8)])
    torch.testing.assert_close(drawn.mean(dim=(0, 2, 3)), torch.zeros(4), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.std(dim=(0, 2, 3)), torch.ones(4), atol=0.05, rtol=0)


def test_normalising_changes_no_image(tiny):
    images = pictures()
    before = tiny.decode(tiny.encode(images).mean)
    tiny.normalise([images])
    torch.testing.assert_close(tiny.decode(tiny.encode(images).mean), before, atol=1e-4, rtol=1e-4)


def test_diffusers_reads_the_same_scale(tiny, tmp_path):
    """Its pipelines compute (z - latents_mean) * scaling_factor / latents_std."""
    from diffusers import AutoencoderKL

    images = pictures()
    tiny.normalise([images])
    tiny.save_pretrained(tmp_path)
    theirs = AutoencoderKL.from_pretrained(tmp_path)
    z = theirs.encode(torch.nn.functional.pixel_unshuffle(images, 2)).latent_dist.mean
    mean, std = (torch.tensor(v)[:, None, None] for v in (theirs.config.latents_mean, theirs.config.latents_std))
    torch.testing.assert_close((z - mean) * theirs.config.scaling_factor / std, tiny.encode(images).mean)


def test_it_is_found_again_with_scale_and_report(tiny, tmp_path):
    tiny.normalise([pictures()])
    tiny.report = {"psnr": {"mean": 30.0}}
    tiny.save_pretrained(tmp_path / "autoencoder")
    for path in (tmp_path, tmp_path / "autoencoder"):
        settings = from_json(to_json(autoencoder.Config(path=str(path))))
        again = settings.build()
        assert again.report == tiny.report
        torch.testing.assert_close(again.encode(pictures()).mean, tiny.encode(pictures()).mean)
        assert not any(p.requires_grad for p in again.parameters())
        assert not again.train().training
    assert "_name_or_path" not in json.loads((tmp_path / "autoencoder" / "config.json").read_text())


def test_latents_are_drawn_image_by_image(tiny):
    moments = tiny.encode(pictures(3))
    first = autoencoder.Moments(moments.mean[:1], moments.std[:1])
    assert torch.equal(moments.draw(rng())[:1], first.draw(rng()))
    assert not torch.equal(moments.draw(rng(1)), moments.draw(rng(2)))


@pytest.mark.parametrize("damage", ["no path", "no folder", "no weights", "another class", "report"])
def test_a_bad_folder_is_told_in_one_line(tiny, tmp_path, damage):
    tiny.save_pretrained(tmp_path)
    path = str(tmp_path)
    if damage == "no path":
        path = ""
    elif damage == "no folder":
        path = str(tmp_path / "nowhere" / "at all")
    elif damage == "no weights":
        (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    elif damage == "another class":
        (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    else:
        (tmp_path / "reconstruction.json").write_text("{")
    with pytest.raises(AutoencoderError) as caught:
        autoencoder.Config(path=path).build()
    assert "\n" not in str(caught.value)


def test_sides_and_widths_that_do_not_fit(tiny):
    with pytest.raises(ValueError, match="multiples of 4"):
        tiny.encode(pictures(size=30))
    with pytest.raises(AutoencoderError, match="multiples of norm_num_groups"):
        autoencoder.Scratch(block_out_channels=(10, 20)).build()


def test_ssim_is_scikit_images():
    from skimage.metrics import structural_similarity

    ours, theirs = pictures(2, 40), (pictures(2, 40, seed=1) * 0.3 + pictures(2, 40)).clamp(-1, 1)
    expected = [
        structural_similarity(
            a.numpy(), b.numpy(), channel_axis=0, data_range=2, gaussian_weights=True, sigma=1.5, truncate=3.5,
            use_sample_covariance=False,
        )
        for a, b in zip(ours, theirs, strict=True)
    ]  # fmt: skip
    # Theirs leaves out a rim of 5 pixels, as ours does without padding.
    np.testing.assert_allclose(reconstruction.ssim(ours, theirs).numpy(), expected, atol=2e-3)
    torch.testing.assert_close(reconstruction.ssim(ours, ours), torch.ones(2))


def test_psnr_has_its_value():
    images = torch.zeros(1, 3, 8, 8)
    assert float(reconstruction.psnr(images, images + 0.2)) == pytest.approx(20.0, abs=1e-4)  # 0.1 of the range
    assert float(reconstruction.psnr(images, images)) == pytest.approx(100.0)


def test_spectra_see_texture_but_not_its_place():
    texture = torch.randn(2, 3, 48, 48, generator=rng()) * 0.3
    other = torch.randn(2, 3, 48, 48, generator=rng(1)) * 0.3  # as rough, elsewhere
    smooth = torch.zeros_like(texture)
    distance = reconstruction.spectral_distance
    assert (distance(texture, texture) == 0).all()
    assert (distance(texture, other) < 0.6 * distance(texture, smooth)).all()


def test_divergence_is_0_at_a_standard_normal():
    zeros = torch.zeros(2, 4, 3, 3)
    assert float(reconstruction.divergence(zeros, zeros)) == 0
    mean, logvar = torch.randn(2, 2, 4, 3, 3, generator=rng()).unbind()
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * logvar).exp()), torch.distributions.Normal(0.0, 1.0)
    ).mean()
    torch.testing.assert_close(reconstruction.divergence(mean, logvar), expected)


def test_the_loss_falls_and_its_gradient_is_finite(tiny):
    images = pictures(8)
    loss = reconstruction.Config().build()
    optimizer = torch.optim.Adam(tiny.parameters(), lr=3e-3)
    values = []
    for step in range(30):
        found = loss(tiny, Batch([""] * 8, [""] * 8, images), rng(step))
        optimizer.zero_grad()
        found["loss"].backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in tiny.parameters())
        optimizer.step()
        values.append(float(found["loss"].detach()))
    assert values[-1] < 0.8 * values[0]
    assert {"l1", "mse", "ssim", "spectrum", "kl"} <= found.keys()


def test_the_loss_of_black_images_has_a_gradient(tiny):
    black = torch.full((2, 3, 32, 32), -1.0)
    reconstruction.Config().build()(tiny, Batch(["", ""], ["", ""], black), rng())["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in tiny.parameters() if p.grad is not None)
