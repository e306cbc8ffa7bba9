"""A generator's run: model, data, training, and how it is used afterwards, in one typed config."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.data.generated import SYNTHETIC
from medtextdiff.data.images import write_picture
from medtextdiff.diffusion import sampling
from medtextdiff.evaluation.pictures import grid
from medtextdiff.recipes.job import Job
from medtextdiff.recipes.run_folder import locate, locate_model
from medtextdiff.recipes.synthesis_data import Data, also_read, hashes, whole_images
from medtextdiff.synthesis import latents, reconstructions
from medtextdiff.synthesis.limits import check_use
from medtextdiff.synthesis.models import msdm
from medtextdiff.training import engine, randomness, weights
from medtextdiff.types import Picture, Record

SHEET = "samples.png"
_SHOWN = 16
_DRAWS = 4  # of noise and time for each held-out image


class Run(config.Config):
    """A generator's experiment: everything that decides its weights, and how `generate` uses them.

    views: how many of an image's mirror images are learned from (1: itself alone, 2: and left-right, 4: and top-bottom
    and both); prompts are rewritten. prompts_at_once: at most so many prompts of an image are read together, one after
    the other, where it has several. cache: where the latents are kept; None: in memory. use: how images are sampled.
    """

    model: SerializeAsAny[config.Config] = msdm.Config()
    data: Data = Data()
    views: int = Field(default=1, ge=1, le=len(latents.VIEWS))
    prompts_at_once: int = Field(default=1, ge=1)
    cache: str | None = "./latents"
    training: engine.Config = engine.Config(monitor="heldout_loss", monitor_mode="min")
    use: sampling.Config = sampling.Config()

    def build_model(self, run_dir: Path | None = None) -> nn.Module:
        """The generator with its parts loaded; paths within the run are found under `run_dir`.

        Raises:
            ConfigError: `model` is a part of another kind.
        """
        if not hasattr(self.model, "objective"):
            raise ConfigError(f"a '{self.model.kind()}' is no generator; `model` takes one of synthesis.models")
        return locate_model(self.model, run_dir).build()  # type: ignore[attr-defined]

    def job(self) -> Job:
        """Build it.

        Raises:
            ConfigError, DataError: no data, no prompts, or an autoencoder without its reconstruction report.
        """
        torch.manual_seed(self.training.seed)  # new weights
        records = self.data.training()
        if not any(record.notes for record in records):
            raise ConfigError(f"no image of {self.data.root} has a prompt; add notes.csv with the columns image, note")
        heldout = self.data.heldout() if self.data.val_split is not None else []
        model: Any = self.build_model()
        reconstructions.require_report(model.autoencoder, self.model.autoencoder.path)  # type: ignore[attr-defined]
        if self.data.size % model.multiple:
            raise ConfigError(f"data.size {self.data.size} is no multiple of {model.multiple}; choose a multiple")
        use = self.use
        check_use(model, sampler=use.sampler, steps=use.steps, guidance=use.guidance)
        model.text.eval()  # the loop turns on what is to train
        model.conditioning.measure(model.text, [note for record in records for note in record.notes])
        data, shown = latents.Latents(records, at_once=self.prompts_at_once), latents.Latents(heldout)
        also = also_read(records, heldout)
        also["how latents are made"] = latents.cache_key(model.autoencoder, [], self.data.size, self.views)

        def settle(run_dir: Path) -> None:
            data.moments = self._encoded(model, records, self.views, run_dir)
            if heldout:
                shown.moments = self._encoded(model, heldout, 1, run_dir)

        shipped = self.model.autoencoder.path.startswith("builtin:")  # type: ignore[attr-defined]
        return Job(
            model,
            msdm.loss,
            data,
            validate=_Validation(shown, self.training.seed) if heldout else None,
            data_hashes=hashes(records),
            settle=settle,
            conclude=_Conclusion(heldout if any(record.notes for record in heldout) else records, self),
            kept=() if shipped else ("autoencoder",),
            also_read=also,
            frozen=weights.digests_of_frozen(model),
            scores=("heldout_loss", "heldout_loss_shuffled"),
        )

    def _encoded(
        self, model: Any, records: Sequence[Record], views: int, run_dir: Path
    ) -> tuple[np.ndarray, np.ndarray]:
        def make() -> tuple[np.ndarray, np.ndarray]:
            return latents.encode(model.autoencoder, whole_images(records, self.data.size), views)

        if self.cache is None:
            return make()
        key = latents.cache_key(model.autoencoder, list(hashes(records).values()), self.data.size, views)
        return latents.kept(Path(locate(self, run_dir).cache or ""), key, make)


class _Validation:
    """The loss on held-out images, at the same noise and times whenever it is asked for.

    And the loss with other images' prompts: a model that does not heed its prompts has the same.
    """

    def __init__(self, heldout: latents.Latents, seed: int) -> None:
        self._heldout, self._seed = heldout, seed

    def __call__(self, model: Any) -> dict[str, float]:
        rng, orders = (randomness.generator(self._seed, name) for name in ("heldout", "shuffled"))
        device = next(model.denoiser.parameters()).device
        right: list[Tensor] = []
        shuffled: list[Tensor] = []
        for _ in range(_DRAWS):
            samples = [self._heldout.sample(index, rng) for index in range(len(self._heldout))]
            order = torch.randperm(len(samples), generator=orders).tolist()
            others = [replace(sample, note=samples[k].note) for sample, k in zip(samples, order, strict=True)]
            for first in range(0, len(samples), 16):
                again = rng.clone_state()
                for found, some, draws in ((right, samples, rng), (shuffled, others, again)):
                    batch = self._heldout.collate(some[first : first + 16]).to(device)
                    found.append(model.loss(batch, draws)["loss"] * len(batch.ids))
        num = _DRAWS * len(self._heldout)
        losses = {"heldout_loss": right, "heldout_loss_shuffled": shuffled}
        return {name: float(torch.stack(found).sum()) / num for name, found in losses.items()}


class _Conclusion:
    """A sheet of images from the first distinct prompts, to look at."""

    def __init__(self, records: Sequence[Record], run: Run) -> None:
        self._records, self._run = records, run

    def __call__(self, model: Any, run_dir: Path) -> list[str]:
        notes = [note for record in self._records for note in record.notes]
        prompts = list(dict.fromkeys(notes))[:_SHOWN]
        size = (self._run.data.size, self._run.data.size)
        found: list[np.ndarray] = []
        for first in range(0, len(prompts), 4):
            part = prompts[first : first + 4]
            images = model.sample(part, list(range(first, first + len(part))), size, self._run.use)
            found += list(images.permute(0, 2, 3, 1).cpu().numpy())
        write_picture(run_dir / SHEET, Picture(grid(found, columns=8), header={"text": SYNTHETIC}), overwrite=True)
        return [SHEET]
