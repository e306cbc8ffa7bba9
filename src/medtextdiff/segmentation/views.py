"""Encode an image once, ask it many notes: the levels of its tiles, and where each tile lies."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from medtextdiff.segmentation import padding, predict, use
from medtextdiff.types import Levels


@dataclass(frozen=True)
class Chunk:
    """A few tiles: their levels, where they begin (top, left), and what of the image they show."""

    levels: Levels
    windows: list[predict.Window]
    boxes: Float[Tensor, "B 4"]


@dataclass(frozen=True)
class Encoded:
    """What an image gives, whatever the note. The levels stay in memory: about 14 MB for each tile of 256 x 256.

    `size` is the image's own (height, width), `work` that which was read, `padded` with the padding of small images;
    `image` is kept, for `settings` may fit the probabilities to it.
    """

    chunks: list[Chunk]
    tile: tuple[int, int]
    size: tuple[int, int]
    work: tuple[int, int]
    padded: tuple[int, int]
    image: Float[Tensor, "3 H W"]
    settings: use.Config

    @classmethod
    @torch.no_grad()
    def of(cls, segmenter: Any, image: Float[Tensor, "3 H W"], settings: use.Config) -> "Encoded":
        """Encode `image` as `settings` would read it, without mirror averaging."""
        work = settings.working_image(image)
        height, width = work.shape[-2:]
        whole = settings.mode == "resize"
        tile = (height, width) if whole else predict.tile_size((height, width), settings.tile)
        padded = padding.to_size(work, max(tile[0], height), max(tile[1], width))
        tops = predict.tile_starts(padded.shape[-2], tile[0], settings.overlap)
        lefts = predict.tile_starts(padded.shape[-1], tile[1], settings.overlap)
        windows = [(top, left) for top in tops for left in lefts]
        chunks = []
        for start in range(0, len(windows), settings.batch_size):
            some = windows[start : start + settings.batch_size]
            tiles = [padded[0, :, top : top + tile[0], left : left + tile[1]] for top, left in some]
            boxes = predict.tile_boxes(some, tile, (height, width)).to(image.device)
            chunks.append(Chunk(segmenter.encode(torch.stack(tiles)), some, boxes))
        own = (image.shape[-2], image.shape[-1])
        size = (padded.shape[-2], padded.shape[-1])
        return cls(chunks, tile, own, (height, width), size, image, settings)

    @torch.no_grad()
    def probabilities(self, segmenter: Any, note: str) -> Float[Tensor, "K H W"]:
        """Probabilities at the image's own size for this note."""
        weight = predict.window(self.tile).to(self.chunks[0].boxes)
        total = weight.new_zeros(segmenter.num_classes, *self.padded)
        weights = weight.new_zeros(self.padded)
        for chunk in self.chunks:
            notes = [note] * len(chunk.windows)
            probs = segmenter.decode(chunk.levels, notes, chunk.boxes, self.tile).float().softmax(dim=1)
            for (top, left), one in zip(chunk.windows, probs, strict=True):
                place = (slice(top, top + self.tile[0]), slice(left, left + self.tile[1]))
                total[:, *place] += one * weight
                weights[place] += weight
        probs = (total / weights)[None, :, : self.work[0], : self.work[1]]
        if self.work != self.size:
            antialias = self.settings.antialias
            probs = F.interpolate(probs, size=self.size, mode="bilinear", align_corners=False, antialias=antialias)
        return self.settings.shifted(self.image, probs[0])
