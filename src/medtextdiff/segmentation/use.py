"""How a trained segmenter is used on whole images: part of a run, so that `segment` does what was validated.

Validation, `segment` and `evaluate` all hand it the image at its own size.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from medtextdiff import config
from medtextdiff.segmentation import contrast, predict
from medtextdiff.types import Segmenter


class Config(config.Config):
    """The arguments of `segmentation.predict.predict`.

    mode: "resize" shows the model the whole image at `size` x `size`; "tiles" reads it in its own resolution times
    `scale` (0.5: half its size, for a model whose views were drawn at a `data.augmentation.scale` of about 2); a model
    trained on images of one size (`data.size`) is used with "resize". flips: average over the four mirror images, four
    times slower. antialias: False shrinks images as the published code does. contrast_shift: 0 to 1, how far an image's
    threshold goes from one half to where the colours inside and outside its mask differ most (`contrast.shift`); for
    images that all hold foreground, of a colour of its own.
    """

    mode: predict.Mode = "tiles"
    size: PositiveInt = 256
    tile: PositiveInt = 256
    overlap: float = Field(default=0.25, ge=0, lt=1)
    scale: PositiveFloat = 1.0
    flips: bool = False
    batch_size: PositiveInt = 4
    antialias: bool = True
    contrast_shift: float = Field(default=0.0, ge=0, le=1)

    def probabilities(
        self,
        segmenter: Segmenter,
        image: Float[Tensor, "3 H W"],
        note: str,
        mirror_note: Callable[[str, bool, bool], str] | None = None,
    ) -> Float[Tensor, "K H W"]:
        """Probabilities at the image's size. `mirror_note(note, left_right, up_down)` is needed with `flips`."""
        settings = self.model_dump(exclude={"flips", "contrast_shift"})
        probs = predict.predict(segmenter, image, note, flips=mirror_note if self.flips else None, **settings)
        return self.shifted(image, probs)

    def shifted(self, image: Float[Tensor, "3 H W"], probs: Float[Tensor, "K H W"]) -> Float[Tensor, "K H W"]:
        """The probabilities as `contrast_shift` wants them."""
        if self.contrast_shift == 0:
            return probs
        return contrast.shift(image, probs, self.contrast_shift)

    def logits(self, segmenter: Segmenter, image: Float[Tensor, "3 H W"], note: str) -> Float[Tensor, "K h w"]:
        """The model's own logits of the working image, the whole of it at once."""
        with torch.no_grad():
            return segmenter(self.working_image(image), [note])[0].float()

    def working_image(self, image: Float[Tensor, "3 H W"]) -> Float[Tensor, "1 3 h w"]:
        """The image at the size the model reads it: `size` x `size`, or `scale` times its own."""
        height, width = image.shape[-2:]
        scaled = (max(1, round(height * self.scale)), max(1, round(width * self.scale)))
        size = (self.size, self.size) if self.mode == "resize" else scaled
        if (height, width) == size:
            return image[None]
        return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=self.antialias)
