"""FLUX.1 with LoRA: a transformer on packed latents and words that learns straight paths.

Source: diffusers' FluxPipeline, and the defaults of its LoRA training; the published code (arXiv 2505.05573) has no
trainer for it.
"""

from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from medtextdiff import config
from medtextdiff.diffusion.autoencoder import Moments
from medtextdiff.synthesis import lora, tuned
from medtextdiff.synthesis.bases import Base, Dtype
from medtextdiff.synthesis.encoded import EncodedBatch, Tensors

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
TARGETS = tuple(f"attn.{name}" for name in _ATTENTION) + _FORWARD

COMPONENTS = {
    "transformer": "diffusers.FluxTransformer2DModel",
    "vae": "diffusers.AutoencoderKL",
    "scheduler": "diffusers.FlowMatchEulerDiscreteScheduler",
    "text_encoder": "transformers.CLIPTextModel",
    "text_encoder_2": "transformers.T5EncoderModel",
    "tokenizer": "transformers.AutoTokenizer",
    "tokenizer_2": "transformers.AutoTokenizer",
}


class Config(config.Config):
    """base: a diffusers folder or hub id. dtype: of the frozen weights; the adapter is float32 always.

    guidance: what a base with embedded guidance is told in training (diffusers' default). max_tokens: T5's words; CLIP
    reads the first 77.
    """

    base: str = "black-forest-labs/FLUX.1-dev"
    dtype: Dtype = "bf16"
    transformer: lora.Config = lora.Config(rank=4, alpha=4.0, targets=TARGETS)
    guidance: float = Field(default=3.5, ge=0)
    max_tokens: int = Field(default=512, ge=1, le=512)
    gradient_checkpointing: bool = True

    def build(self) -> "Flux":
        """The system, its transformer not yet read.

        Raises:
            ConfigError: a base that is not there, or lacks a component.
        """
        return Flux(self)


class Flux(tuned.Tuned):
    """See `Config`. Child: `transformer`."""

    trained = "transformer"
    samplers = ("euler",)
    guidances = (0.0, 30.0)  # told to the network, not computed

    def __init__(self, settings: Config) -> None:
        super().__init__(settings.gradient_checkpointing)
        self._settings = settings
        self._base = Base(settings.base, COMPONENTS, settings.dtype)
        self._about = self._base.settings("transformer")
        self._sigmas: Tensor = self._base.get("scheduler").sigmas
        self._times: Tensor = self._base.get("scheduler").timesteps
        self.num_timesteps = len(self._times)
        self.transformer = settings.transformer.build("transformer.")

    @property
    def multiple(self) -> int:
        """Sides must be multiples of twice the autoencoder's factor: latents are packed in pairs."""
        return 2 * self._factor

    @property
    def _factor(self) -> int:
        return 2 ** (len(self._base.settings("vae")["block_out_channels"]) - 1)

    @property
    def text(self) -> tuned.Reader:
        """T5's tokens."""
        return tuned.Reader(lambda: self._base.get("tokenizer_2"), self._settings.max_tokens)

    def bases(self) -> list[Base]:
        """The one base."""
        return [self._base]

    def networks(self) -> dict[str, tuple[Base, str]]:
        """The transformer."""
        return {"transformer": (self._base, "transformer")}

    def encoders(self) -> list[tuple[Base, str]]:
        """The autoencoder and both text encoders."""
        return [(self._base, name) for name in ("vae", "text_encoder", "text_encoder_2")]

    def encode_images(self, images: Float[Tensor, "B 3 H W"], device: str) -> Tensors:
        """Latents as distributions, shifted and scaled as the transformer sees them."""
        vae = self._base.get("vae", device)
        found = vae.encode(images.to(device, vae.dtype)).latent_dist
        scale, shift = vae.config.scaling_factor, vae.config.shift_factor or 0.0
        return {"mean": (found.mean.float() - shift) * scale, "std": found.std.float() * scale}

    def read(self, prompts: list[str], device: str) -> Tensors:
        """T5's words, padding among them as FLUX was trained, and CLIP's pooled prompt."""
        with torch.no_grad():
            ids, _ = tuned.tokens(self._base.get("tokenizer_2"), prompts, self._settings.max_tokens)
            words = self._base.get("text_encoder_2", device)(ids.to(device))[0]
            clip, tokenizer = self._base.get("text_encoder", device), self._base.get("tokenizer")
            ids, _ = tuned.tokens(tokenizer, prompts, clip.config.max_position_embeddings)
            pooled = clip(ids.to(device)).pooler_output
        return {"words": words, "pooled": pooled}

    def loss(self, batch: EncodedBatch, rng: torch.Generator) -> dict[str, Tensor]:
        """The squared error of noise - latents, at levels drawn evenly from the base's own."""
        latents = Moments(batch.image["mean"], batch.image["std"]).draw(rng)
        where = [int(torch.randint(self.num_timesteps, (), generator=rng)) for _ in batch.ids]
        noise = torch.stack([torch.randn(latents.shape[1:], generator=rng) for _ in batch.ids]).to(latents)
        sigma = self._sigmas[where].to(latents)[:, None, None, None]
        noisy = (1 - sigma) * latents + sigma * noise
        inputs = self._inputs(noisy, batch.prompt["words"], batch.prompt["pooled"])
        told = self._times[where].to(latents) / 1000
        found = self.transformer(**inputs, timestep=told, return_dict=False)[0].float()
        return {"loss": (found - _packed(noise - latents)).square().mean()}

    def example(self, batch: int, size: int) -> dict[str, Any]:
        """Inputs as large as those of a step."""
        side, dtype = size // self._factor, self._base.dtype
        with torch.device("meta"):
            latents = torch.empty(batch, self._about["in_channels"] // 4, side, side)
            words = torch.empty(batch, self._settings.max_tokens, self._about["joint_attention_dim"])
            pooled = torch.empty(batch, self._about["pooled_projection_dim"])
            inputs = self._inputs(latents, words, pooled) | {"timestep": torch.empty(batch)}
        return {name: value if value is None else value.to(dtype) for name, value in inputs.items()}

    def pictures(
        self, prompts: list[str], generators: list[torch.Generator], size: tuple[int, int], settings: tuned.Use
    ) -> Float[Tensor, "B 3 H W"]:
        """By diffusers' pipeline, from words that were read as in training."""
        from diffusers import FluxPipeline

        base, device = self._base, self.device
        read = self.read(prompts, str(device))
        pipe = FluxPipeline(
            transformer=self.transformer.network,
            vae=base.get("vae", device),
            scheduler=base.read("scheduler"),
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe(
            prompt_embeds=read["words"].to(base.dtype),
            pooled_prompt_embeds=read["pooled"].to(base.dtype),
            height=size[0],
            width=size[1],
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=generators,
            output_type="pt",
        ).images

    def _inputs(self, latents: Tensor, words: Tensor, pooled: Tensor) -> dict[str, Any]:
        """What the transformer reads beside the time: packed latents, words, and where each of them is."""
        rows, columns = latents.shape[-2] // 2, latents.shape[-1] // 2
        places = torch.zeros(rows, columns, 3, device=latents.device)
        places[..., 1] = torch.arange(rows, device=latents.device)[:, None]
        places[..., 2] = torch.arange(columns, device=latents.device)[None]
        guided = self._about.get("guidance_embeds", False)
        told = torch.full((len(latents),), self._settings.guidance, device=latents.device) if guided else None
        return {
            "hidden_states": _packed(latents),
            "encoder_hidden_states": words,
            "pooled_projections": pooled,
            "img_ids": places.flatten(0, 1),
            "txt_ids": torch.zeros(words.shape[1], 3, device=latents.device),
            "guidance": told,
        }


def _packed(latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B n D"]:
    """Two by two latents as one token: [B, h/2 * w/2, 4 C]."""
    pairs = latents.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))  # (B, C, h/2, 2, w/2, 2)
    return pairs.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
