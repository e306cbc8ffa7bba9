"""The frozen U-Net against activations of the published code, and the converter on the full-size model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medtextdiff.diffusion import adm, objective
from medtextdiff.diffusion.denoiser import Denoiser
from tests.reference.fill import fill, seeded

GOLDENS = Path(__file__).parent / "goldens"
SCALE = 0.05
TOLERANCE = 1e-4  # of the golden array's largest absolute value


def golden(name: str):
    return json.loads((GOLDENS / f"{name}.json").read_text()), np.load(GOLDENS / f"{name}.npz")


@pytest.fixture(scope="module", params=["adm_tiny", "adm_small"])
def case(request):
    from diffusers import UNet2DModel

    about, arrays = golden(request.param)
    flags = adm.Flags(**about["flags"])
    unet = UNet2DModel(**adm.unet_config(flags))
    unet.load_state_dict(adm.convert(fill(about["state_dict"], SCALE), flags))
    return about, arrays, Denoiser(unet)


def test_counts(case):
    about, _, denoiser = case
    assert sum(p.numel() for p in denoiser.parameters()) == about["params"]
    assert denoiser.num_blocks == len([key for key in case[1].files if key.startswith("act.50.") and "stats" in key])


@pytest.mark.parametrize("t", [50, 150, 250])
def test_output_and_every_block_agree(case, t):
    _, arrays, denoiser = case
    taps = range(denoiser.num_blocks)
    out, levels = denoiser(torch.from_numpy(arrays[f"x_t.{t}"]), torch.tensor([t]), taps=taps)
    expected = arrays[f"out.{t}"]
    assert np.abs(out.numpy() - expected).max() <= TOLERANCE * np.abs(expected).max()
    for i, level in enumerate(levels):
        assert level.shape == tuple(arrays[f"act.{t}.{i}.shape"])
        flat = level.flatten()
        mean, std, largest = arrays[f"act.{t}.{i}.stats"]
        stats = torch.stack([flat.mean(), flat.std(), flat.abs().max()]).numpy()
        assert np.abs(stats - [mean, std, largest]).max() <= TOLERANCE * largest
        samples = flat[torch.linspace(0, flat.numel() - 1, 64).long()].numpy()
        assert np.abs(samples - arrays[f"act.{t}.{i}.samples"]).max() <= TOLERANCE * largest


def test_inputs_are_the_seeded_ones(case):
    _, arrays, _ = case
    assert torch.equal(torch.from_numpy(arrays["x"]), seeded(*arrays["x"].shape, seed=1))
    assert torch.equal(torch.from_numpy(arrays["noise"]), seeded(*arrays["noise"].shape, seed=2))


@pytest.mark.parametrize("t", [50, 150, 250])
@pytest.mark.parametrize("name", ["adm_tiny", "adm_small"])
def test_noisy_images_agree(name, t):
    _, arrays = golden(name)
    x, noise = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["noise"])
    x_t = objective.Config().build().add_noise(x, noise, torch.tensor([t]))
    assert np.abs(x_t.numpy() - arrays[f"x_t.{t}"]).max() <= 1e-5


def test_flags_are_inferred_from_the_weights(case):
    about, _, _ = case
    flags = adm.Flags(**about["flags"])
    state = meta(about["state_dict"])
    given = {name: about["flags"][name] for name in ("image_size", "num_head_channels")}
    assert adm.unet_config(adm.infer_flags(state, adm.Flags(**given))) == adm.unet_config(flags)
    with pytest.raises(adm.CheckpointError, match="give num_head_channels or num_heads"):
        adm.infer_flags(state)


def test_full_size_model_without_allocating_it():
    from diffusers import UNet2DModel

    with torch.device("meta"):
        unet = UNet2DModel(**adm.unet_config(adm.Flags()))
    assert sum(p.numel() for p in unet.parameters()) == 552_814_086
    denoiser = Denoiser(unet)
    assert denoiser.channels((4, 6, 8, 12, 16)) == (1024, 512, 512, 256, 256)
    assert denoiser.strides((4, 6, 8, 12, 16)) == (16, 8, 4, 2, 1)
    assert (denoiser.num_blocks, denoiser.multiple) == (18, 32)


def test_full_size_checkpoint_converts_on_meta():
    """The full-size names are those of adm_small (same depth); their shapes come from its own rules."""
    state = meta(guided_shapes(adm.Flags()))
    assert set(state) == set(golden("adm_small")[0]["state_dict"])
    assert sum(value.numel() for value in state.values()) == 552_814_086
    assert adm.infer_flags(state).replace(channel_mult="") == adm.Flags(channel_mult="")
    converted = adm.convert(state, adm.infer_flags(state))
    assert all(value.device.type == "meta" for value in converted.values())
    assert sum(value.numel() for value in converted.values()) == 552_814_086


def meta(shapes):
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def guided_shapes(flags):
    """adm_small scaled up: every dimension that is a width is times 8 (32 channels become 256)."""
    about, _ = golden("adm_small")
    factor = flags.num_channels // about["flags"]["num_channels"]
    fixed = {("input_blocks.0.0.weight", 1), ("out.2.weight", 0), ("out.2.bias", 0)}
    return {
        key: [side if axis > 1 or (key, axis) in fixed else side * factor for axis, side in enumerate(shape)]
        for key, shape in about["state_dict"].items()
    }
