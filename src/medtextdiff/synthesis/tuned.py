"""What the LoRA-tuned systems share: a frozen base read when it is needed, an adapter, and MSDM's interface."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.diffusion.folders import quiet
from medtextdiff.synthesis import checkpointing, lora, memory
from medtextdiff.synthesis.bases import Base, silent
from medtextdiff.synthesis.encoded import EncodedBatch, Tensors


class Use(config.Config):
    """How images are made. sampler: "euler" is FLUX's, "ddpm" and "ddim" are Kandinsky's. guidance: the usual scale.

    The published code counts Kandinsky 3's from 0 (ours is 1 more). prior_steps are for Kandinsky 2.2 alone.
    """

    sampler: Literal["euler", "ddpm", "ddim"] = "ddpm"
    steps: int = Field(default=50, ge=1)
    guidance: float = Field(default=4.0, ge=0, le=30)
    prior_steps: int = Field(default=25, ge=1)


class Reader:
    """How long prompts are for a tokenizer, and how many of their tokens are read."""

    def __init__(self, tokenizer: Callable[[], Any], limit: int) -> None:
        self._tokenizer, self.limit = tokenizer, limit

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Each prompt's number of tokens, before anything is cut off."""
        with silent():
            return [len(ids) for ids in self._tokenizer()(list(prompts)).input_ids]


class Tuned(nn.Module):
    """A system of which one network has an adapter that is trained. Subclasses say how it learns and makes images.

    Children: `Adapted` networks alone, empty until `open`. Encoders lie in `Base`s, beside the module, so that they
    can leave memory.
    """

    trained: str  # the child whose adapter is trained
    samplers: tuple[str, ...] = ("ddpm", "ddim")
    guidances = (1.0, 30.0)  # 1: the prompt as it was learned
    num_timesteps = 1000
    reads_prompts = True  # in training

    def __init__(self, gradient_checkpointing: bool) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing

    @property
    def multiple(self) -> int:
        """Each side of an image must be a multiple of this."""
        raise NotImplementedError

    @property
    def text(self) -> Reader:
        """How long prompts may be."""
        raise NotImplementedError

    def bases(self) -> list[Base]:
        """The folders that it stands on."""
        raise NotImplementedError

    def networks(self) -> dict[str, tuple[Base, str]]:
        """Each child's base and the name of its network there."""
        raise NotImplementedError

    def encoders(self) -> list[tuple[Base, str]]:
        """What images and prompts are encoded by before training."""
        raise NotImplementedError

    def encode_images(self, images: Float[Tensor, "B 3 H W"], device: str) -> Tensors:
        """What training needs of images in [-1, 1]."""
        raise NotImplementedError

    def read(self, prompts: list[str], device: str) -> Tensors:
        """What training and sampling need of prompts."""
        raise NotImplementedError

    def loss(self, batch: EncodedBatch, rng: torch.Generator) -> dict[str, Tensor]:
        """The training loss; whatever is random is drawn from `rng`, image by image."""
        raise NotImplementedError

    def example(self, batch: int, size: int) -> dict[str, Any]:
        """Inputs of the trained network on the device "meta", for counting memory."""
        raise NotImplementedError

    def pictures(
        self, prompts: list[str], generators: list[torch.Generator], size: tuple[int, int], settings: Use
    ) -> Float[Tensor, "B 3 H W"]:
        """Images in [0, 1], or a little beyond."""
        raise NotImplementedError

    def open(self, only: Iterable[str] | None = None, trainable: bool = True) -> None:
        """Read the base networks, of all children or of those in `only`, and attach their adapters.

        Raises:
            ConfigError: a damaged base, or an adapter of another base; RunError: an adapter's file is damaged.
        """
        for child, (base, name) in self.networks().items():
            if only is not None and child not in only:
                continue
            place: lora.Adapted = getattr(self, child)
            mine = trainable and child == self.trained
            place.open(base.read(name), f"the {name} of {base.path}", mine)
            if mine and self.gradient_checkpointing:
                checkpointing.enable(place.network)

    def need(self, batch: int, size: int, ema: bool) -> memory.Need:
        """The memory that training will need, in parts of `batch` images; nothing large is read for it."""
        base, name = self.networks()[self.trained]
        network = base.outline(name)
        settings = getattr(self, self.trained).settings
        with torch.device("meta"):
            lora.attach(network, settings.replace(path=""))
        return memory.estimate(
            network,
            self.example(batch, size),
            keep_less=self.gradient_checkpointing,
            ema=ema,
            encoders=sum(base.num_bytes(name) for base, name in self.encoders()),
        )

    def forget_encoders(self) -> None:
        """Free the memory of everything but the networks."""
        for base in self.bases():
            base.forget()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def merge(self) -> dict[str, nn.Module]:
        """The networks with their adapters added to the weights, by component of the base; the system keeps working."""
        found = {}
        for child, (_, name) in self.networks().items():
            place: lora.Adapted = getattr(self, child)
            if place.settings is not None:
                found[name] = place.network = lora.merge(place.network)
        return found

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int], settings: Use
    ) -> Float[Tensor, "B 3 H W"]:
        """One image in [0, 1] for each prompt and its seed; `size` is rows and columns.

        What is drawn for an image depends on its seed alone, not on the images beside it.

        Raises:
            ValueError: a size that does not fit, or numbers of prompts and seeds that differ.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds: give one seed for each prompt")
        if size[0] % self.multiple or size[1] % self.multiple:
            raise ValueError(f"image sides must be multiples of {self.multiple}; got {size[0]} x {size[1]}")
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        with quiet(), silent():
            return self.pictures(list(prompts), generators, size, settings).float().clamp(0, 1)

    @property
    def device(self) -> torch.device:
        """Where its networks are."""
        return getattr(self, self.trained).device


def loss(model: Any, batch: EncodedBatch, rng: torch.Generator) -> dict[str, Tensor]:
    """`Tuned.loss`, in the form that the training loop calls."""
    return model.loss(batch, rng)


def tokens(tokenizer: Any, prompts: list[str], limit: int) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, limit] of prompts, padded, cut off at `limit`; no library tells what was cut off."""
    with silent():
        found = tokenizer(prompts, padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
    return found.input_ids, found.attention_mask.bool()
