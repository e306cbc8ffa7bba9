"""U-Nets of every kind we walk, tiny and random."""

import pytest
import torch

KINDS = {
    "plain": {"down": ["DownBlock2D"] * 3, "up": ["UpBlock2D"] * 3, "add_attention": False},
    "resnet": {
        "down": ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
        "up": ["AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"],
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "layers_per_block": 2,
    },
    "mixed": {
        "down": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
        "up": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        "resnet_time_scale_shift": "default",
    },
    "centred": {
        "down": ["DownBlock2D"] * 3,
        "up": ["UpBlock2D"] * 3,
        "center_input_sample": True,
        "mid_block_type": None,
    },
    "fourier": {"down": ["DownBlock2D"] * 3, "up": ["UpBlock2D"] * 3, "time_embedding_type": "fourier"},
}


def make_unet(kind="plain", **changes):
    """A UNet2DModel with three levels of 8, 16 and 16 channels."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    arguments = {
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (8, 16, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attn_norm_num_groups": 4,
        "attention_head_dim": 8,
        "resnet_time_scale_shift": "scale_shift",
    }
    chosen = {**KINDS[kind]}
    chosen["down_block_types"], chosen["up_block_types"] = chosen.pop("down"), chosen.pop("up")
    return UNet2DModel(**{**arguments, **chosen, **changes})


@pytest.fixture(params=sorted(KINDS))
def unet(request):
    return make_unet(request.param)


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(5)) * 2 - 1
