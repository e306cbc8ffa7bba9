"""MSDM: a latent diffusion model whose denoiser reads a clinical prompt.

Source: arXiv 2505.05573 and its authors' code. Ours departs in that latents are normalised, padding is masked in the
pooling too, the absent prompt is learned, the denoiser also attends to itself, and images are not stretched in the end.
"""

from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from pydantic import Field, SerializeAsAny
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.diffusion import autoencoder as autoencoder_part
from medtextdiff.diffusion import latent_denoiser, sampling
from medtextdiff.diffusion import objective as objective_part
from medtextdiff.synthesis import conditioning as conditioning_part
from medtextdiff.synthesis.latents import LatentBatch
from medtextdiff.text.encoders import huggingface
from medtextdiff.types import TextFeatures

Loss = Callable[[Any, LatentBatch, torch.Generator], dict[str, Tensor]]


class Config(config.Config):
    """An autoencoder (frozen), a text encoder, what lies between it and the denoiser, and the denoiser of latents.

    objective: what the denoiser is trained for, which sampling must know. prompt_dropout: how often a training prompt
    is left out, so that there is something to guide away from.
    """

    autoencoder: SerializeAsAny[config.Config] = autoencoder_part.Config()
    text: SerializeAsAny[config.Config] = huggingface.Config(path="builtin:modernbert-small/text")
    conditioning: conditioning_part.Config = conditioning_part.Config()
    denoiser: SerializeAsAny[config.Config] = latent_denoiser.Scratch()
    objective: objective_part.Config = objective_part.Config()
    prompt_dropout: float = Field(default=0.1, ge=0, lt=1)

    def build(self) -> "MSDM":
        """The model, its denoiser new or loaded."""
        return MSDM(self)


class MSDM(nn.Module):
    """See `Config`. Children: `autoencoder`, `text`, `conditioning`, `denoiser`."""

    samplers: tuple[str, ...] = get_args(sampling.Sampler)
    guidances = (0.0, 30.0)

    def __init__(self, settings: Config) -> None:
        super().__init__()
        self.autoencoder = settings.autoencoder.build()  # type: ignore[attr-defined]
        if any(weight.requires_grad for weight in self.autoencoder.parameters()):
            raise ConfigError("the autoencoder of a latent model is frozen; leave model.autoencoder.trainable false")
        self.text = settings.text.build()  # type: ignore[attr-defined]
        self.conditioning = settings.conditioning.build(self.text.width)
        self.denoiser = settings.denoiser.build(  # type: ignore[attr-defined]
            self.autoencoder.latent_channels, settings.conditioning.width
        )
        self.denoiser.read_absent_by(lambda: self.read([""]))  # saved beside it
        self.objective = settings.objective.build()
        self.prompt_dropout = settings.prompt_dropout

    def train(self, mode: bool = True) -> "MSDM":
        """Training mode for what is trained; a frozen part stays as it is used."""
        super().train(mode)
        for child in (self.autoencoder, self.text):
            if not any(weight.requires_grad for weight in child.parameters()):
                child.eval()
        return self

    @property
    def num_timesteps(self) -> int:
        """The most steps that sampling can take."""
        return self.objective.config.num_timesteps

    @property
    def multiple(self) -> int:
        """Each side of an image must be a multiple of this."""
        return self.autoencoder.downsampling * self.denoiser.multiple

    def read(self, prompts: Sequence[str], mirrored: Int[Tensor, " B"] | None = None) -> TextFeatures:
        """What the denoiser reads of prompts; "" is the absent one. Each distinct prompt is encoded once."""
        distinct = list(dict.fromkeys(prompts))
        text = self.text(distinct)
        rows = torch.tensor([distinct.index(prompt) for prompt in prompts], device=text.tokens.device)
        text = TextFeatures(tokens=text.tokens[rows], mask=text.mask[rows], pooled=text.pooled[rows])
        return self.conditioning(text, mirrored)

    def loss(self, batch: LatentBatch, rng: torch.Generator) -> dict[str, Tensor]:
        """The training loss at one random timestep for each latent, drawn anew from its moments."""
        latents = batch.moments().draw(rng)
        t, noise = self.objective.draw(latents, rng)
        kept = torch.rand(len(latents), generator=rng) >= self.prompt_dropout
        prompts = [note if keep else "" for note, keep in zip(batch.notes, kept.tolist(), strict=True)]
        text = self.read(prompts, batch.mirrored)
        prediction = self.denoiser(self.objective.add_noise(latents, noise, t), t, text)[0].float()
        error = self.objective.error(prediction, self.objective.target(latents, noise, t), t)
        return {"loss": error.mean()}

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int], settings: sampling.Config
    ) -> Float[Tensor, "B 3 H W"]:
        """One image in [0, 1] for each prompt and its seed; `size` is rows and columns.

        What is drawn for an image depends on its seed alone, not on the images beside it.

        Raises:
            ValueError: a size that does not fit, or more steps than there are timesteps.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds: give one seed for each prompt")
        if size[0] % self.multiple or size[1] % self.multiple:
            raise ValueError(f"image sides must be multiples of {self.multiple}; got {size[0]} x {size[1]}")
        device = next(self.denoiser.parameters()).device
        f = self.autoencoder.downsampling
        noise = sampling.Noise(seeds, (self.autoencoder.latent_channels, size[0] // f, size[1] // f), device)
        latents = sampling.solve(self._guided(prompts, settings), self.objective, settings, noise)
        images = self.autoencoder.decode(latents).float()
        return ((images + 1) / 2).clamp(0, 1)

    def _guided(self, prompts: Sequence[str], settings: sampling.Config) -> sampling.Predict:
        num = len(prompts)
        scale = settings.guidance
        if scale in (0.0, 1.0):  # one half of the work says all
            text = self.read([""] * num if scale == 0 else prompts)
            return lambda x, t: self.denoiser(x, t, text)[0].float()
        both = self.read([*prompts, *[""] * num])

        def predict(x: Tensor, t: Tensor) -> Tensor:
            found = self.denoiser(torch.cat([x, x]), torch.cat([t, t]), both)[0].float()
            return sampling.guide(found[:num], found[num:], scale, settings.rescale)

        return predict


def loss(model: Any, batch: LatentBatch, rng: torch.Generator) -> dict[str, Tensor]:
    """`MSDM.loss`, in the form that the training loop calls."""
    return model.loss(batch, rng)
