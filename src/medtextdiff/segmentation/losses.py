"""Dice and cross-entropy of logits against masks; pixels of value IGNORE do not count."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.types import IGNORE, Batch


class Config(config.Config):
    """Weighted sum of the two.

    dice: "softmax" is the Dice loss of the probabilities, per image and class, then averaged, so that the loss of a
        batch is the mean of its images' losses. "logits_as_published" is the published code's: on raw logits, squares
        in the denominator, pooled over the batch (see `as_published`).
    include_background: whether class 0 has a Dice term of its own; the published loss always has one.
    smooth: added to numerator and denominator, in pixels.
    """

    dice_weight: NonNegativeFloat = 1.0
    ce_weight: NonNegativeFloat = 1.0
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    dice: Literal["softmax", "logits_as_published"] = "softmax"
    include_background: bool = False
    smooth: NonNegativeFloat = 1e-5

    def build(self) -> "SegmentationLoss":
        """The loss in the engine's form."""
        return SegmentationLoss(self)


def as_published() -> Config:
    """CE + 1.5 * Dice on raw logits, as the published training code computes it (its paper says softmax, 1:1)."""
    return Config(dice="logits_as_published", dice_weight=1.5, include_background=True)


class SegmentationLoss:
    """`loss(model, batch, rng)` for the engine; `of(logits, masks)` for everyone else."""

    def __init__(self, settings: Config) -> None:
        self.settings = settings

    def __call__(self, model: nn.Module, batch: Batch, rng: object = None) -> dict[str, Tensor]:
        """Scalars "loss" (carries the graph), "dice_loss" and "ce".

        Raises:
            ValueError: a batch without masks, or a mask value that is no class.
        """
        if batch.masks is None:
            raise ValueError("a labelled batch is needed, this one has no masks; train on records with a mask")
        return self.of(model(batch.images, batch.notes, batch.boxes), batch.masks)

    def of(self, logits: Float[Tensor, "B K H W"], masks: Int[Tensor, "B H W"]) -> dict[str, Tensor]:
        """The same scalars from logits; computed in float32 whatever the logits are."""
        settings, logits = self.settings, logits.float()
        _check_classes(masks, logits.shape[1])
        ce = cross_entropy(logits, masks, settings.label_smoothing)
        if settings.dice == "softmax":
            dice = dice_loss(logits.softmax(dim=1), masks, settings.include_background, settings.smooth)
        else:
            dice = published_dice_loss(logits, masks, settings.smooth)
        return {"loss": settings.ce_weight * ce + settings.dice_weight * dice, "dice_loss": dice, "ce": ce}


def cross_entropy(
    logits: Float[Tensor, "B K H W"], masks: Int[Tensor, "B H W"], label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Mean over the pixels that count; 0 where none does."""
    total = F.cross_entropy(logits, masks.long(), ignore_index=IGNORE, label_smoothing=label_smoothing, reduction="sum")
    return total / (masks != IGNORE).sum().clamp_min(1)


def dice_loss(
    probs: Float[Tensor, "B K H W"], masks: Int[Tensor, "B H W"], include_background: bool = False, smooth: float = 1e-5
) -> Float[Tensor, ""]:
    """1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s), the mean over images and classes."""
    target, counts = _one_hot(masks, probs.shape[1])
    probs = probs * counts
    first = 0 if include_background else 1
    overlap = (probs * target).sum(dim=(2, 3))[:, first:]
    total = (probs + target).sum(dim=(2, 3))[:, first:]
    return (1 - (2 * overlap + smooth) / (total + smooth)).mean()


def published_dice_loss(
    scores: Float[Tensor, "B K H W"], masks: Int[Tensor, "B H W"], smooth: float = 1e-5
) -> Float[Tensor, ""]:
    """The published Dice: per class over the whole batch, squares below; the published code gives it raw logits."""
    target, counts = _one_hot(masks, scores.shape[1])
    scores = scores * counts
    overlap = (scores * target).sum(dim=(0, 2, 3))
    total = (scores.square() + target).sum(dim=(0, 2, 3))
    return (1 - (2 * overlap + smooth) / (total + smooth)).mean()


def _one_hot(masks: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Float[B K H W] one-hot classes, zero where ignored, and Float[B 1 H W] which pixels count."""
    counts = masks != IGNORE
    one_hot = F.one_hot(masks.long().masked_fill(~counts, 0), num_classes).movedim(-1, 1)
    counts = counts[:, None].float()
    return one_hot * counts, counts


def _check_classes(masks: Tensor, num_classes: int) -> None:
    if masks.device.type != "cpu":
        return  # reading values back would stall the device; there one_hot itself refuses them
    wrong = (masks != IGNORE) & ((masks < 0) | (masks >= num_classes))
    if wrong.any():
        raise ValueError(
            f"mask values {masks[wrong].unique()[:5].tolist()} are no classes: with {num_classes} classes they go "
            f"from 0 to {num_classes - 1}, and {IGNORE} is ignored; map the mask's values, or set num_classes"
        )
