"""A diffusers `UNet2DConditionModel` as a Denoiser of latents that reads a prompt: its words, and it as a whole."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.diffusion import folders
from medtextdiff.diffusion.denoiser import DenoiserError
from medtextdiff.diffusion.folders import load_strictly, one_line
from medtextdiff.types import Levels, TextFeatures

ABSENT = "absent_prompt.safetensors"
_SMALL_GRID = 1024  # positions; the products of a larger one would fill the memory


class LatentDenoiser(nn.Module):
    """Attends to the words of a prompt (with their mask) at its levels; the pooled prompt joins the time embedding.

    `absent` is how it reads an absent prompt, one row without padding; None: nobody said. It is saved beside the
    weights, so that the network can be used without the text encoder it was trained with.
    """

    def __init__(self, unet: Any, trainable: bool = False) -> None:
        super().__init__()
        self.unet = unet.requires_grad_(trainable)
        unet.set_attn_processor(_Attend())
        self.trainable = trainable
        self._absent: Callable[[], TextFeatures] | None = None
        self.train(trainable)

    @property
    def absent(self) -> TextFeatures | None:
        """How an absent prompt is read: `tokens` Float[1 L D], `pooled` Float[1 D]."""
        if self._absent is None:
            return None
        with torch.no_grad():
            return self._absent()

    def read_absent_by(self, read: Callable[[], TextFeatures]) -> None:
        """Ask `read` for the absent prompt whenever it is wanted: its reading changes while it is learned."""
        self._absent = read

    @property
    def channels(self) -> int:
        """C of the latents."""
        return int(self.unet.config.in_channels)

    @property
    def text_width(self) -> int:
        """D of the prompts' features."""
        return int(self.unet.config.cross_attention_dim)

    @property
    def multiple(self) -> int:
        """Each side of the latents must be a multiple of this."""
        return 2 ** (len(self.unet.config.block_out_channels) - 1)

    def forward(
        self,
        x: Float[Tensor, "B C h w"],
        t: Int[Tensor, " B"],
        text: TextFeatures | None = None,
        taps: Sequence[int] = (),
    ) -> tuple[Float[Tensor, "B C h w"], Levels]:
        """The prediction for the noisy latents `x` at timesteps `t`; there are no levels.

        Raises:
            ValueError: no text (an absent prompt is a learned word), taps, or sides that cannot be halved so often.
        """
        if text is None or len(taps):
            raise ValueError("this denoiser of latents needs a text, and gives no levels: leave out `taps`")
        self.check_sides(x)
        found = self.unet(
            x, t, encoder_hidden_states=text.tokens, encoder_attention_mask=text.mask, class_labels=text.pooled
        )
        return found.sample, []

    def check_sides(self, x: Float[Tensor, "B C h w"]) -> None:
        """Raises ValueError for latents whose sides cannot be halved as often as this network halves them."""
        if x.shape[-2] % self.multiple or x.shape[-1] % self.multiple:
            raise ValueError(f"the sides of latents must be multiples of {self.multiple}; got {tuple(x.shape[-2:])}")

    def train(self, mode: bool = True) -> "LatentDenoiser":
        """Training mode; a frozen denoiser stays in evaluation mode."""
        return super().train(mode and self.trainable)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `Config` and `UNet2DConditionModel.from_pretrained` load; the absent prompt beside it."""
        folders.save_plainly(self.unet, folder)
        if (absent := self.absent) is not None:
            words = {"tokens": absent.tokens, "pooled": absent.pooled}
            save_file({name: value.float().contiguous().cpu() for name, value in words.items()}, Path(folder) / ABSENT)


class _Attend:
    """Attention as diffusers has it; on a CPU and a small grid by plain products, which train a sixth faster there."""

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0  # heavy

        small = hidden_states.device.type == "cpu" and hidden_states.shape[1] <= _SMALL_GRID
        return (AttnProcessor if small else AttnProcessor2_0)()(attn, hidden_states, *args, **kwargs)


class Config(config.Config):
    """A denoiser of latents from a diffusers folder."""

    path: str
    trainable: bool = True

    def build(self, channels: int, text_width: int | None = None) -> LatentDenoiser:
        """Load it; without `text_width` it is taken as it is.

        Raises:
            DenoiserError: not there, damaged, or for latents or prompts of another width.
        """
        from diffusers import UNet2DConditionModel  # heavy

        unet = load_strictly(UNet2DConditionModel, self.path, "a denoiser", DenoiserError)
        found = LatentDenoiser(unet, trainable=self.trainable)
        text_width = found.text_width if text_width is None else text_width
        if (found.channels, found.text_width) != (channels, text_width):
            raise DenoiserError(
                f"{self.path} takes latents of {found.channels} channels and prompts of width {found.text_width}; this "
                f"model has {channels} and {text_width}: take the autoencoder and the widths it was trained with"
            )
        absent = _read_absent(Path(self.path) / ABSENT, found.text_width)
        if absent is not None:
            found.read_absent_by(lambda: absent)
        return found

    def saved(self, path: str) -> "Config":
        """The config of this denoiser once it was trained and written to `path`."""
        return self.replace(path=path)


def _read_absent(path: Path, width: int) -> TextFeatures | None:
    if not path.is_file():
        return None
    try:
        words = load_file(path)
        tokens, pooled = words["tokens"], words["pooled"]
    except (SafetensorError, KeyError, OSError):
        tokens = pooled = torch.zeros(0)
    if tokens.shape[::2] != (1, width) or tokens.ndim != 3 or pooled.shape != (1, width):
        raise DenoiserError(f"{path} is damaged or another's; restore it, or train again")
    return TextFeatures(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), pooled)


class Scratch(config.Config):
    """A denoiser of latents with random weights (from torch's global generator), to be trained.

    Every level attends to itself and to the prompt, but for those of `plain_levels`, counted from the finest.
    """

    block_out_channels: tuple[int, ...] = (128, 192)
    layers_per_block: int = Field(default=1, ge=1)
    plain_levels: int = Field(default=0, ge=0)
    attention_head_dim: int = Field(default=64, ge=1)  # of one head, where num_heads does not say
    num_heads: int | None = Field(default=None, ge=1)  # at every level
    norm_num_groups: int = Field(default=16, ge=1)
    time_embedding_dim: int | None = Field(default=256, ge=4)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    trainable: bool = True

    @classmethod
    def tiny(cls) -> "Scratch":
        """Small enough for tests."""
        return cls(block_out_channels=(8, 16), attention_head_dim=8, norm_num_groups=4, time_embedding_dim=16)

    def build(self, channels: int, text_width: int) -> LatentDenoiser:
        """Make it for latents of `channels` and prompts of `text_width`.

        Raises:
            DenoiserError: widths, groups and heads that do not go together.
        """
        from diffusers import UNet2DConditionModel  # heavy

        reads = [level >= self.plain_levels for level in range(len(self.block_out_channels))]
        heads = tuple(self.num_heads or max(1, width // self.attention_head_dim) for width in self.block_out_channels)
        try:
            unet = UNet2DConditionModel(
                in_channels=channels,
                out_channels=channels,
                block_out_channels=self.block_out_channels,
                layers_per_block=self.layers_per_block,
                down_block_types=tuple("CrossAttnDownBlock2D" if read else "DownBlock2D" for read in reads),
                up_block_types=tuple("CrossAttnUpBlock2D" if read else "UpBlock2D" for read in reversed(reads)),
                cross_attention_dim=text_width,
                attention_head_dim=heads,  # diffusers' name for their number
                norm_num_groups=self.norm_num_groups,
                time_embedding_dim=self.time_embedding_dim,
                resnet_time_scale_shift="scale_shift",
                class_embed_type="projection",
                projection_class_embeddings_input_dim=text_width,
                use_linear_projection=True,
                dropout=self.dropout,
            )
        except (ValueError, ZeroDivisionError, IndexError) as error:
            raise DenoiserError(
                f"no U-Net with widths {self.block_out_channels} and {self.norm_num_groups} groups: {one_line(error)}"
            ) from None
        with torch.no_grad():  # begins by predicting nothing: as the published network, and the loss begins at its mean
            unet.conv_out.weight.zero_()
            unet.conv_out.bias.zero_()
        return LatentDenoiser(unet, trainable=self.trainable)

    def saved(self, path: str) -> Config:
        """The config of this denoiser once it was trained and written to `path`."""
        return Config(path=path, trainable=self.trainable)
