"""guided-diffusion's flags: read from a file or from the weights, and told to diffusers' `UNet2DModel`."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from medtextdiff import config

_NUM_CLASSES = 1000  # guided-diffusion's NUM_CLASSES: its class-conditional models are ImageNet models
_NUM_GROUPS = 32  # guided-diffusion's GroupNorm32, at every width
_DEFAULT_MULTIPLIERS = {  # guided-diffusion's choice when channel_mult is ""
    512: "0.5,1,1,2,2,4,4",
    256: "1,1,2,2,4,4",
    128: "1,1,2,3,4",
    64: "1,2,3,4",
}
_UPSAMPLERS = ("1.in_layers.0.weight", "2.in_layers.0.weight", "1.conv.weight", "2.conv.weight")


class CheckpointError(ValueError):
    """A checkpoint or its flags cannot be used; the message says which and why, in one line."""


class Flags(config.Config):
    """guided-diffusion's flags; the defaults are those of `256x256_diffusion_uncond.pt` (ImageNet).

    Only the architecture's flags change the result; the others are accepted so that a whole set can be read.
    As in guided-diffusion, `num_head_channels` wins over `num_heads` unless it is -1.
    """

    image_size: int = Field(default=256, ge=1)
    num_channels: int = Field(default=256, ge=1)
    num_res_blocks: int = 2
    num_heads: int = 4
    num_heads_upsample: int = -1
    num_head_channels: int = 64
    attention_resolutions: str = "32,16,8"
    channel_mult: str = ""
    dropout: float = 0.0
    class_cond: bool = False
    use_checkpoint: bool = False
    use_scale_shift_norm: bool = True
    resblock_updown: bool = True
    use_fp16: bool = False
    use_new_attention_order: bool = False
    learn_sigma: bool = True
    diffusion_steps: int = Field(default=1000, ge=1)
    noise_schedule: str = "linear"
    timestep_respacing: str = ""
    use_kl: bool = False
    predict_xstart: bool = False
    rescale_timesteps: bool = False
    rescale_learned_sigmas: bool = False

    @model_validator(mode="before")
    @classmethod
    def _heads_without_head_channels(cls, values: Any) -> Any:
        # Whoever names only num_heads means guided-diffusion's own default of num_head_channels, which is -1.
        if isinstance(values, dict) and "num_heads" in values and "num_head_channels" not in values:
            return values | {"num_head_channels": -1}
        return values

    @property
    def multipliers(self) -> tuple[float, ...]:
        """Width of each level in units of `num_channels`, fine to coarse."""
        text = self.channel_mult or _DEFAULT_MULTIPLIERS.get(self.image_size, "")
        if not text:
            raise CheckpointError(f"channel_mult must be given: there is no default for image_size {self.image_size}")
        return _numbers("channel_mult", text)

    @property
    def attention_levels(self) -> tuple[int, ...]:
        """Levels with attention; 0 is the finest."""
        # As guided-diffusion does: an image side that is not a multiple is rounded down.
        sides = _numbers("attention_resolutions", self.attention_resolutions)
        strides = {self.image_size // side for side in sides}
        return tuple(level for level in range(len(self.multipliers)) if 2**level in strides)


def read_flags(path: Path) -> Flags:
    """Flags from a JSON file. What it leaves out can be told by the weights: see `infer_flags`.

    Raises:
        CheckpointError: no such file, not JSON, an unknown flag or a wrong type.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read flags from {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f'{path} must hold one JSON object of flags, e.g. {{"num_head_channels": 64}}')
    for name in values:
        if name not in Flags.model_fields:
            raise CheckpointError(f"{path}: unknown flag '{name}'; {config.nearest(name, Flags.model_fields)}")
    try:
        return Flags(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{path}: flag '{'.'.join(map(str, first['loc']))}': {first['msg']}") from None


def infer_flags(state: Mapping[str, Tensor], given: Flags | None = None) -> Flags:
    """Complete the flags by what the weights' names and shapes tell; a flag that was given stays as given.

    The weights do not tell the number of attention heads: it must be given, unless everything else is as in the
    published 256x256 models, whose 64 channels a head are then taken.

    Raises:
        CheckpointError: not a guided-diffusion U-Net, or a needed flag is missing.
    """
    given = given or Flags()
    found = _structure(state, given.image_size)
    flags = given.replace(**found)
    heads_given = given.model_fields_set & {"num_heads", "num_head_channels"}
    if not heads_given and any(_told(flags)[name] != value for name, value in _told(Flags()).items()):
        raise CheckpointError(
            "the weights do not tell the number of attention heads, and this is not the published 256x256 model "
            f"(num_channels {flags.num_channels}, num_res_blocks {flags.num_res_blocks}, channel_mult "
            f"{flags.channel_mult}): give num_head_channels or num_heads, and image_size, in a JSON file of flags"
        )
    return flags.replace(**{name: getattr(given, name) for name in given.model_fields_set})


def unet_config(flags: Flags) -> dict[str, Any]:
    """Arguments of `UNet2DModel` that make it compute what guided-diffusion's U-Net with these flags computes.

    Raises:
        CheckpointError: flags that `UNet2DModel` cannot express; the message names the flag.
    """
    widths = _widths(flags)
    plain = "ResnetDownsampleBlock2D" if flags.resblock_updown else "DownBlock2D"
    down = ["AttnDownBlock2D" if level in flags.attention_levels else plain for level in range(len(widths))]
    resample = "resnet" if flags.resblock_updown else "conv"
    return {
        "sample_size": flags.image_size,
        "in_channels": 3,
        "out_channels": 6 if flags.learn_sigma else 3,
        "block_out_channels": widths,
        "layers_per_block": flags.num_res_blocks,
        "down_block_types": tuple(down),
        "up_block_types": tuple(name.replace("Down", "Up").replace("down", "up") for name in reversed(down)),
        "downsample_type": resample,
        "upsample_type": resample,
        "resnet_time_scale_shift": "scale_shift" if flags.use_scale_shift_norm else "default",
        "attention_head_dim": _head_dim(flags, widths),
        "attn_norm_num_groups": _NUM_GROUPS,
        "norm_num_groups": _NUM_GROUPS,
        "norm_eps": 1e-5,
        "dropout": flags.dropout,
        "num_class_embeds": _NUM_CLASSES if flags.class_cond else None,
    }


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = (0.0,)
    if not all(0 < number < math.inf for number in numbers):
        raise CheckpointError(f"{name} must be positive numbers parted by commas, e.g. '1,2,4'; got '{text}'")
    return numbers


def _widths(flags: Flags) -> tuple[int, ...]:
    if flags.multipliers[0] != 1:
        # The time embedding would need another width than the first level, which UNet2DModel does not have.
        raise CheckpointError(f"channel_mult must begin with 1 to be a UNet2DModel; got {flags.multipliers}")
    if flags.rescale_timesteps and flags.diffusion_steps != 1000:
        raise CheckpointError("rescale_timesteps is only supported with diffusion_steps 1000, where it has no effect")
    widths = tuple(int(multiplier * flags.num_channels) for multiplier in flags.multipliers)
    if any(width % _NUM_GROUPS for width in widths) or flags.num_res_blocks < 1:
        raise CheckpointError(
            f"num_channels times channel_mult must be multiples of {_NUM_GROUPS}, and num_res_blocks at least 1; "
            f"got widths {widths} and num_res_blocks {flags.num_res_blocks}"
        )
    return widths


def _head_dim(flags: Flags, widths: tuple[int, ...]) -> int:
    attended = {widths[level] for level in flags.attention_levels} | {widths[-1]}  # the middle always attends
    if flags.num_head_channels == -1:
        if len(attended) > 1 or flags.num_heads_upsample not in (-1, flags.num_heads):
            raise CheckpointError(
                "a fixed num_heads at several widths is not a UNet2DModel, which has one width of head everywhere; "
                f"attention is at widths {sorted(attended)}: this checkpoint cannot be converted"
            )
        head_dim = widths[-1] // flags.num_heads if flags.num_heads > 0 else 0
    else:
        head_dim = flags.num_head_channels
    if head_dim < 1 or any(width % head_dim for width in attended):
        raise CheckpointError(f"num_head_channels or num_heads must divide the widths {sorted(attended)}")
    return head_dim


def _told(flags: Flags) -> dict[str, Any]:
    """What the weights' shapes tell about flags, in one form, so that two can be compared."""
    names = ("num_channels", "num_res_blocks", "use_scale_shift_norm", "resblock_updown", "learn_sigma")
    told = {name: getattr(flags, name) for name in names}
    return told | {"multipliers": flags.multipliers, "attention_levels": flags.attention_levels}


def _structure(state: Mapping[str, Tensor], image_size: int) -> dict[str, Any]:
    """The flags that names and shapes tell."""
    width = _shape(state, "input_blocks.0.0.weight")[0]
    num_out = 1 + max((int(m[1]) for key in state if (m := re.match(r"output_blocks\.(\d+)\.", key))), default=0)
    # The last block of a level holds the upsampler, the only sign of where levels part.
    ups = [k for k in range(num_out) if any(f"output_blocks.{k}.{name}" in state for name in _UPSAMPLERS)]
    per_level = ups[0] + 1 if ups else num_out
    firsts = [f"input_blocks.{1 + k}" for k in range(0, num_out, per_level)]
    widths = [_shape(state, f"{first}.0.in_layers.2.weight")[0] for first in firsts]
    attended = [level for level, first in enumerate(firsts) if f"{first}.1.qkv.weight" in state]
    return {
        "num_channels": width,
        "num_res_blocks": per_level - 1,
        "channel_mult": ",".join(f"{level / width:g}" for level in widths),
        "attention_resolutions": ",".join(str(image_size // 2**level) for level in attended),
        "use_scale_shift_norm": _shape(state, f"{firsts[0]}.0.emb_layers.1.weight")[0] == 2 * widths[0],
        "resblock_updown": not any(key.endswith(".op.weight") for key in state),
        "learn_sigma": _shape(state, "out.2.weight")[0] == 6,
        "class_cond": "label_emb.weight" in state,
    }


def _shape(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    if key not in state or state[key].dim() == 0:
        raise CheckpointError(
            f"not a guided-diffusion U-Net, or an incomplete one: it has {len(state)} entries and no usable '{key}'"
        )
    return tuple(state[key].shape)
