"""A denoiser trained by MSDM as the backbone of a segmenter: one denoiser, two lives."""

import pytest
import torch

from medtextdiff.config import ConfigError
from medtextdiff.diffusion import denoiser, latent_backbone, objective
from medtextdiff.diffusion.autoencoder import AutoencoderError
from medtextdiff.diffusion.denoiser import DenoiserError
from medtextdiff.segmentation import feature_bank, features
from medtextdiff.segmentation.graphs.traced import graphs_of
from medtextdiff.segmentation.heads import pyramid
from medtextdiff.segmentation.models import fasttextdiff
from medtextdiff.types import TextFeatures

TAPS = (-1, 0, 1, 2, 3)
T = torch.tensor([3, 700])


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def run(model, tmp_path):
    """The folders that a finished MSDM run has."""
    with torch.no_grad():
        model.conditioning.null.token.normal_(generator=torch.Generator().manual_seed(2))
    model.autoencoder.save_pretrained(tmp_path / "autoencoder")
    model.denoiser.save_pretrained(tmp_path / "denoiser")
    return tmp_path


def reads(settings, **changes):
    straight = objective.Config(target="flow", schedule="straight")
    about = features.Config(taps=(1, 3), timesteps=(100,), noise="none", schedule=straight).replace(**changes)
    return fasttextdiff.Config(denoiser=settings, features=about, head=pyramid.Config(width=16)).build()


@torch.no_grad()
def test_levels_are_what_the_network_computes_for_the_absent_prompt(model, run, images):
    backbone = latent_backbone.Config(path=str(run)).build()
    latents = model.autoencoder.encode(images).mean
    seen = []
    for block in model.denoiser.unet.up_blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model.denoiser(latents, T, model.read(["", ""]))
    levels = backbone.levels(backbone.enter(images), T, TAPS)
    torch.testing.assert_close(levels[2], seen[0], rtol=1e-5, atol=1e-5)  # the last block of each level
    torch.testing.assert_close(levels[4], seen[1], rtol=1e-5, atol=1e-5)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (channels, 32 // stride, 48 // stride)
        for channels, stride in zip(backbone.channels(TAPS), backbone.strides(TAPS), strict=True)
    ]


@torch.no_grad()
def test_a_prompt_would_give_other_levels(model, run, images):
    """The absent prompt is read, not ignored."""
    backbone = latent_backbone.Config(path=str(run)).build()
    latents = backbone.enter(images)
    absent = backbone.levels(latents, T, (3,))[0]
    told = model.read(["a polyp"])
    one = TextFeatures(told.tokens[:, :1], told.mask[:, :1], told.pooled)
    backbone.denoiser.read_absent_by(lambda: one)
    backbone = latent_backbone.LatentBackbone(backbone.autoencoder, backbone.denoiser)
    assert (backbone.levels(latents, T, (3,))[0] - absent).abs().max() > 1e-4


@torch.no_grad()
def test_an_images_noise_is_its_own_although_its_latents_differ_by_rounding(run, images, monkeypatch):
    backbone = latent_backbone.Config(path=str(run)).build()
    exact = backbone.enter
    monkeypatch.setattr(backbone, "enter", lambda batch: exact(batch) + 1e-6 * len(batch))
    extract = features.Config(taps=(1, 3), timesteps=(500,), noise="per_image").build()
    for together, alone in zip(extract(backbone, images), extract(backbone, images[:1]), strict=True):
        torch.testing.assert_close(together[:1], alone, rtol=1e-3, atol=1e-3)


def test_a_segmenter_learns_on_it_and_its_levels_can_be_banked(run, images, tmp_path):
    segmenter = reads(latent_backbone.Config(path=str(run)), image=True)
    with torch.no_grad():
        plain = segmenter(images, ["", ""])
        segmenter.keep_levels(feature_bank.Config(folder=str(tmp_path / "bank"), dtype="as_computed").build())
        torch.testing.assert_close(segmenter(images, ["", ""]), plain, rtol=1e-4, atol=1e-4)
    segmenter.train()
    segmenter(images, ["", ""]).square().mean().backward()
    assert {name.partition(".")[0] for name, p in segmenter.named_parameters() if p.grad is not None} == {"head"}


def test_finetuned_it_is_written_whole_and_read_again(run, images, tmp_path):
    settings = latent_backbone.Config(path=str(run), trainable=True)
    segmenter = reads(settings).train()
    segmenter(images, ["", ""]).square().mean().backward()
    moved = [name for name, p in segmenter.denoiser.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert moved
    assert all(name.startswith("denoiser.") for name in moved)  # never the autoencoder
    with torch.no_grad():
        for weight in segmenter.denoiser.denoiser.parameters():
            weight.add_(0.01)
    segmenter.denoiser.save_pretrained(tmp_path / "saved")
    again = settings.saved(str(tmp_path / "saved")).build().eval()
    with torch.no_grad():
        expected = segmenter.denoiser.eval().levels(segmenter.denoiser.enter(images), T, (3,))[0]
        torch.testing.assert_close(again.levels(again.enter(images), T, (3,))[0], expected)


def test_what_is_missing_is_told(run):
    with pytest.raises(DenoiserError, match="name an MSDM run"):
        latent_backbone.Config().build()
    with pytest.raises(DenoiserError, match="denoises latents"):
        denoiser.Config(path=str(run)).build()
    path = run / "denoiser" / "absent_prompt.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:40])
    with pytest.raises(DenoiserError, match="damaged"):
        latent_backbone.Config(path=str(run)).build()
    path.unlink()
    with pytest.raises(DenoiserError, match="absent prompt"):
        latent_backbone.Config(path=str(run)).build()
    (run / "autoencoder" / "config.json").unlink()
    with pytest.raises(AutoencoderError):
        latent_backbone.Config(path=str(run)).build()


def test_wrong_taps_and_sides_are_told(run, images):
    backbone = latent_backbone.Config(path=str(run)).build()
    latents = backbone.enter(images)
    with pytest.raises(ValueError, match="at least one tap"):
        backbone.levels(latents, T, ())
    with pytest.raises(ValueError, match="no decoder block 9"):
        backbone.levels(latents, T, (9,))
    with pytest.raises(ValueError, match="multiples"):
        backbone.levels(latents[..., :3], T, (0,))


def test_noise_on_latents_cannot_be_exported(run):
    with pytest.raises(ConfigError, match="noise on latents"):
        graphs_of(reads(latent_backbone.Config(path=str(run)), noise="shared"))
    assert graphs_of(reads(latent_backbone.Config(path=str(run))))


@torch.no_grad()
def test_noise_is_added_to_the_latents(run, images):
    noisy, plain = (reads(latent_backbone.Config(path=str(run)), noise=noise) for noise in ("shared", "none"))
    assert (noisy.encode(images)[0] - plain.encode(images)[0]).abs().max() > 1e-3
    torch.testing.assert_close(noisy.encode(images[:1])[0], noisy.encode(images)[0][:1], rtol=1e-4, atol=1e-4)
