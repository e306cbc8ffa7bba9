"""A segmenter made of exported graphs: what a trained one does, run by another library."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from medtextdiff.config import ConfigError
from medtextdiff.segmentation import padding
from medtextdiff.segmentation.features import Features
from medtextdiff.segmentation.graphs.description import TOKENIZER, Config
from medtextdiff.segmentation.models.fasttextdiff import FastTextDiff
from medtextdiff.types import Levels, TextFeatures

Session = Callable[[Mapping[str, Tensor]], list[Tensor]]  # inputs by name -> outputs, on the CPU


def build(description: Config, sessions: Mapping[str, Session], folder: Path) -> nn.Module:
    """The segmenter that an export folder holds, in eval mode.

    Raises:
        ConfigError: a graph is missing. TextError: the tokenizer cannot be read.
    """
    needed = ("segment",) if description.features is None else ("encode", "decode")
    missing = [name for name in (*needed, *(["text"] if description.text else [])) if name not in sessions]
    if missing:
        raise ConfigError(f"{folder} lacks the graph '{missing[0]}'; export the model again")
    if description.features is None:
        return ExportedImageOnly(description, sessions["segment"]).eval()
    return ExportedFastTextDiff(description, sessions, folder).eval()


class ExportedImageOnly(nn.Module):
    """A segmenter that reads no note."""

    def __init__(self, description: Config, session: Session) -> None:
        super().__init__()
        self.num_classes, self.multiple = description.num_classes, description.multiple
        self._session = session

    def forward(
        self, images: Float[Tensor, "B 3 H W"], notes: Sequence[str], boxes: Float[Tensor, "B 4"] | None = None
    ) -> Float[Tensor, "B K H W"]:
        """Logits at the images' size; `notes` and `boxes` are not read."""
        height, width = images.shape[-2:]
        return self._session({"images": padding.to_multiple(images, self.multiple)})[0][..., :height, :width]


class ExportedFastTextDiff(FastTextDiff):
    """A FastTextDiff whose networks are graphs; padding, boxes and notes are handled by the code it inherits."""

    def __init__(self, description: Config, sessions: Mapping[str, Session], folder: Path) -> None:
        nn.Module.__init__(self)  # not FastTextDiff's, which builds the networks
        assert description.features is not None
        self.num_classes, self.strides = description.num_classes, description.strides
        self.denoiser = SimpleNamespace(multiple=description.multiple)
        self.features = _Encode(sessions["encode"], description.features.build())  # type: ignore[assignment]
        self.head = _Decode(sessions["decode"])
        self.text: Any = None
        if description.text is not None:
            text = sessions["text"]
            self.text = description.text.build(
                lambda ids, mask: text({"ids": ids, "mask": mask})[0], folder / TOKENIZER
            )


class _Encode:
    def __init__(self, session: Session, features: Features) -> None:
        self._session, self._features = session, features

    def __call__(self, _denoiser: Any, images: Tensor) -> Levels:
        inputs = {"images": images}
        if self._features.settings.noise != "none":
            inputs["noise"] = self._features.noise(images)
        return self._session(inputs)


class _Decode:
    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(
        self, levels: Levels, text: TextFeatures | None, boxes: Tensor, _size: tuple[int, int]
    ) -> Float[Tensor, "B K H W"]:
        inputs = {f"level_{k}": level for k, level in enumerate(levels)} | {"boxes": boxes}
        if text is not None:
            inputs |= {"tokens": text.tokens, "mask": text.mask, "pooled": text.pooled}
        return self._session(inputs)[0]
