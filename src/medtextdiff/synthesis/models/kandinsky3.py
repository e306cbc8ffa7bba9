"""Kandinsky 3 with LoRA: a U-Net of MoVQ latents that reads T5's words.

Source: the published code's train_kandinsky3_lora.py (arXiv 2505.05573) and diffusers' Kandinsky3Pipeline. Ours gives
T5 its mask in training as in use (published: in use alone), reads 128 tokens in both (there 64 in use, which the
pipeline does not heed), and its clip norm works.
"""

from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from medtextdiff import config
from medtextdiff.diffusion.folders import quiet
from medtextdiff.synthesis import lora, tuned
from medtextdiff.synthesis.bases import Base, Dtype, objective_of
from medtextdiff.synthesis.encoded import EncodedBatch, Tensors

LONGEST = 128  # tokens; the pipeline's own
FACTOR = 8  # pixels a latent; the pipeline counts on it
MULTIPLE = 64  # the pipeline rounds sides up to it

COMPONENTS = {
    "unet": "diffusers.Kandinsky3UNet",
    "movq": "diffusers.VQModel",
    "scheduler": "diffusers.DDPMScheduler",
    "text_encoder": "transformers.T5EncoderModel",
    "tokenizer": "transformers.AutoTokenizer",
}


class Config(config.Config):
    """base: a diffusers folder or hub id. dtype: of the frozen weights. min_snr: gamma of the loss's weights."""

    base: str = "kandinsky-community/kandinsky-3"
    dtype: Dtype = "bf16"
    unet: lora.Config = lora.Config()
    min_snr: float | None = Field(default=None, gt=0)
    gradient_checkpointing: bool = True

    def build(self) -> "Kandinsky3":
        """The system, its U-Net not yet read.

        Raises:
            ConfigError: a base that is not there, or lacks a component.
        """
        return Kandinsky3(self)


class Kandinsky3(tuned.Tuned):
    """See `Config`. Child: `unet`."""

    trained = "unet"

    def __init__(self, settings: Config) -> None:
        super().__init__(settings.gradient_checkpointing)
        self._base = Base(settings.base, COMPONENTS, settings.dtype)
        self._about = self._base.settings("unet")
        self.objective = objective_of(self._base, "scheduler", settings.min_snr)
        self.num_timesteps = self.objective.config.num_timesteps
        self.unet = settings.unet.build()

    @property
    def multiple(self) -> int:
        """What the pipeline rounds to."""
        return MULTIPLE

    @property
    def text(self) -> tuned.Reader:
        """T5's tokens."""
        return tuned.Reader(lambda: self._base.get("tokenizer"), LONGEST)

    def bases(self) -> list[Base]:
        """The one base."""
        return [self._base]

    def networks(self) -> dict[str, tuple[Base, str]]:
        """The U-Net."""
        return {"unet": (self._base, "unet")}

    def encoders(self) -> list[tuple[Base, str]]:
        """MoVQ and T5."""
        return [(self._base, name) for name in ("movq", "text_encoder")]

    def encode_images(self, images: Float[Tensor, "B 3 H W"], device: str) -> Tensors:
        """MoVQ latents before they are quantised."""
        movq = self._base.get("movq", device)
        return {"latents": movq.encode(images.to(device, movq.dtype)).latents}

    def read(self, prompts: list[str], device: str) -> Tensors:
        """T5's words, zero where there is none, and their mask; T5 itself gets the mask, too."""
        ids, mask = (value.to(device) for value in tuned.tokens(self._base.get("tokenizer"), prompts, LONGEST))
        with torch.no_grad():
            words = self._base.get("text_encoder", device)(ids, attention_mask=mask.long())[0]
        return {"words": words * mask[..., None], "mask": mask}

    def loss(self, batch: EncodedBatch, rng: torch.Generator) -> dict[str, Tensor]:
        """The error of the noise (or v) at one random timestep for each latent."""
        latents = batch.image["latents"]
        t, noise = self.objective.draw(latents, rng)
        words, mask = _cut(batch.prompt["words"], batch.prompt["mask"])
        noisy = self.objective.add_noise(latents, noise, t)
        given = {"encoder_hidden_states": words, "encoder_attention_mask": mask}
        found = self.unet(noisy, t, **given, return_dict=False)[0].float()
        return {"loss": self.objective.error(found, self.objective.target(latents, noise, t), t).mean()}

    def example(self, batch: int, size: int) -> dict[str, Any]:
        """Inputs as large as those of a step with the longest prompts."""
        side = size // FACTOR
        with torch.device("meta"):
            return {
                "sample": torch.empty(batch, self._about["in_channels"], side, side, dtype=self._base.dtype),
                "timestep": torch.empty(batch, dtype=torch.long),
                "encoder_hidden_states": torch.empty(
                    batch, LONGEST, self._about["encoder_hid_dim"], dtype=self._base.dtype
                ),
                "encoder_attention_mask": torch.empty(batch, LONGEST, dtype=torch.bool),
            }

    def pictures(
        self, prompts: list[str], generators: list[torch.Generator], size: tuple[int, int], settings: tuned.Use
    ) -> Float[Tensor, "B 3 H W"]:
        """By diffusers' pipeline, prompts of one length together.

        Its U-Net averages over the words that it is given, padding too, so that a longer neighbour would change an
        image.
        """
        read = self.read(prompts, str(self.device))
        found: dict[int, Tensor] = {}
        lengths = read["mask"].sum(dim=1).tolist()
        for length in sorted(set(lengths)):
            rows = [row for row, own in enumerate(lengths) if own == length]
            words, mask = _cut(read["words"][rows], read["mask"][rows])
            images = self._made(words, mask, [generators[row] for row in rows], size, settings)
            found |= dict(zip(rows, images, strict=True))
        return torch.stack([found[row] for row in range(len(prompts))])

    def _made(
        self,
        words: Tensor,
        mask: Tensor,
        generators: list[torch.Generator],
        size: tuple[int, int],
        settings: tuned.Use,
    ) -> Tensor:
        from diffusers import Kandinsky3Pipeline

        class Pipeline(Kandinsky3Pipeline):
            """Guides wherever its scale (ours - 1) is above 0; diffusers' own only above 1."""

            @property
            def do_classifier_free_guidance(self) -> bool:
                return self._guidance_scale > 0

        pipe = Pipeline(
            tokenizer=None,
            text_encoder=None,
            unet=self.unet.network,
            scheduler=scheduler_of(self._base, settings.sampler),
            movq=self._base.get("movq", self.device),
        )
        pipe.set_progress_bar_config(disable=True)
        images = pipe(
            prompt_embeds=words.to(self._base.dtype),
            attention_mask=mask,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance - 1,
            height=size[0],
            width=size[1],
            generator=generators,
            output_type="pt",
        ).images
        return (images + 1) / 2


def scheduler_of(base: Base, sampler: str) -> Any:
    """The base's scheduler, in the form that `sampler` ("ddpm" or "ddim") names."""
    import diffusers

    cls = {"ddpm": diffusers.DDPMScheduler, "ddim": diffusers.DDIMScheduler}[sampler]
    settings = dict(base.get("scheduler").config)
    if sampler == "ddim":  # it learns no variance; by this word pipelines know whether the network's is still to be cut
        settings.pop("variance_type", None)
    with quiet():
        return cls.from_config(settings)


def _cut(words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Without the padding beyond the longest prompt's and one more, as the pipeline cuts it."""
    length = int(mask.sum(dim=1).max()) + 1
    return words[:, :length], mask[:, :length]
