"""Kandinsky 2.2 with LoRA: a prior from a prompt to CLIP's embedding of an image, and a decoder from that to the image.

Source: the published code's train_kandinsky2_prior_lora.py and train_kandinsky2_decoder_lora.py (arXiv 2505.05573),
and diffusers' pipelines. Ours differs where the published one is wrong: the prior learns with the noise that it is used
with (squaredcos_cap_v2, the sample itself; published: the decoder's linear noise), its min-SNR weights are those of a
predicted sample, the decoder's adapter also has the layers that read the image's embedding (add_k_proj, add_v_proj),
and the clip norm works.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.synthesis import lora, tuned
from medtextdiff.synthesis.bases import Base, Dtype, objective_of
from medtextdiff.synthesis.encoded import EncodedBatch, Tensors
from medtextdiff.synthesis.models.kandinsky3 import FACTOR, MULTIPLE, scheduler_of

DECODER_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj")

PRIOR_COMPONENTS = {
    "prior": "diffusers.PriorTransformer",
    "scheduler": "diffusers.UnCLIPScheduler",
    "text_encoder": "transformers.CLIPTextModelWithProjection",
    "tokenizer": "transformers.AutoTokenizer",
    "image_encoder": "transformers.CLIPVisionModelWithProjection",
    "image_processor": "transformers.CLIPImageProcessor",
}
COMPONENTS = {
    "unet": "diffusers.UNet2DConditionModel",
    "movq": "diffusers.VQModel",
    "scheduler": "diffusers.DDPMScheduler",
}


class Config(config.Config):
    """base, prior_base: diffusers folders or hub ids, of the decoder and of the prior. dtype: of the frozen weights.

    trains: which of the two learns. The other one is the base's own (null), or has an adapter that was trained before:
    `model.prior.path=RUN/prior`. min_snr: gamma of the loss's weights.
    """

    base: str = "kandinsky-community/kandinsky-2-2-decoder"
    prior_base: str = "kandinsky-community/kandinsky-2-2-prior"
    dtype: Dtype = "bf16"
    trains: Literal["prior", "decoder"] = "decoder"
    prior: lora.Config | None = None
    decoder: lora.Config | None = lora.Config(targets=DECODER_TARGETS)
    min_snr: float | None = Field(default=None, gt=0)
    gradient_checkpointing: bool = True

    def build(self) -> "Kandinsky22":
        """The system, its networks not yet read.

        Raises:
            ConfigError: a base that is not there, or lacks a component; nothing to train.
        """
        return Kandinsky22(self)


class Kandinsky22(tuned.Tuned):
    """See `Config`. Children: `prior`, `decoder`."""

    def __init__(self, settings: Config) -> None:
        super().__init__(settings.gradient_checkpointing)
        if getattr(settings, settings.trains) is None:
            raise ConfigError(
                f"model.{settings.trains} is null, but it is what model.trains names; give it an adapter, as the "
                f"recipe synthesis.kandinsky22_{settings.trains}_lora does"
            )
        other = settings.decoder if settings.trains == "prior" else settings.prior
        if other is not None and not other.path:
            raise ConfigError("of the part that does not train an adapter must be a trained one: set its path, or null")
        self.trained = settings.trains
        self.reads_prompts = self.trained == "prior"
        self._prior_base = Base(settings.prior_base, PRIOR_COMPONENTS, settings.dtype)
        self._base = Base(settings.base, COMPONENTS, settings.dtype)
        self.objective = objective_of(*self._learns("scheduler"), settings.min_snr)
        self.num_timesteps = self._base.settings("scheduler").get("num_train_timesteps", 1000)
        self.prior = _place(settings.prior)
        self.decoder = _place(settings.decoder)

    @property
    def multiple(self) -> int:
        """What the pipeline rounds to."""
        return MULTIPLE

    @property
    def text(self) -> tuned.Reader:
        """CLIP's tokens."""
        limit = self._prior_base.settings("prior")["num_embeddings"]
        return tuned.Reader(lambda: self._prior_base.get("tokenizer"), limit)

    def bases(self) -> list[Base]:
        """The prior's and the decoder's."""
        return [self._prior_base, self._base]

    def networks(self) -> dict[str, tuple[Base, str]]:
        """The prior and the decoder's U-Net."""
        return {"prior": (self._prior_base, "prior"), "decoder": (self._base, "unet")}

    def encoders(self) -> list[tuple[Base, str]]:
        """CLIP's towers; and MoVQ, for the decoder."""
        found = [(self._prior_base, "image_encoder")]
        return [*found, (self._prior_base, "text_encoder") if self.trained == "prior" else (self._base, "movq")]

    def open(self, only: Any = None, trainable: bool = True) -> None:
        """See `Tuned.open`; a prior that does not say how embeddings are spread is refused, too."""
        super().open(only, trainable)
        if self.prior.network is not None and not (self.prior.network.clip_std > 0).all():
            raise ConfigError(f"the prior of {self._prior_base.path} has a clip_std of 0: it was never trained")

    def encode_images(self, images: Float[Tensor, "B 3 H W"], device: str) -> Tensors:
        """CLIP's embeddings; and MoVQ latents before they are quantised, for the decoder."""
        clip = self._prior_base.get("image_encoder", device)
        found = {"embedding": clip(self._seen_by_clip(images, clip).to(device, clip.dtype)).image_embeds}
        if self.trained == "decoder":
            movq = self._base.get("movq", device)
            found["latents"] = movq.encode(images.to(device, movq.dtype)).latents
        return found

    def read(self, prompts: list[str], device: str) -> Tensors:
        """CLIP's words, their mask, and the prompt pooled."""
        tokenizer, clip = self._prior_base.get("tokenizer"), self._prior_base.get("text_encoder", device)
        ids, mask = (value.to(device) for value in tuned.tokens(tokenizer, prompts, self.text.limit))
        with torch.no_grad():
            found = clip(ids)
        return {"words": found.last_hidden_state, "mask": mask, "pooled": found.text_embeds}

    def loss(self, batch: EncodedBatch, rng: torch.Generator) -> dict[str, Tensor]:
        """The prior's error of the embedding, or the decoder's of the noise, at one random timestep for each image."""
        clean = self._embeddings(batch) if self.trained == "prior" else batch.image["latents"]
        t, noise = self.objective.draw(clean, rng)
        noisy = self.objective.add_noise(clean, noise, t)
        found = self._told(noisy, t, batch) if self.trained == "prior" else self._shown(noisy, t, batch)
        return {"loss": self.objective.error(found.float(), self.objective.target(clean, noise, t), t).mean()}

    def example(self, batch: int, size: int) -> dict[str, Any]:
        """Inputs as large as those of a step."""
        base, name = self.networks()[self.trained]
        about, dtype = base.settings(name), base.dtype
        with torch.device("meta"):
            t = torch.empty(batch, dtype=torch.long)
            if self.trained == "decoder":
                side = size // FACTOR
                embedding = torch.empty(batch, about["encoder_hid_dim"], dtype=dtype)
                latents = torch.empty(batch, about["in_channels"], side, side, dtype=dtype)
                given = {"image_embeds": embedding}
                return {"sample": latents, "timestep": t, "encoder_hidden_states": None, "added_cond_kwargs": given}
            width, length = about["embedding_dim"], about["num_embeddings"]
            return {
                "hidden_states": torch.empty(batch, width, dtype=dtype),
                "timestep": t,
                "proj_embedding": torch.empty(batch, width, dtype=dtype),
                "encoder_hidden_states": torch.empty(batch, length, width, dtype=dtype),
                "attention_mask": torch.empty(batch, length, dtype=torch.bool),
            }

    def pictures(
        self, prompts: list[str], generators: list[torch.Generator], size: tuple[int, int], settings: tuned.Use
    ) -> Float[Tensor, "B 3 H W"]:
        """By diffusers' two pipelines, one after the other."""
        from diffusers import KandinskyV22Pipeline

        embeds = self._prior_pipeline()(
            prompt=prompts,
            num_inference_steps=settings.prior_steps,
            guidance_scale=settings.guidance,
            generator=generators,
        )
        pipe = KandinskyV22Pipeline(
            unet=self.decoder.network,
            movq=self._base.get("movq", self.device),
            scheduler=scheduler_of(self._base, settings.sampler),
        )
        pipe.set_progress_bar_config(disable=True)
        images = pipe(
            image_embeds=embeds.image_embeds,
            negative_image_embeds=embeds.negative_image_embeds,
            height=size[0],
            width=size[1],
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=generators,
            output_type="pt",
        ).images
        return (images + 1) / 2

    def _prior_pipeline(self) -> Any:
        from diffusers import KandinskyV22PriorPipeline

        # Prompts that it would cut off, and tell of in a log, were refused before.
        base, device = self._prior_base, self.device
        pipe = KandinskyV22PriorPipeline(
            prior=self.prior.network,
            image_encoder=base.get("image_encoder", device),
            text_encoder=base.get("text_encoder", device),
            tokenizer=base.get("tokenizer"),
            scheduler=base.read("scheduler"),
            image_processor=None,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _learns(self, name: str) -> tuple[Base, str]:
        return (self._prior_base if self.trained == "prior" else self._base), name

    def _embeddings(self, batch: EncodedBatch) -> Float[Tensor, "B D 1 1"]:
        """CLIP's embeddings of the real images as the prior gives them: centred and scaled."""
        prior = self.prior.network
        found = (batch.image["embedding"] - prior.clip_mean.float()) / prior.clip_std.float()
        return found[:, :, None, None]

    def _told(self, noisy: Tensor, t: Tensor, batch: EncodedBatch) -> Tensor:
        words = {"encoder_hidden_states": batch.prompt["words"], "attention_mask": batch.prompt["mask"]}
        given = noisy.flatten(1)
        found = self.prior(given, timestep=t, proj_embedding=batch.prompt["pooled"], **words)
        return found.predicted_image_embedding[:, :, None, None]

    def _shown(self, noisy: Tensor, t: Tensor, batch: EncodedBatch) -> Tensor:
        """The U-Net also gives a variance, which is not learned."""
        given = {"image_embeds": batch.image["embedding"]}
        return self.decoder(noisy, t, None, added_cond_kwargs=given).sample[:, : noisy.shape[1]]

    def _seen_by_clip(self, images: Tensor, clip: Any) -> Tensor:
        about = self._prior_base.settings("image_processor")
        side = clip.config.image_size
        small = F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
        mean, std = (torch.tensor(about[name])[:, None, None] for name in ("image_mean", "image_std"))
        return ((small + 1) / 2 - mean) / std


def _place(settings: lora.Config | None) -> lora.Adapted:
    return lora.Adapted(None) if settings is None else settings.build()
