"""FastTextDiff: levels of a diffusion denoiser, a note's words, and a small head that brings them together.

Sources: arXiv 2512.00084 (FastTextDiff), arXiv 2407.05323 (TextDiff, which is the same with a BERT). The published
network is this one with `heads.published`; see `segmentation.published`. Ours departs in the head, in batches and
sizes, and in that notes are masked, may be absent, and know where a crop lies.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.segmentation import features, padding
from medtextdiff.segmentation.feature_bank import FeatureBank
from medtextdiff.segmentation.heads import pyramid
from medtextdiff.types import Levels, TextFeatures


class Config(config.Config):
    """A denoiser, a text encoder (None: notes are ignored), which levels are read, and the head."""

    denoiser: config.Config
    text: config.Config | None = None
    features: features.Config
    head: config.Config = pyramid.Config()
    num_classes: int = Field(default=2, ge=2)

    def build(self) -> "FastTextDiff":
        """The segmenter, its head new.

        Raises:
            ConfigError: a head that reads the image's own pixels, which `features` leaves out.
        """
        if getattr(self.head, "detail", 0) and not self.features.image:
            raise ConfigError("model.head.detail reads the image's own pixels: set model.features.image=true, too")
        return FastTextDiff(self)


class FastTextDiff(nn.Module):
    """See `Config`. Children: `denoiser`, `text` (None without), `head`; the learned absent note lives in the head."""

    _bank: FeatureBank | None = None
    _bank_in_training = True

    def __init__(self, settings: Config) -> None:
        super().__init__()
        self.num_classes = settings.num_classes
        self.denoiser = settings.denoiser.build()  # type: ignore[attr-defined]
        self.text = None if settings.text is None else settings.text.build()  # type: ignore[attr-defined]
        self.features = settings.features.build()
        channels, self.strides = self.features.channels(self.denoiser), self.features.strides(self.denoiser)
        text_width = None if self.text is None else self.text.width
        self.head = settings.head.build(channels, self.strides, text_width, settings.num_classes)  # type: ignore[attr-defined]
        self._ask = _ask

    def keep_levels(self, bank: FeatureBank | None, training: bool = True) -> None:
        """From now on `encode` takes levels from this bank, or (None) from the denoiser again.

        `training` False: in eval mode only, where the views of training are endless and none comes again.

        Raises:
            ConfigError: a denoiser that is trained: its levels change with every step.
        """
        if bank is not None and not is_frozen(self.denoiser):
            raise ConfigError(
                "a denoiser that is trained has no levels to keep; freeze it (model.denoiser.trainable=false), or "
                "leave out the feature bank"
            )
        self._bank, self._bank_in_training = bank, training

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As `nn.Module.compile`; what reads files stays outside the compiled graphs."""
        super().compile(*args, **kwargs)
        self._ask = torch.compiler.disable(_ask)

    def train(self, mode: bool = True) -> "FastTextDiff":
        """Training mode for what is trained; a frozen denoiser or text encoder stays as it is used."""
        super().train(mode)
        for child in (self.denoiser, self.text):
            if isinstance(child, nn.Module) and is_frozen(child):
                child.eval()
        return self

    @property
    def bank(self) -> FeatureBank | None:
        """Where levels are kept; None: nowhere."""
        return self._bank

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        notes: Sequence[str],
        boxes: Float[Tensor, "B 4"] | None = None,
    ) -> Float[Tensor, "B K H W"]:
        """Logits at the images' size. "" is an absent note; `boxes` are as in `types.Batch`."""
        return self.decode(self.encode(images), notes, boxes, (images.shape[-2], images.shape[-1]))

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Levels:
        """The levels of the images, padded to a multiple the denoiser takes: once per image, for any note."""
        padded = padding.to_multiple(images, self.denoiser.multiple)
        if self._bank is not None and (self._bank_in_training or not self.training) and not self._graph_wanted(images):
            return self._ask(self._bank, self.features, self.denoiser, padded)
        return self.features(self.denoiser, padded)

    def decode(
        self,
        levels: Levels,
        notes: Sequence[str],
        boxes: Float[Tensor, "B 4"] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Float[Tensor, "B K H W"]:
        """Logits of `encode`d images; `size` (height, width) is the images' own, without it the padding stays on.

        Raises:
            ValueError: not one note per image, or a size larger than what the levels cover.
        """
        num, finest = levels[-1].shape[0], levels[-1]
        padded = (finest.shape[-2] * self.strides[-1], finest.shape[-1] * self.strides[-1])
        size = padded if size is None else size
        if len(notes) != num:
            raise ValueError(f"{num} images and {len(notes)} notes: give one note per image, '' where there is none")
        if size[0] > padded[0] or size[1] > padded[1]:
            raise ValueError(f"size {size} is larger than the {padded} that the levels cover; give the image's size")
        if boxes is None:
            boxes = padding.whole_boxes(num, finest.device)
        boxes = padding.padded_boxes(boxes.to(finest.device), size, padded)
        logits = self.head(levels, self._read(notes), boxes, padded)
        return logits[..., : size[0], : size[1]]

    def _graph_wanted(self, images: Tensor) -> bool:
        return torch.is_grad_enabled() and (images.requires_grad or not is_frozen(self.denoiser))

    def _read(self, notes: Sequence[str]) -> TextFeatures | None:
        if self.text is None:
            return None
        unique = list(dict.fromkeys(notes))  # tiles of one image share their note
        with torch.set_grad_enabled(torch.is_grad_enabled() and not is_frozen(self.text)):
            text = self.text(unique)
        rows = torch.tensor([unique.index(note) for note in notes], device=text.tokens.device)
        return TextFeatures(tokens=text.tokens[rows], mask=text.mask[rows], pooled=text.pooled[rows])


def _ask(bank: FeatureBank, extractor: features.Features, denoiser: nn.Module, images: Tensor) -> Levels:
    return bank.levels(extractor, denoiser, images)


def is_frozen(module: nn.Module) -> bool:
    """Whether none of its weights is trained."""
    return not any(weight.requires_grad for weight in module.parameters())
