import json

import pytest
import torch
from torch import nn

from medtextdiff import config
from medtextdiff.diffusion import denoiser as room
from medtextdiff.diffusion.denoiser import Config, Denoiser, DenoiserError, Scratch
from medtextdiff.types import Denoiser as DenoiserProtocol
from tests.diffusion.conftest import make_unet

T = torch.tensor([3, 700])


def test_forward_is_bit_equal_to_diffusers(unet, images):
    denoiser = Denoiser(unet)
    with torch.no_grad():
        expected = unet(images, T).sample
    prediction, levels = denoiser(images, T)
    assert torch.equal(prediction, expected)
    assert levels == []


def test_bit_equal_under_bf16_autocast_and_channels_last(images):
    unet = make_unet("resnet").to(memory_format=torch.channels_last)
    denoiser = Denoiser(unet)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = unet(images, T).sample
        prediction, levels = denoiser(images, T, taps=(0, 5))
    assert torch.equal(prediction, expected)
    assert all(torch.isfinite(level).all() for level in levels)


def test_early_stop_gives_the_levels_of_the_whole_network(unet, images):
    denoiser = Denoiser(unet)
    every = range(-1, denoiser.num_blocks)
    _, expected = denoiser(images, T, taps=every)
    for tap in every:
        assert torch.equal(denoiser.levels(images, T, [tap])[0], expected[tap + 1])
    mixed = [denoiser.num_blocks - 1, 0, -1, 2]
    for level, tap in zip(denoiser.levels(images, T, mixed), mixed, strict=True):
        assert torch.equal(level, expected[tap + 1])


def test_nothing_runs_after_the_last_tap(images):
    class Forbidden(nn.Module):
        def forward(self, *_):
            raise AssertionError("ran after the last tap")

    denoiser = Denoiser(make_unet("resnet"))
    expected = denoiser.levels(images, T, (0, 3))
    denoiser.unet.up_blocks[1].resnets[1] = Forbidden()  # block 4
    denoiser.unet.conv_norm_out = Forbidden()
    for level, same in zip(denoiser.levels(images, T, (0, 3)), expected, strict=True):
        assert torch.equal(level, same)
    with pytest.raises(AssertionError):
        denoiser.levels(images, T, (0, 4))


@pytest.mark.parametrize("patch", [1, 2])
def test_channels_and_strides_are_known_without_a_forward(unet, patch):
    if patch == 2:
        unet = make_unet("mixed", in_channels=12, out_channels=12)
    denoiser = Denoiser(unet, patch=patch)
    side = 2 * denoiser.multiple
    taps = range(-1, denoiser.num_blocks)
    levels = denoiser.levels(torch.zeros(1, 3, side, side), torch.tensor([0]), taps)
    assert denoiser.channels(taps) == tuple(level.shape[1] for level in levels)
    assert denoiser.strides(taps) == tuple(side // level.shape[2] for level in levels)


def test_timesteps_in_one_batch_are_as_passes_of_their_own(unet, images):
    denoiser = Denoiser(unet)
    times = torch.tensor([50, 150, 250])
    one = images[:1]
    _, together = denoiser(one.expand(3, -1, -1, -1), times, taps=(0, 4))
    for i in range(3):
        _, alone = denoiser(one, times[i : i + 1], taps=(0, 4))
        for level, single in zip(together, alone, strict=True):
            torch.testing.assert_close(level[i : i + 1], single, rtol=1e-5, atol=1e-5)


def test_batch_is_as_singles(unet, images):
    denoiser = Denoiser(unet)
    together, _ = denoiser(images, T)
    for i in range(2):
        torch.testing.assert_close(
            together[i : i + 1], denoiser(images[i : i + 1], T[i : i + 1])[0], rtol=1e-5, atol=1e-5
        )


def test_patches_are_put_back_where_they_were(images):
    """A network that only copies its input channels gives back the image."""
    unet = make_unet("plain", in_channels=12, out_channels=12)
    denoiser = Denoiser(unet, patch=2)
    squares = torch.nn.functional.pixel_unshuffle(images, 2)
    with torch.no_grad():
        expected = torch.nn.functional.pixel_shuffle(unet(squares, T).sample, 2)
    assert torch.equal(denoiser(images, T)[0], expected)
    assert torch.equal(torch.nn.functional.pixel_shuffle(squares, 2), images)


def test_learned_variance_keeps_its_noise_in_the_first_half():
    denoiser = Scratch.tiny().replace(learn_sigma=True).build()
    prediction, _ = denoiser(torch.zeros(1, 3, 8, 8), torch.tensor([1]))
    squares = denoiser.unet(torch.zeros(1, 12, 4, 4), torch.tensor([1])).sample
    expected = torch.nn.functional.pixel_shuffle(squares[:, :12], 2)
    assert prediction.shape == (1, 6, 8, 8)
    assert torch.equal(prediction[:, :3], expected)


def test_frozen_denoiser_stays_frozen(images):
    denoiser = Denoiser(make_unet(dropout=0.5))
    parent = nn.ModuleList([denoiser]).train()
    assert parent.training
    assert not any(module.training for module in denoiser.modules())
    assert not any(p.requires_grad for p in denoiser.parameters())
    x = images.clone().requires_grad_()
    prediction, levels = denoiser(x, T, taps=(0,))
    assert not prediction.requires_grad
    assert not levels[0].requires_grad
    assert torch.equal(prediction, denoiser(x, T)[0])


def test_trainable_denoiser_gets_gradients(images):
    denoiser = Denoiser(make_unet(dropout=0.5), trainable=True)
    assert denoiser.train().unet.training
    denoiser.eval().levels(images, T, (2,))[0].sum().backward()
    grads = {name: p.grad is not None for name, p in denoiser.named_parameters()}
    assert grads["unet.conv_in.weight"]
    assert not grads["unet.conv_out.weight"]


def test_gradient_checkpointing_gives_the_same_gradients(images):
    gradients = []
    for checkpointing in (False, True):
        denoiser = Denoiser(make_unet("mixed"), trainable=True)
        if checkpointing:
            denoiser.unet.enable_gradient_checkpointing()
        denoiser(images, T)[0].square().mean().backward()
        gradients.append(denoiser.unet.conv_in.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("shape", "taps", "message"),
    [
        ((2, 3, 18, 24), (0,), "multiples of 4; got 18 x 24, the nearest is 16 x 24"),
        ((2, 3, 1, 3), (0,), "the nearest is 4 x 4"),
        ((2, 1, 16, 16), (0,), "images of 3 channels, not 1"),
        ((2, 3, 16, 16), (6,), "no decoder block 6: taps go from -1 .middle. to 5"),
        ((2, 3, 16, 16), (-2,), "no decoder block -2"),
        ((2, 3, 16, 16), (), "at least one tap"),
    ],
)
def test_bad_inputs(shape, taps, message):
    with pytest.raises(ValueError, match=message):
        Denoiser(make_unet()).levels(torch.zeros(shape), T, taps)


def test_unknown_networks_are_refused():
    with pytest.raises(DenoiserError, match="class-conditional"):
        Denoiser(make_unet(num_class_embeds=10))
    with pytest.raises(DenoiserError, match="SkipDownBlock2D are not supported"):
        Denoiser(make_unet(down_block_types=["SkipDownBlock2D"] * 3, up_block_types=["SkipUpBlock2D"] * 3))
    with pytest.raises(DenoiserError, match="patch 2 does not fit"):
        Denoiser(make_unet(), patch=2)


def test_it_is_the_shared_word():
    assert isinstance(Scratch.tiny().build(), DenoiserProtocol)


def test_our_own_network_has_its_known_size():
    denoiser = Scratch().build()
    assert sum(p.numel() for p in denoiser.parameters()) == 12_976_876
    assert denoiser.channels(range(8)) == (256, 256, 192, 192, 96, 96, 48, 48)
    assert denoiser.strides(range(8)) == (16, 8, 8, 4, 4, 2, 2, 2)
    assert denoiser.multiple == 16


def test_scratch_with_attention_runs():
    denoiser = Scratch.tiny().replace(num_attention_levels=1, attention_head_dim=8).build()
    assert denoiser(torch.zeros(1, 3, 8, 8), torch.tensor([1]))[0].shape == (1, 3, 8, 8)
    with pytest.raises(DenoiserError, match="5 groups"):
        Scratch(norm_num_groups=5).build()


def test_configs_go_to_json_and_back():
    for part in (Config(path="somewhere", trainable=True), Scratch.tiny()):
        assert config.from_json(json.loads(json.dumps(config.to_json(part)))) == part


@pytest.mark.parametrize("patch", [1, 2])
def test_save_and_load(tmp_path, images, patch):
    first = Scratch.tiny().replace(patch=patch).build().eval()
    first.save_pretrained(tmp_path)
    second = Config(path=str(tmp_path)).build()
    assert second.patch == patch
    with torch.no_grad():
        assert torch.equal(first(images, T)[0], second(images, T)[0])


def test_half_precision_files_load_as_asked(tmp_path):
    Scratch.tiny().build().half().save_pretrained(tmp_path)
    assert Config(path=str(tmp_path)).build().unet.dtype == torch.float32
    whole, half = (Config(path=str(tmp_path), dtype=kind).build() for kind in ("float32", "bfloat16"))
    assert half.unet.dtype == torch.bfloat16
    with torch.no_grad():  # without autocast, too
        images = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)
        told, levels = half(images, torch.tensor([30]), taps=(0,))
        assert levels[0].dtype == torch.bfloat16
        torch.testing.assert_close(told.float(), whole(images, torch.tensor([30]))[0], atol=0.1, rtol=0.1)


class TestBadFolders:
    @pytest.fixture
    def folder(self, tmp_path):
        Scratch.tiny().build().save_pretrained(tmp_path / "denoiser")
        return tmp_path / "denoiser"

    def fails(self, folder, message):
        with pytest.raises(DenoiserError, match=message) as caught:
            Config(path=str(folder)).build()
        assert "\n" not in str(caught.value)

    def test_missing(self, tmp_path):
        self.fails(tmp_path / "nothing", "neither a folder nor a model id")
        self.fails("nobody/nothing", "neither a folder nor a model id")

    def test_no_config(self, folder):
        (folder / "config.json").unlink()
        self.fails(folder, "it needs config.json")

    def test_no_weights(self, folder):
        (folder / "diffusion_pytorch_model.safetensors").unlink()
        self.fails(folder, "cannot load a denoiser")

    def test_truncated(self, folder):
        path = folder / "diffusion_pytorch_model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        self.fails(folder, "cannot load a denoiser")

    def test_empty_weights(self, folder):
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"")
        self.fails(folder, "cannot load a denoiser")

    def test_config_is_not_json(self, folder):
        (folder / "config.json").write_text("{")
        self.fails(folder, "cannot load a denoiser")

    def test_other_model(self, folder):
        self.edit(folder, _class_name="AutoencoderKL")
        self.fails(folder, "holds a AutoencoderKL, not a UNet2DModel")

    def test_config_of_another_shape(self, folder):
        self.edit(folder, block_out_channels=[8, 32])
        self.fails(folder, "cannot load|does not fit")

    def test_config_of_another_depth(self, folder):
        self.edit(folder, layers_per_block=2)
        self.fails(folder, "cannot load|does not fit")

    def test_values_not_finite(self, folder):
        denoiser = Config(path=str(folder)).build()
        denoiser.unet.conv_in.bias[0] = float("nan")
        denoiser.save_pretrained(folder)
        self.fails(folder, "conv_in.bias' holds values that are not finite")

    def edit(self, folder, **changes):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_nothing_heavy_on_import():
    assert not hasattr(room, "UNet2DModel")


def test_a_saved_denoiser_does_not_say_where_it_was_read(tmp_path):
    Scratch.tiny().build().save_pretrained(tmp_path / "first")
    Config(path=str(tmp_path / "first")).build().save_pretrained(tmp_path / "second")
    assert str(tmp_path) not in (tmp_path / "second" / "config.json").read_text()
