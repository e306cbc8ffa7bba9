"""Sentences that say the same lie close, those that differ in the one word that matters lie apart.

Masked words alone give words of one kind (left, right; two, three) almost one state, since each fits where the other
does; a note's meaning for an image is just that word. So a sentence, told otherwise, has to find itself among other
sentences and among its own contradictions, by the mean of its words' states (InfoNCE, arXiv 1807.03748; sentences with
hard negatives, arXiv 2104.08821). Sentences and edits come from the corpus itself: no labels.

What lies apart need not be easy to read out: "left" may move each sentence in another direction. So a sentence may also
have to find its own words among all words (a bag of words to predict, arXiv 2401.11248), by the encoder's own table of
words, which makes one direction of each word for all sentences. That is a matter of words alone, and "no effusion"
holds "effusion"; so a linear map may have to tell from the mean what a sentence asserts, by the rules of `assertions`.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.text import assertions, meaning, mlm, packed_attention
from medtextdiff.text.alignment import means
from medtextdiff.text.errors import TextError
from medtextdiff.text.lessons import Lessons

Loss = Callable[[nn.Module, Mapping[str, Tensor], torch.Generator | None], dict[str, Tensor]]
_SENTENCE = re.compile(r"(?<=[.;?!])\s+|\n+")
_FEWEST, _MOST = 3, 40  # words of a sentence
_LONGEST = 600  # its characters
MOST_TOKENS = 256  # of a sentence, where the encoder takes as many


def _itself(model: nn.Module) -> nn.Module:
    return model


class Config(config.Config):
    """weight: beside the loss of masked words; own_words: likewise, of finding a sentence's own words.

    asserted: likewise, of telling what a sentence and its contradictions assert; needs `head`.
    num: sentences of a row; contradictions: of each.

    joined: how many are two sentences made one, so that it matters which word belongs where. kept: most sentences that
    are drawn from, a fair sample of the corpus (about 150 bytes each).
    """

    weight: float = Field(default=1.0, ge=0)
    own_words: float = Field(default=0.0, ge=0)
    asserted: float = Field(default=0.0, ge=0)
    temperature: float = Field(default=0.05, gt=0)
    num: PositiveInt = 32
    contradictions: PositiveInt = 2
    joined: float = Field(default=0.3, ge=0, le=1)
    kept: PositiveInt = 200_000

    def head(self, encoder: nn.Module) -> dict[str, nn.Module]:
        """The part of the model, beside the encoder, that tells what is asserted; none where that is not learned."""
        network: Any = encoder
        return {"asserted": nn.Linear(network.config.hidden_size, len(assertions.NAMES))} if self.asserted else {}

    def scores(self) -> tuple[str, ...]:
        """What `told_apart` finds."""
        also = ("own_words", self.own_words), ("asserted", self.asserted)
        return ("contrast", "told_apart", *(name for name, weight in also if weight))

    def beside(self, rest: Loss, text: Callable[[Any], nn.Module] = _itself) -> Loss:
        """The loss `rest` and this, on batches of `Contrasted`; `text` finds the encoder in the model."""

        def loss(model: Any, batch: Mapping[str, Tensor], rng: torch.Generator | None = None) -> dict[str, Tensor]:
            others = rest(model, batch, rng)
            found = self.told_apart(text(model), batch, model.asserted if self.asserted else None)
            total = others["loss"] + self.weight * found["contrast"]
            for name in ("own_words", "asserted"):
                if weight := getattr(self, name):
                    total = total + weight * found[name]
            parts = {"rest_loss": others["loss"], **found}
            return others | {name: value.detach() for name, value in parts.items()} | {"loss": total}

        return loss

    def told_apart(self, model: Any, batch: Mapping[str, Tensor], head: nn.Module | None = None) -> dict[str, Tensor]:
        """`contrast`: the cross-entropy (nats) of finding each sentence; `told_apart`: how many are found.

        `own_words`, where it counts: the cross-entropy of finding a sentence's words, a mean over its different ones.
        `asserted`, with its `head`: binary cross-entropy, of what is asserted and what is not in equal shares.
        """
        network: Any = model.model if isinstance(model, mlm.WithTokenizer) else model
        lengths = batch["told_lengths"]
        states = packed_attention.states(network.base_model, batch["told"], lengths).float()
        number = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        averages = means(states, number, len(lengths))
        pooled = F.normalize(averages, dim=-1)
        groups = pooled.unflatten(0, (-1, self.num * (2 + self.contradictions)))  # one for each row
        anchors, others = groups[:, : self.num], groups[:, self.num :]
        logits = anchors @ others.transpose(1, 2) / self.temperature  # (rows, num, num + contradictions)
        own = torch.arange(self.num, device=logits.device).expand(len(logits), -1)
        right = (logits.argmax(-1) == own).float().mean()
        found = {"contrast": F.cross_entropy(logits.flatten(0, 1), own.flatten()), "told_apart": right}
        if self.own_words:
            table = F.normalize(network.get_input_embeddings().weight.float(), dim=-1)
            guesses = (pooled @ table.T / self.temperature).log_softmax(-1)  # (M, vocabulary)
            mine = torch.zeros_like(guesses)
            mine[number, batch["told"]] = 1
            found["own_words"] = -((guesses * mine).sum(-1) / mine.sum(-1)).mean()
        if head is not None:
            whole = averages.unflatten(0, (-1, self.num * (2 + self.contradictions)))[:, self.num :]
            truth = batch["asserted"].to(whole).unflatten(0, whole.shape[:2])
            each = F.binary_cross_entropy_with_logits(head(whole).float(), truth, reduction="none")
            shares = [(each * part).sum((1, 2)) / part.sum((1, 2)).clamp(min=1) for part in (truth, 1 - truth)]
            found["asserted"] = torch.stack(shares).mean()  # over the rows, too, so that processes can share a batch
        return found


class Sentences:
    """A fair sample of a corpus's sentences that hold a telling word."""

    def __init__(self, documents: Iterable[str], settings: Config, seed: int = 0) -> None:
        """Read all documents once; no more than `settings.kept` sentences are held.

        Raises:
            TextError: too few sentences with a telling word.
        """
        self.settings = settings
        self._kept: list[str] = []
        seen, rng, known = 0, np.random.default_rng(seed), set()
        for document in documents:
            for sentence in _SENTENCE.split(document):
                text = " ".join(sentence.split())
                if not _FEWEST <= text.count(" ") + 1 <= _MOST or len(text) > _LONGEST:
                    continue
                if hash(text) in known or not meaning.is_telling(text):
                    continue
                seen += 1
                if len(self._kept) < settings.kept:
                    self._kept.append(text)
                    known.add(hash(text))
                elif (place := int(rng.integers(seen))) < settings.kept:
                    known.discard(hash(self._kept[place]))
                    self._kept[place] = text
                    known.add(hash(text))
        if len(self._kept) < settings.num:
            raise TextError(
                f"the corpus has {len(self._kept)} different sentences that name a side, number or the like; contrast "
                f"needs {settings.num}: give more text, or train without (contrast=null)"
            )

    def __len__(self) -> int:
        """Sentences that are held."""
        return len(self._kept)

    def draw(self, rng: random.Random) -> list[str]:
        """`num` sentences told otherwise, the same as they are, and their contradictions, sentence by sentence."""
        settings = self.settings
        plain = [self._one(sentence, rng) for sentence in rng.sample(self._kept, settings.num)]
        told = [meaning.reword(sentence, rng) for sentence in plain]
        against = [meaning.contradict(sentence, rng) for sentence in plain for _ in range(settings.contradictions)]
        return [*told, *plain, *against]

    def _one(self, sentence: str, rng: random.Random) -> str:
        if rng.random() >= self.settings.joined:
            return sentence
        return f"{sentence.rstrip('.')}; {rng.choice(self._kept)}"


class Contrasted:
    """Rows with sentences beside each: `told` Int[N] and `told_lengths` Int[num (2 + contradictions)].

    Where it is learned, also `asserted` Float[num (1 + contradictions), K]: 1 for each of K names that a sentence, as
    it is, or a contradiction asserts.
    """

    def __init__(
        self, data: mlm.MaskedWords | Lessons, sentences: Sentences, tokenizer: Any, longest: int = MOST_TOKENS
    ) -> None:
        """`tokenizer`: of the encoder that learns. `longest`: most tokens of a sentence; a longer one is cut."""
        self._data, self._sentences, self._tokenizer, self._longest = data, sentences, tokenizer, longest

    def __len__(self) -> int:
        """Rows."""
        return len(self._data)

    def sample(self, index: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Row `index` and sentences, by draws from `rng`."""
        found = self._data.sample(index, rng)
        return found | self.sentences(random.Random(int(torch.randint(2**62, (), generator=rng))))

    def sentences(self, rng: random.Random) -> dict[str, Tensor]:
        """The sentences alone."""
        drawn = self._sentences.draw(rng)
        encoded = self._tokenizer(
            drawn,
            split_special_tokens=True,
            truncation=True,
            max_length=self._longest,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        ids: list[Int[Tensor, " n"]] = [torch.tensor(row) for row in encoded]
        found = {"told": torch.cat(ids), "told_lengths": torch.tensor([len(row) for row in ids])}
        if self._sentences.settings.asserted:
            said = [assertions.asserted(text) for text in drawn[self._sentences.settings.num :]]
            found["asserted"] = torch.tensor([[float(name in names) for name in assertions.NAMES] for names in said])
        return found

    def collate(self, samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Rows end to end, and sentences end to end."""
        return self._data.collate(samples)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    settings: Config,
    data: Contrasted,
    seed: int = 0,
    draws: int = 8,
    head: nn.Module | None = None,
) -> dict[str, float]:
    """Means of what `Config.told_apart` finds over draws of sentences, the same each time."""
    device = next(model.parameters()).device
    sums: dict[str, Float[Tensor, ""]] = {}
    for draw in range(draws):
        batch = {name: value.to(device) for name, value in data.sentences(random.Random(seed + draw)).items()}
        for name, value in settings.told_apart(model, batch, head).items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + value
    return {name: float(value) / draws for name, value in sums.items()}
