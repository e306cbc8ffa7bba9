"""The networks that are measured: the full-size ADM and the published head with random weights; or small ones."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from medtextdiff.diffusion import adm
from medtextdiff.diffusion.denoiser import Denoiser
from medtextdiff.segmentation import features, published
from medtextdiff.segmentation.heads import published as published_head
from medtextdiff.segmentation.heads import pyramid
from medtextdiff.types import Levels, TextFeatures

_SMALL = adm.Flags(image_size=256, num_channels=32, num_head_channels=16)  # same depth: 553 M become 8.7 M
_NUM_WORDS, _TEXT_WIDTH = published.MAX_TOKENS, 768


@dataclass(frozen=True)
class Bed:
    """What a measurement stands on.

    full: the 552.8 M ADM; False: the same network an eighth as wide, to try the tables out.
    """

    full: bool = True
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    side: int = published.IMAGE_SIZE
    bf16: bool = True  # whether this machine computes in it

    @cached_property
    def denoiser(self) -> Denoiser:
        """Float32, frozen, random weights, as the published code holds it."""
        from diffusers import UNet2DModel

        torch.manual_seed(0)
        with torch.device("meta"):
            unet = UNet2DModel(**adm.unet_config(adm.Flags() if self.full else _SMALL))
        unet = unet.to_empty(device=self.device)
        for name, weight in unet.named_parameters():
            if weight.ndim > 1:  # a matrix or kernel keeps the size of what goes through
                torch.nn.init.normal_(weight, 0.0, weight[0].numel() ** -0.5)
            else:
                torch.nn.init.constant_(weight, float(name.endswith("weight")))  # norms as they are born, biases 0
        return Denoiser(unet.eval())

    @cached_property
    def fast_denoiser(self) -> Denoiser:
        """The same in the layout and precision that `load` gives a frozen denoiser."""
        import copy

        return copy.deepcopy(self.denoiser).to(
            memory_format=torch.channels_last,  # type: ignore[call-overload]
            dtype=torch.bfloat16 if self.bf16 else torch.float32,
        )

    @cached_property
    def images(self) -> Tensor:
        """One image of noise, [1 3 side side] in [-1, 1]."""
        return (
            torch.rand(1, 3, self.side, self.side, generator=torch.Generator().manual_seed(1)).to(self.device) * 2 - 1
        )

    @cached_property
    def text(self) -> TextFeatures:
        """A note of as many words as the published code reads."""
        return self.note(_NUM_WORDS)

    @property
    def box(self) -> Tensor:
        """The whole image."""
        return torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=self.device)

    @property
    def size(self) -> tuple[int, int]:
        """Of the logits."""
        return self.side, self.side

    def note(self, num_words: int) -> TextFeatures:
        """Made-up features of a note of so many words."""
        tokens = torch.randn(1, num_words, _TEXT_WIDTH, generator=torch.Generator().manual_seed(2)).to(self.device)
        return TextFeatures(tokens, torch.ones(1, num_words, dtype=torch.bool, device=self.device), tokens.mean(dim=1))

    def features(self, name: str) -> features.Features:
        """The published extractor of a data set."""
        return features.Config(taps=published.TAPS[name], noise="shared", channel_order="bgr").build()

    def levels(self, name: str) -> Levels:
        """Made-up levels of that extractor's shapes, float32, channels last."""
        extractor = self.features(name)
        shapes = zip(extractor.channels(self.denoiser), extractor.strides(self.denoiser), strict=True)
        rng = torch.Generator().manual_seed(3)
        return [
            torch.randn(1, width, self.side // stride, self.side // stride, generator=rng)
            .to(self.device)
            .to(memory_format=torch.channels_last)
            for width, stride in shapes
        ]

    def head(self, name: str, num_classes: int = 2) -> published_head.PublishedHead:
        """The published head for it."""
        return self._head(published_head.Config(width=768 if self.full else 96), name, num_classes)

    def our_head(self, name: str, num_classes: int = 2) -> pyramid.Pyramid:
        """Ours on the same levels, the coarsest first."""
        return self._head(pyramid.Config(), name, num_classes)

    def _head(self, settings: Any, name: str, num_classes: int) -> Any:
        torch.manual_seed(0)
        extractor = self.features(name)
        channels, strides = extractor.channels(self.denoiser), extractor.strides(self.denoiser)
        head = settings.build(channels, strides, _TEXT_WIDTH, num_classes).eval().to(self.device)
        return head.to(memory_format=torch.channels_last)
