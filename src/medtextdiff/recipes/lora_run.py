"""The run of an adapter: a large base, what its adapter learns from, and how the whole is used afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import SerializeAsAny
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.recipes.job import Job
from medtextdiff.recipes.run_folder import locate, locate_model
from medtextdiff.recipes.synthesis_data import Data, also_read, hashes, whole_images
from medtextdiff.synthesis import encoded, memory, tuned
from medtextdiff.synthesis.limits import check_use
from medtextdiff.synthesis.models import flux
from medtextdiff.training import engine, randomness, stream
from medtextdiff.training.progress import say

_DRAWS = 4  # of noise and time for each held-out image


class Run(config.Config):
    """An adapter's experiment: everything that decides its weights, and how `generate` uses them.

    cache: where images and prompts lie as the base's encoders give them; null: in memory.
    """

    model: SerializeAsAny[config.Config] = flux.Config()
    data: Data = Data(size=512)
    cache: str | None = "./encoded"
    training: engine.Config = engine.Config(monitor="heldout_loss", monitor_mode="min", channels_last=False)
    use: tuned.Use = tuned.Use(sampler="euler")

    def build_model(self, run_dir: Path | None = None) -> nn.Module:
        """The system, ready to generate: base networks with their adapters; paths within the run are in `run_dir`.

        Raises:
            ConfigError: a base that is not there or another than the adapter's, or `model` is a part of another kind.
        """
        system = self._closed(run_dir)
        system.open(trainable=False)
        return system

    def job(self) -> Job:
        """Build it; the base's weights are read only when what encodes images and prompts has left memory.

        Raises:
            ConfigError, DataError: no data, no prompts, or a base that lacks a component.
        """
        records = self.data.training()
        if not any(note for record in records for note in (record.note, *record.other_notes)):
            raise ConfigError(f"no image of {self.data.root} has a prompt; add notes.csv with the columns image, note")
        heldout = self.data.heldout() if self.data.val_split is not None else []
        system = self._closed(None)
        if self.data.size % system.multiple:
            raise ConfigError(f"data.size {self.data.size} is no multiple of {system.multiple}; choose a multiple")
        use = self.use
        check_use(system, sampler=use.sampler, steps=use.steps, guidance=use.guidance)
        data, shown = encoded.Encoded(records), encoded.Encoded(heldout)
        also = also_read(records, heldout)

        def prepare(run_dir: Path, device: str) -> None:
            part = self.training.batch_size // self.training.accumulation
            memory.check(system.need(part, self.data.size, self.training.ema_decay is not None), device)
            for some in (data, shown):
                if some.records:
                    self._fill(system, some, run_dir, device)
            system.forget_encoders()
            torch.manual_seed(self.training.seed)  # the adapter's new weights
            system.open(only=[system.trained, *_others(system)])
            also["what encodes images and prompts"] = _encoders_key(system)
            also[f"base of the {system.trained}"] = getattr(system, system.trained).base["weights_sha256"]

        return Job(
            system,
            tuned.loss,
            data,
            validate=_Validation(shown, self.training.seed) if heldout else None,
            data_hashes=hashes(records),
            prepare=prepare,
            kept=tuple(_others(system)),
            also_read=also,
            scores=("heldout_loss",),
        )

    def _closed(self, run_dir: Path | None) -> tuned.Tuned:
        if not hasattr(self.model, "gradient_checkpointing"):
            raise ConfigError(f"a '{self.model.kind()}' has no adapter; `model` takes flux, kandinsky22 or kandinsky3")
        system: tuned.Tuned = locate_model(self.model, run_dir).build()  # type: ignore[attr-defined]
        return system

    def _fill(self, system: tuned.Tuned, data: encoded.Encoded, run_dir: Path, device: str) -> None:
        """Encode images and prompts, or find them where an earlier start left them."""
        records = data.records

        def images() -> encoded.Arrays:
            say(f"encoding {len(records)} images")
            return encoded.images(
                lambda batch: system.encode_images(batch, device), whole_images(records, self.data.size)
            )

        def prompts() -> encoded.Arrays:
            _tell_of_cuts(system, data.distinct())
            return encoded.prompts(lambda part: system.read(part, device), data.distinct())

        data.images = self._kept(system, run_dir, [*hashes(records).values(), str(self.data.size)], images)
        system.forget_encoders()
        if system.reads_prompts:
            read = [str(system.text.limit), *data.distinct()]
            data.prompts = self._kept(system, run_dir, read, prompts)
            system.forget_encoders()

    def _kept(self, system: tuned.Tuned, run_dir: Path, given: Sequence[str], make: Any) -> encoded.Arrays:
        if self.cache is None:
            return make()
        place = Path(locate(self, run_dir).cache or "")
        return encoded.kept(place, encoded.key([_encoders_key(system), *given]), make)


class _Validation:
    """The loss on held-out images, at the same noise and times whenever it is asked for."""

    def __init__(self, heldout: encoded.Encoded, seed: int) -> None:
        self._heldout, self._seed = heldout, seed

    def __call__(self, model: Any) -> dict[str, float]:
        rng = randomness.generator(self._seed, "heldout")
        losses: list[Tensor] = []
        for _ in range(_DRAWS):
            for index in range(len(self._heldout)):
                batch = self._heldout.collate([self._heldout.sample(index, rng)])
                losses.append(model.loss(stream.to_device(batch, model.device), rng)["loss"])
        return {"heldout_loss": float(torch.stack(losses).mean())}


def _encoders_key(system: tuned.Tuned) -> str:
    """What decides the arrays that are learned from: the encoders, and what has no weights, as tokenizers."""
    read = [(base, name) for base in system.bases() for name in base.components if not base.num_bytes(name)]
    read += system.encoders()
    return encoded.key([base.key({name for one, name in read if one is base}) for base in system.bases()])


def _others(system: tuned.Tuned) -> list[str]:
    """Children that do not train but have an adapter, trained before: they go along into the run."""
    names = [name for name, child in system.named_children() if child.settings is not None]
    return [name for name in names if name != system.trained]


def _tell_of_cuts(system: tuned.Tuned, prompts: Sequence[str]) -> None:
    limit = system.text.limit
    cut = sum(length > limit for length in system.text.lengths(prompts))
    if cut:
        say(f"{cut} of {len(prompts)} prompts are longer than {limit} tokens; what follows is not read")
