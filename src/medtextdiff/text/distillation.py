"""Teach a small encoder the states of a larger one that has another vocabulary (after arXiv 1503.02531, 1910.01108).

Each reads the text in its own tokens. Compared are words, as the mean of the states of their pieces, aligned by where
they stand in the text; and whole documents, as the mean over all their states. A learned linear map takes the
student's width to the teacher's. (The published FastTextDiff script hands the student's token numbers to the teacher,
in whose vocabulary they are other words; that is not repeated here.)
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.text import mlm, packed_attention
from medtextdiff.text.alignment import means
from medtextdiff.text.lessons import Lessons

Loss = Callable[[nn.Module, Mapping[str, Tensor], torch.Generator | None], dict[str, Tensor]]


class Config(config.Config):
    """What is compared, how, and what each part counts in the sum.

    With `mlm_weight` the student reads a text with masked words and the teacher the whole one, so that the student
    also learns to say what the teacher makes of a word that it does not see.
    """

    distance: Literal["cosine", "mse"] = "cosine"
    word_weight: float = Field(default=1.0, ge=0)
    pooled_weight: float = Field(default=0.0, ge=0)
    mlm_weight: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _something_is_learned(self) -> "Config":
        if not self.word_weight + self.pooled_weight + self.mlm_weight:
            raise ValueError("word_weight, pooled_weight and mlm_weight are all 0: nothing to learn; raise one")
        return self

    def scores(self) -> tuple[str, ...]:
        """What `evaluate` finds."""
        return ("loss", *(name for name, weight in self._weights().items() if weight))

    def build(self) -> Loss:
        """The loss of a `Wrapped(text=WithTokenizer, teacher=..., projection=Linear)` on batches of `Lessons`."""

        def loss(model: Any, batch: Mapping[str, Tensor], rng: torch.Generator | None = None) -> dict[str, Tensor]:
            return self._terms(model, batch)

        return loss

    def _terms(self, model: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        network = model.text.model
        mine = packed_attention.states(network.base_model, batch["ids"], batch["lengths"])
        with torch.no_grad():
            theirs = packed_attention.states(model.teacher, batch["teacher_ids"], batch["teacher_lengths"])
        terms: dict[str, Tensor] = {}
        num = int(batch["num_words"].sum())
        # A row without a word that both have teaches nothing, but every process must have a gradient.
        nothing = 0.0 * model.projection(mine[:1].float()).sum()
        if self.word_weight:
            terms["words"] = self._words(model, mine, theirs, batch, num) if num else nothing
        if self.pooled_weight:
            pooled = model.projection(_pooled(mine, batch["lengths"]))
            terms["pooled"] = self._distance(pooled, _pooled(theirs, batch["teacher_lengths"]))
        if self.mlm_weight:
            terms["mlm"] = mlm.guess(network, mine, batch["labels"])["loss"]
        weights = self._weights()
        total = torch.stack([weights[name] * term for name, term in terms.items()] + [nothing]).sum()
        num_tokens = torch.tensor(float(len(batch["ids"])), device=total.device)
        return {"loss": total, "num_tokens": num_tokens} | {name: term.detach() for name, term in terms.items()}

    def _weights(self) -> dict[str, float]:
        return {"words": self.word_weight, "pooled": self.pooled_weight, "mlm": self.mlm_weight}

    def _words(self, model: Any, mine: Tensor, theirs: Tensor, batch: Mapping[str, Tensor], num: int) -> Tensor:
        words = model.projection(means(mine, batch["words"], num))
        return self._distance(words, means(theirs, batch["teacher_words"], num))

    def _distance(self, mine: Float[Tensor, "R D"], theirs: Float[Tensor, "R D"]) -> Tensor:
        mine, theirs = mine.float(), theirs.float()
        if self.distance == "mse":
            return F.mse_loss(mine, theirs)
        return (1 - F.cosine_similarity(mine, theirs, dim=-1)).mean()


@torch.no_grad()
def evaluate(loss: Loss, model: nn.Module, data: Lessons, seed: int = 0) -> dict[str, float]:
    """Means of the loss and its parts over the rows of `data`; the same masks each time."""
    rng = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    sums: dict[str, list[float]] = {}
    for index in range(len(data)):
        batch = {name: value.to(device) for name, value in data.collate([data.sample(index, rng)]).items()}
        for name, value in loss(model, batch, None).items():
            sums.setdefault(name, []).append(float(value))
    del sums["num_tokens"]
    return {name: sum(values) / len(values) for name, values in sums.items()}


def _pooled(states: Float[Tensor, "N D"], lengths: Tensor) -> Float[Tensor, "M D"]:
    number = torch.arange(len(lengths), device=lengths.device)
    return means(states, torch.repeat_interleave(number, lengths), len(lengths))
