"""A trained generator, ready to use: `load(...)`, then `generate`."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medtextdiff.api.computing import device_of, digest, precision_of
from medtextdiff.config import ConfigError
from medtextdiff.recipes import lora_run, msdm_run, run_folder
from medtextdiff.synthesis.limits import check_use
from medtextdiff.training.components import load_components

LONGEST = 512  # tokens of a prompt; a longer text is no prompt but a report
_SEEDS = 2**62

Run = msdm_run.Run | lora_run.Run


class Generator:
    """A generator with its settings of use. Made by `load`."""

    def __init__(self, name: str, run: Run, system: Any, device: torch.device, precision: str, sha256: str) -> None:
        self.name, self.run, self.system = name, run, system
        self.device, self.precision, self.sha256 = device, precision, sha256

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of its images: what it was trained at."""
        return (self.run.data.size, self.run.data.size)

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        batch_size: int = 4,
    ) -> Float[Tensor, "B 3 H W"]:
        """One image in [0, 1] for each prompt; image i has the seed `seed` + i, whatever the batch size.

        `steps`, `guidance` and `sampler` depart from what the run says (`run.use`).

        Raises:
            ConfigError: an empty or overlong prompt, a setting that cannot be, or a batch that memory does not hold.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        settings = self.settings(steps=steps, guidance=guidance, sampler=sampler)
        check_seed(seed, len(texts))
        if not texts:
            raise ConfigError("there is no prompt; give at least one")
        self.check_prompts([(f"prompt {number}", text) for number, text in enumerate(texts, 1)])
        seeds = range(seed, seed + len(texts))
        return torch.cat(list(self.batches(texts, list(seeds), settings, batch_size)))

    def batches(
        self, prompts: Sequence[str], seeds: Sequence[int], settings: Any, batch_size: int
    ) -> Iterator[Float[Tensor, "B 3 H W"]]:
        """Images of prompts that were checked, `batch_size` at a time, in order.

        Raises:
            ConfigError: a batch size below 1, or one that memory does not hold.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size {batch_size} is too small; give 1 or more")
        for first in range(0, len(prompts), batch_size):
            part = slice(first, first + batch_size)
            yield self._sample(prompts[part], seeds[part], settings)

    def settings(self, *, steps: int | None = None, guidance: float | None = None, sampler: str | None = None) -> Any:
        """The run's own settings with some changed.

        Raises:
            ConfigError: an unknown sampler (the nearest is offered), or steps or guidance beyond their range.
        """
        use: Any = self.run.use
        asked = {"sampler": sampler, "steps": steps, "guidance": guidance}
        wanted: dict[str, Any] = {name: getattr(use, name) if value is None else value for name, value in asked.items()}
        check_use(self.system, **wanted)
        if sampler not in (None, "ddim") and hasattr(use, "eta"):
            wanted["eta"] = 0.0
        return use.replace(**wanted)

    def check_prompts(self, prompts: Sequence[tuple[str, str]]) -> None:
        """Refuse a prompt that is empty or too long; each comes with where it stands ("prompt 3", "p.csv line 7").

        Raises:
            ConfigError: the first such prompt, by its place, never by its text.
        """
        empty = [place for place, text in prompts if not text.strip()]
        if empty:
            raise ConfigError(f"{empty[0]} is empty; say what the image should show, or leave it out")
        distinct = {prompt: place for place, prompt in reversed(prompts)}
        for (prompt, place), length in zip(distinct.items(), self._lengths(list(distinct)), strict=True):
            if length > self._limit:
                raise ConfigError(
                    f"{place} has {len(prompt.split())} words ({length} tokens); at most {self._limit} tokens are "
                    "read: shorten it"
                )

    def reads(self, prompts: Sequence[str]) -> list[bool]:
        """Which prompts it reads to their end; training cuts the others, `generate` refuses them."""
        return [length <= self._limit for length in self._lengths(prompts)]

    def _lengths(self, prompts: Sequence[str]) -> list[int]:
        text: Any = self.system.text
        return text.lengths(list(prompts)) if hasattr(text, "lengths") else [0] * len(prompts)

    @property
    def _limit(self) -> int:
        return min(LONGEST, getattr(self.system.text, "limit", LONGEST))

    def _sample(self, prompts: Sequence[str], seeds: Sequence[int], settings: Any) -> Tensor:
        try:
            with self._autocast():
                images = self.system.sample(prompts, seeds, self.size, settings).float().cpu()
        except (MemoryError, RuntimeError) as error:  # on a CPU torch has no type of its own for it
            if not (isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)):
                raise
            raise ConfigError(
                f"{len(prompts)} images at once do not fit in the memory of {self.device}; give a smaller batch size "
                "(--batch-size 1). What was made is kept; the same command goes on from there"
            ) from None
        if not torch.isfinite(images).all():
            raise ConfigError(f"{self.name} gave values that are no numbers; try precision float32, or less guidance")
        return images

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16" and not isinstance(self.run, lora_run.Run):  # these cast within
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def is_generator(folder: Path) -> bool:
    """Whether a run folder holds a generator."""
    return isinstance(run_folder.read_config(folder), Run)


def load_generator(
    folder: Path,
    name: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    base: str | Path | None = None,
    prior_base: str | Path | None = None,
) -> Generator:
    """The generator of a run folder; `base` (and `prior_base`) say where an adapter's base lies now.

    Raises:
        ConfigError: no generator, a base other than the adapter's, or settings that cannot be; RunError: a file is
            missing or was tampered with.
    """
    run = run_folder.read_config(folder)
    if not isinstance(run, Run):
        raise ConfigError(
            f"{name} makes no images from prompts; give a run of a synthesis recipe, or a generator that ships"
        )
    run = _on_base(run, name, {"base": base, "prior_base": prior_base})
    where = device_of(device)
    computed_in = precision_of(precision, where)
    if isinstance(run, lora_run.Run):
        if precision not in ("auto", run.model.dtype):  # type: ignore[attr-defined]
            raise ConfigError(
                f"{name} computes in the precision it was trained for, model.dtype={run.model.dtype}; leave out "  # type: ignore[attr-defined]
                "--precision"
            )
        computed_in = run.model.dtype  # type: ignore[attr-defined]
    hashes = run_folder.check(folder)
    system: Any = run.build_model(folder)
    load_components(system, folder, built=run_folder.own_parts(run.model))
    system = system.requires_grad_(False).eval().to(where).to(memory_format=torch.channels_last)
    return Generator(name, run, system, where, computed_in, digest(hashes))


def _on_base(run: Run, name: str, wanted: dict[str, str | Path | None]) -> Run:
    model: Any = run.model
    for field, path in wanted.items():
        if path is not None and not hasattr(model, field):
            word = field.replace("_", "-")
            raise ConfigError(f"{name} stands on no {field.replace('_', ' ')} of another place; leave out --{word}")
        model = model if path is None else model.replace(**{field: str(path)})
    return run.replace(model=model)


def check_seed(seed: int, num: int) -> None:
    """Raise ConfigError unless `num` seeds from `seed` on can be had."""
    if not 0 <= seed <= _SEEDS - num:
        raise ConfigError(f"seed must be from 0 to {_SEEDS - num}, got {seed}")
