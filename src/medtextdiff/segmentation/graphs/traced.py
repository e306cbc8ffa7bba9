"""The graphs of a segmenter: modules of tensors alone, with made-up inputs and which of their sides may vary.

    encode  images [B 3 H W] (and noise, where the levels are noised) -> level_0 ... level_n
    decode  the levels, boxes [B 4], tokens [B L D], mask [B L], pooled [B D] -> logits [B K H W]
    text    ids [B L], mask [B L] -> states [B L D]
    segment images [B 3 H W] -> logits [B K H W], for a segmenter that reads no note

Image sides are multiples of the segmenter's `multiple`; cutting and padding stay outside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.diffusion.latent_backbone import LatentBackbone
from medtextdiff.segmentation.models.fasttextdiff import FastTextDiff
from medtextdiff.text import graph as text_graph
from medtextdiff.types import TextFeatures

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """The size of made-up inputs; `rows` and `columns` count multiples, `words` is L."""

    batch: int
    rows: int
    columns: int
    words: int


EXAMPLE = Case(batch=2, rows=2, columns=3, words=5)  # all above 1, which a tracer would take for fixed


@dataclass(frozen=True)
class Graph:
    """A module, the names of what goes in and comes out, and which sides vary under which names."""

    name: str
    module: nn.Module
    draw: Callable[[Case, torch.Generator], Inputs]
    outputs: tuple[str, ...]
    sides: dict[str, dict[int, Any]]  # input -> dimension -> what torch.export calls a dynamic side

    def run(self, inputs: Inputs) -> list[Tensor]:
        """The outputs by torch."""
        with torch.no_grad():
            found = self.module(*inputs.values())
        return list(found) if isinstance(found, tuple) else [found]


def graphs_of(segmenter: Any) -> list[Graph]:
    """The graphs of a segmenter, in eval mode and float32.

    Raises:
        ConfigError: a segmenter whose note and image are read in one piece; TextError: a text encoder of its own.
    """
    if isinstance(segmenter, FastTextDiff):
        graphs = [_encode(segmenter), _decode(segmenter)]
        return graphs if segmenter.text is None else [*graphs, _text(segmenter.text)]
    if getattr(segmenter, "text", None) is not None:
        raise config.ConfigError(
            f"a {type(segmenter).__name__} reads its note in one piece with the image, which cannot be exported; "
            "FastTextDiff and image-only segmenters can"
        )
    return [_segment(segmenter)]


class Encode(nn.Module):
    """Images to levels."""

    def __init__(self, segmenter: FastTextDiff) -> None:
        super().__init__()
        self.denoiser, self.features = segmenter.denoiser, segmenter.features

    def forward(
        self, images: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B 3 H W"] | None = None
    ) -> tuple[Tensor, ...]:
        """One level per tap."""
        return tuple(self.features(self.denoiser, images, noise))


class Decode(nn.Module):
    """Levels and a note's features to logits; a row whose mask is all False has no note."""

    def __init__(self, segmenter: FastTextDiff) -> None:
        super().__init__()
        self.head, self.strides = segmenter.head, segmenter.strides

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits at the size that the levels cover."""
        count = len(self.strides)
        levels, boxes, text = list(inputs[:count]), inputs[count], inputs[count + 1 :]
        size = (levels[-1].shape[-2] * self.strides[-1], levels[-1].shape[-1] * self.strides[-1])
        return self.head(levels, TextFeatures(*text) if text else None, boxes, size)


class Segment(nn.Module):
    """Images to logits."""

    def __init__(self, segmenter: Any) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K H W"]:
        """Logits at the images' size."""
        return self.segmenter(images, [])


def _encode(segmenter: FastTextDiff) -> Graph:
    features, multiple = segmenter.features, segmenter.denoiser.multiple
    noisy = features.settings.noise != "none"
    if noisy and isinstance(segmenter.denoiser, LatentBackbone):
        raise config.ConfigError("noise on latents cannot be exported; train with model.features.noise=none")

    def draw(case: Case, rng: torch.Generator) -> Inputs:
        images = _images(case, multiple, rng)
        return {"images": images} | ({"noise": features.noise(images)} if noisy else {})

    sides = {name: _sides(multiple) for name in (("images", "noise") if noisy else ("images",))}
    names = tuple(f"level_{k}" for k in range(len(segmenter.strides)))
    return Graph("encode", Encode(segmenter), draw, names, sides)


def _decode(segmenter: FastTextDiff) -> Graph:
    encode, multiple = _encode(segmenter), segmenter.denoiser.multiple
    width = None if segmenter.text is None else segmenter.text.width

    def draw(case: Case, rng: torch.Generator) -> Inputs:
        levels = encode.run(encode.draw(case, rng))
        inputs = dict(zip(encode.outputs, levels, strict=True)) | {"boxes": torch.rand(case.batch, 4, generator=rng)}
        if width is None:
            return inputs
        tokens = torch.randn(case.batch, case.words, width, generator=rng)
        pooled = torch.randn(case.batch, width, generator=rng)
        return inputs | {"tokens": tokens, "mask": _mask(case, rng), "pooled": pooled}

    sides = {name: _sides(multiple // stride) for name, stride in zip(encode.outputs, segmenter.strides, strict=True)}
    sides["boxes"] = {0: _free("batch")}
    if width is not None:
        sides |= {"tokens": _note_sides(), "mask": _note_sides(), "pooled": {0: _free("batch")}}
    return Graph("decode", Decode(segmenter), draw, ("logits",), sides)


def _text(encoder: nn.Module) -> Graph:
    limit = text_graph.Config.of(encoder).limit  # raises for an encoder of its own
    traced = text_graph.Traced(encoder)
    vocabulary = traced.model.get_input_embeddings().num_embeddings

    def draw(case: Case, rng: torch.Generator) -> Inputs:
        ids = torch.randint(vocabulary, (case.batch, case.words), generator=rng)
        return {"ids": ids, "mask": _mask(case, rng)}

    return Graph("text", traced, draw, ("states",), {"ids": _note_sides(limit), "mask": _note_sides(limit)})


def _segment(segmenter: Any) -> Graph:
    multiple = getattr(segmenter, "multiple", 1)

    def draw(case: Case, rng: torch.Generator) -> Inputs:
        return {"images": _images(case, multiple, rng)}

    return Graph("segment", Segment(segmenter), draw, ("logits",), {"images": _sides(multiple)})


@cache
def _free(name: str, most: int | None = None) -> Any:
    """A side that stays open, up to `most`; made when needed, for torch.export takes a second to import."""
    if name == "batch":  # a named one would have to repeat diffusers' own limit of 63
        return torch.export.Dim.AUTO
    return torch.export.Dim(name, max=most)


def _note_sides(limit: int | None = None) -> dict[int, Any]:
    return {0: _free("batch"), 1: _free("words", limit)}  # a BERT has no place for a word beyond its limit


def _sides(cells: int) -> dict[int, Any]:
    return {0: _free("batch"), 2: cells * _free("rows"), 3: cells * _free("columns")}


def _images(case: Case, multiple: int, rng: torch.Generator) -> Float[Tensor, "B 3 H W"]:
    return torch.rand(case.batch, 3, case.rows * multiple, case.columns * multiple, generator=rng) * 2 - 1


def _mask(case: Case, rng: torch.Generator) -> Bool[Tensor, "B L"]:
    """Notes of any length; where there are several, the first is absent."""
    counts = torch.randint(1, case.words + 1, (case.batch, 1), generator=rng)
    counts[-1] = case.words
    if case.batch > 1:
        counts[0] = 0
    return torch.arange(case.words)[None, :] < counts


def cases(multiple: int, limit: int | None = None) -> Sequence[Case]:
    """What a graph is checked on: other sizes than `EXAMPLE`'s, one of about 256 pixels, notes to 48 words."""
    large = max(1, 256 // multiple)
    words = [min(count, limit or count) for count in (1, 7, 17, 48)]
    return (
        Case(1, 1, 1, words[0]),
        Case(3, 1, 4, words[1]),
        Case(2, 3, 2, words[2]),
        Case(1, large, large, words[3]),
    )
