"""A denoiser of latents as feature extractor: its autoencoder, its U-Net, and the absent prompt that it learned."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.diffusion import autoencoder as autoencoder_part
from medtextdiff.diffusion import latent_denoiser, walk
from medtextdiff.diffusion.autoencoder import Autoencoder
from medtextdiff.diffusion.denoiser import DenoiserError
from medtextdiff.diffusion.latent_denoiser import LatentDenoiser
from medtextdiff.types import Levels


class LatentBackbone(nn.Module):
    """Images to levels of a U-Net that denoises latents and is told that there is no prompt.

    Decoder blocks are numbered as in `Denoiser`, -1 is the middle block; strides are in image pixels. Not trainable
    means: no parameter requires a gradient, and no graph is kept.
    """

    def __init__(self, autoencoder: Autoencoder, denoiser: LatentDenoiser, trainable: bool = False) -> None:
        """Put them together.

        Raises:
            DenoiserError: a denoiser of other latents, one that has not been told what an absent prompt is, or one
                whose blocks we cannot walk.
        """
        super().__init__()
        if denoiser.channels != autoencoder.latent_channels:
            raise DenoiserError(
                f"the denoiser takes latents of {denoiser.channels} channels, the autoencoder gives "
                f"{autoencoder.latent_channels}; take both from one run"
            )
        absent = denoiser.absent
        if absent is None:
            raise DenoiserError("the denoiser does not say how it reads an absent prompt; take it from an MSDM run")
        try:
            self._middle, self._blocks = walk.describe(denoiser.unet, reads_words=True)
        except walk.WalkError as error:
            raise DenoiserError(str(error)) from None
        self.autoencoder, self.denoiser, self.trainable = autoencoder, denoiser, trainable
        self.words, self.pooled = nn.Buffer(absent.tokens), nn.Buffer(absent.pooled)  # (1, L, D), (1, D)
        autoencoder.requires_grad_(False)
        denoiser.requires_grad_(trainable)
        self.train(trainable)

    @property
    def num_blocks(self) -> int:
        """Number of decoder blocks."""
        return len(self._blocks)

    @property
    def multiple(self) -> int:
        """Each side of an image must be a multiple of this."""
        return self.autoencoder.downsampling * self.denoiser.multiple

    @property
    def architecture(self) -> dict[str, Any]:
        """What decides, beside the weights, what this computes; not where it was read from."""
        parts = {"autoencoder": self.autoencoder.vae, "denoiser": self.denoiser.unet}
        return {
            name: {key: value for key, value in part.config.items() if key != "_name_or_path"}
            for name, part in parts.items()
        }

    def channels(self, taps: Sequence[int]) -> tuple[int, ...]:
        """Channels of the levels at these taps."""
        return tuple(block.channels for block in self._at(taps))

    def strides(self, taps: Sequence[int]) -> tuple[int, ...]:
        """Image pixels along a side for one position of the levels at these taps."""
        return tuple(block.stride * self.autoencoder.downsampling for block in self._at(taps))

    def enter(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """What noise is added to: the means of the images' latents."""
        with torch.no_grad():
            return self.autoencoder.encode(images).mean

    def levels(self, x: Float[Tensor, "B C h w"], t: Int[Tensor, " B"], taps: Sequence[int]) -> Levels:
        """The levels of noisy latents at `taps`, in their order; the blocks after the last tap never run.

        Raises:
            ValueError: sides that cannot be halved so often, unknown taps, or none.
        """
        if not taps:
            raise ValueError(f"give at least one tap, from -1 (middle) to {self.num_blocks - 1}")
        self._at(taps)
        self.denoiser.check_sides(x)
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            return self._walk(x, t, taps)

    def train(self, mode: bool = True) -> "LatentBackbone":
        """Training mode, but for a frozen one, which stays in evaluation mode; so does the autoencoder."""
        super().train(mode and self.trainable)
        self.autoencoder.eval()
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write both parts into folders of their own, as an MSDM run has them; `Config` loads them."""
        self.autoencoder.save_pretrained(Path(folder) / "autoencoder")
        self.denoiser.save_pretrained(Path(folder) / "denoiser")

    def _walk(self, x: Tensor, t: Tensor, taps: Sequence[int]) -> Levels:
        unet = self.denoiser.unet
        words = self.words.to(x.dtype).expand(x.shape[0], -1, -1)  # all of them real: no mask
        embedding = walk.embed(unet, x, t) + unet.class_embedding(self.pooled.to(unet.dtype)).to(unet.dtype)
        x, skips = walk.encode(unet, x, embedding, words)
        tapped = {-1: x} if -1 in taps else {}
        blocks = walk.decode(unet, x, skips, embedding, words)
        del skips  # each is freed once its block has used it
        for k in range(max(taps) + 1):
            x = next(blocks)
            if k in taps:
                tapped[k] = x
        return [tapped[tap] for tap in taps]

    def _at(self, taps: Sequence[int]) -> list[walk.Block]:
        return walk.at(self._middle, self._blocks, taps)


class Config(config.Config):
    """The autoencoder and the denoiser of a finished MSDM run, named by the run's folder."""

    path: str = ""
    trainable: bool = False

    def build(self) -> LatentBackbone:
        """Load them.

        Raises:
            AutoencoderError, DenoiserError: one of the folders `autoencoder` and `denoiser` is not there or damaged,
                or the denoiser was saved without its absent prompt.
        """
        if not self.path:
            raise DenoiserError("no denoiser of latents: name an MSDM run's folder, --set model.denoiser.path=RUN")
        folder = Path(self.path)
        autoencoder = autoencoder_part.Config(path=str(folder / "autoencoder")).build()
        denoiser = latent_denoiser.Config(path=str(folder / "denoiser"), trainable=self.trainable)
        return LatentBackbone(autoencoder, denoiser.build(autoencoder.latent_channels), self.trainable)

    def saved(self, path: str) -> "Config":
        """The config of this backbone once it was trained and written to `path`."""
        return self.replace(path=path)
