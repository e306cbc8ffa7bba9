"""Learning from unlabelled images: a student must say on a strongly changed view what its teacher says on a mild one.

The teacher is the running average of the student (mean teacher, arXiv 1703.01780); only pixels it is sure of count
(FixMatch, arXiv 2001.07685). Both views show the same crop, so the note and the place are the same.
"""

import copy
import zlib
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.segmentation import contrast, losses
from medtextdiff.segmentation.padding import whole_boxes
from medtextdiff.types import Batch


class Config(config.Config):
    """The labelled loss, plus `weight` times the consistency, whose weight grows over `ramp_up` steps.

    decay: of the teacher's running average. threshold: the least probability at which the teacher's class counts.
    contrast_shift: 0 to 1, how far the teacher's probabilities are fitted to each crop's colours (`contrast.shift`).
    """

    labelled: losses.Config = losses.Config()
    weight: NonNegativeFloat = 1.0
    ramp_up: NonNegativeInt = 100
    threshold: float = Field(default=0.9, ge=0, le=1)
    decay: float = Field(default=0.99, ge=0, lt=1)
    contrast_shift: float = Field(default=0.0, ge=0, le=1)

    def build(self, student: nn.Module) -> "ConsistencyLoss":
        """The loss with a teacher that starts as a copy of the student; frozen weights are shared, not copied."""
        return ConsistencyLoss(self, student)


@dataclass(frozen=True)
class PairedBatch:
    """Labelled crops, and crops without labels in a mild (`weak`) and a strongly coloured view."""

    labelled: Batch
    weak: Batch
    strong: Float[Tensor, "B 3 H W"]


class ConsistencyLoss:
    """`loss(model, batch, rng)` for the engine, over `PairedBatch`es; call `update_teacher` after each step."""

    def __init__(self, settings: Config, student: nn.Module) -> None:
        self.settings = settings
        self.labelled = settings.labelled.build()
        self.step = 0
        frozen = {id(weight): weight for weight in student.parameters() if not weight.requires_grad}
        self._trained = {name for name, weight in student.named_parameters() if weight.requires_grad}
        self.teacher = copy.deepcopy(student, memo=frozen)
        self.teacher.requires_grad_(False).eval()

    def __call__(self, model: nn.Module, batch: PairedBatch, rng: object = None) -> dict[str, Tensor]:
        """The labelled loss's scalars, "consistency", and "confident" (the share of pixels that counted).

        Raises:
            ValueError: labelled and unlabelled crops of different sizes.
        """
        labelled, weak = batch.labelled, batch.weak
        if labelled.images.shape[1:] != batch.strong.shape[1:]:
            raise ValueError(
                f"labelled crops are {tuple(labelled.images.shape[2:])}, unlabelled {tuple(batch.strong.shape[2:])}; "
                "give both data sets the same crop size"
            )
        if next(self.teacher.parameters()).device != weak.images.device:  # the engine moves the student only
            self.teacher.to(weak.images.device)
        with torch.no_grad():
            teacher = self._fitted(self.teacher(weak.images, weak.notes, weak.boxes), weak.images)
        num = len(labelled.images)
        logits = model(  # one pass for both: one gradient synchronisation, one graph
            torch.cat([labelled.images, batch.strong]), [*labelled.notes, *weak.notes], _both_boxes(labelled, weak)
        )
        if labelled.masks is None:
            raise ValueError("the labelled part of a pair has no masks; its data set must have them")
        scalars = self.labelled.of(logits[:num], labelled.masks)
        term = consistency(logits[num:], teacher, self.settings.threshold)
        confident = (teacher.float().softmax(dim=1).amax(dim=1) >= self.settings.threshold).float().mean()
        loss = scalars["loss"] + self._weight() * term
        return scalars | {"loss": loss, "consistency": term, "confident": confident}

    @torch.no_grad()
    def update_teacher(self, student: nn.Module, step: int) -> None:
        """Move the teacher towards the student after optimiser step number `step` (from 1); early it follows faster."""
        self.step = step
        decay = min(self.settings.decay, step / (step + 10))
        theirs = dict(student.named_parameters())
        for name, weight in self.teacher.named_parameters():
            if theirs[name].requires_grad:
                weight.lerp_(theirs[name].to(weight), 1 - decay)
        buffers = dict(student.named_buffers())
        for name, buffer in self.teacher.named_buffers():
            buffer.copy_(buffers[name])

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: the step, and of the teacher what is trained, and its buffers."""
        trained = {name: weight for name, weight in self.teacher.named_parameters() if name in self._trained}
        return {"step": self.step, "teacher": trained | dict(self.teacher.named_buffers())}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.step = int(state["step"])
        own = dict(self.teacher.named_parameters()) | dict(self.teacher.named_buffers())
        for name, value in state["teacher"].items():
            own[name].copy_(value)

    def _fitted(self, logits: Float[Tensor, "B K H W"], images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K H W"]:
        strength = self.settings.contrast_shift
        if strength == 0:
            return logits
        probs = logits.float().softmax(dim=1)
        shifted = [contrast.shift(image, one, strength) for image, one in zip(images, probs, strict=True)]
        return torch.stack(shifted).clamp(min=1e-6).log()

    def _weight(self) -> float:
        ramp_up = self.settings.ramp_up
        return self.settings.weight * (min(1.0, self.step / ramp_up) if ramp_up else 1.0)


def consistency(
    student_logits: Float[Tensor, "B K H W"], teacher_logits: Float[Tensor, "B K H W"], threshold: float
) -> Float[Tensor, ""]:
    """Cross-entropy of the student against the teacher's class where the teacher's probability is >= `threshold`.

    The sum over such pixels divided by the number of *all* pixels, so that few sure pixels weigh little. No gradient
    reaches the teacher.
    """
    probs, classes = teacher_logits.detach().float().softmax(dim=1).max(dim=1)
    each = F.cross_entropy(student_logits.float(), classes, reduction="none")
    return (each * (probs >= threshold)).mean()


@runtime_checkable
class DataSet(Protocol):
    """What `Paired` needs of a data set."""

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: torch.Generator) -> Any:
        """One sample; all chance comes from `rng`."""
        ...

    def collate(self, samples: list[Any]) -> Batch:
        """Samples as one batch."""
        ...


class Paired:
    """A labelled data set with, beside each of its samples, one drawn from an unlabelled set. Same interface.

    `repeats`: a weak view has one strong view, the same each time, for weak views that come again (a feature bank).
    """

    def __init__(self, labelled: DataSet, unlabelled: DataSet, strength: float = 0.5, repeats: bool = False) -> None:
        if len(unlabelled) == 0:
            raise ValueError("the unlabelled data set is empty; name a folder with images, or train without it")
        self.labelled, self.unlabelled, self.strength, self.repeats = labelled, unlabelled, strength, repeats

    def __len__(self) -> int:
        return len(self.labelled)

    def sample(self, index: int, rng: torch.Generator) -> tuple[Any, Any, int]:
        """A labelled sample, an unlabelled one, and the seed of the latter's strong view."""
        first = self.labelled.sample(index, rng)
        other = int(torch.randint(len(self.unlabelled), (), generator=rng))
        second = self.unlabelled.sample(other, rng)
        return first, second, int(torch.randint(2**31, (), generator=rng))

    def collate(self, samples: list[tuple[Any, Any, int]]) -> PairedBatch:
        """Samples as one batch."""
        weak = self.unlabelled.collate([second for _, second, _ in samples])
        seeds = [seed for _, _, seed in samples]
        if self.repeats:
            seeds = [zlib.crc32(image.numpy().tobytes()) for image in weak.images]
        strong = [
            strong_view(image, torch.Generator().manual_seed(seed), self.strength)
            for image, seed in zip(weak.images, seeds, strict=True)
        ]
        return PairedBatch(self.labelled.collate([first for first, _, _ in samples]), weak, torch.stack(strong))


def strong_view(image: Float[Tensor, "3 H W"], rng: torch.Generator, strength: float = 0.5) -> Float[Tensor, "3 H W"]:
    """The image in other colours, contrast and sharpness, with a little noise; no pixel moves. In and out: [-1, 1]."""

    def draw(*shape: int) -> Tensor:  # uniform in [-1, 1]
        return 2 * torch.rand(shape, generator=rng) - 1

    mean = image.mean(dim=(1, 2), keepdim=True)
    contrast = (strength * draw(3, 1, 1) * 0.5 + strength * draw(1, 1, 1)).exp()
    image = (image - mean) * contrast + mean + 0.4 * strength * (draw(1, 1, 1) + 0.5 * draw(3, 1, 1))
    grey = image.mean(dim=0, keepdim=True)
    image = grey + (image - grey) * (1 + strength * draw(1, 1, 1))
    blurred = F.avg_pool2d(image[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    image = image + (blurred - image) * (2 * strength * draw(1, 1, 1)).clamp(-0.5, 1)  # below 0: sharper
    noise = torch.randn(image.shape, generator=rng) * 0.1 * strength * draw(1).abs()
    return (image + noise).clamp(-1, 1)


def _both_boxes(first: Batch, second: Batch) -> Tensor | None:
    if first.boxes is None and second.boxes is None:
        return None
    device = first.images.device
    parts = [whole_boxes(len(b.images), device) if b.boxes is None else b.boxes for b in (first, second)]
    return torch.cat(parts)
