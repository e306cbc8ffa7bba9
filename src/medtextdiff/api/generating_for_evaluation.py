"""Images of a run for its evaluation: prompts of the held-out split, some seeds, and what an image costs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from medtextdiff.api.image_sets import ImageSet
from medtextdiff.api.training_time import training_hours
from medtextdiff.config import ConfigError
from medtextdiff.data.errors import DataError
from medtextdiff.evaluation.cost import Cost, measure
from medtextdiff.evaluation.synthesis import MIN_IMAGES
from medtextdiff.types import Record

Say = Callable[[str], None]
_AT_ONCE, _COST_BATCH = 32, 4
_APART = 1_000_000  # seeds of an image between one seed of a report and the next


def check_draws(num: int | None, seeds: Sequence[int]) -> None:
    """Raise ConfigError unless so many images (None: as many as real ones) with these seeds can be compared."""
    if num is not None and num < MIN_IMAGES:
        raise ConfigError(f"-n {num} is too few to compare sets of images; give {MIN_IMAGES} or more")
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ConfigError("give each seed once, as whole numbers from 0, e.g. --seeds 0,1,2")


def draw_prompts(model: Any, records: Sequence[Record], num: int, seed: int, progress: Say) -> list[str]:
    """`num` prompts: one of each image in random order, then a second one, and so on; so they are spread as real ones.

    Those that the model does not read to their end are left out, and told.

    Raises:
        DataError: no image has a prompt.
    """
    rng = np.random.default_rng(seed)
    own = [record.notes for record in records]
    distinct = list(dict.fromkeys(note for notes in own for note in notes))
    read = dict(zip(distinct, model.reads(distinct), strict=True)) if hasattr(model, "reads") else {}
    own = [[note for note in notes if read.get(note, True)] for notes in own]
    lost = sum(not whole for whole in read.values())
    if lost:
        progress(f"{lost} of {len(distinct)} prompts are longer than the model reads, and left out")
    left = [list(rng.permutation(len(notes))) for notes in own]
    if not any(left):
        raise DataError("no image of the split has a prompt; give a data set with prompts")
    chosen: list[str] = []
    while len(chosen) < num:
        before = len(chosen)
        for k in rng.permutation(len(own)):
            if left[k] and len(chosen) < num:
                chosen.append(own[k][left[k].pop()])
        if len(chosen) == before:  # all are used: begin again
            left = [list(rng.permutation(len(notes))) for notes in own]
    return chosen


def generate_sets(
    model: Any, name: str, prompts: Sequence[str], seeds: Sequence[int], options: dict[str, Any], progress: Say
) -> ImageSet:
    """The images of all prompts for each seed, seed after seed.

    Raises:
        ConfigError: a model that cannot generate.
    """
    check_generator(model, name)
    pixels: list[np.ndarray] = []
    for seed in seeds:
        for start in range(0, len(prompts), _AT_ONCE):
            some = list(prompts[start : start + _AT_ONCE])
            # `generate` gives image i of a call the seed + i, so no two images of a report share one.
            images = model.generate(some, seed=seed * _APART + start, **options)
            pixels.append(_as_bytes(images))
            progress(f"generated {start + len(some)}/{len(prompts)} with seed {seed}")
    ids = [f"seed{seed}_{k:05d}" for seed in seeds for k in range(len(prompts))]
    words: list[tuple[str, ...]] = [(prompt,) for _ in seeds for prompt in prompts]
    each = [seed * _APART + k for seed in seeds for k in range(len(prompts))]
    rounds = [k for k, _ in enumerate(seeds) for _ in prompts]
    return ImageSet(ids, np.concatenate(pixels), words, each, rounds, name)


def reconstructed(model: Any, real: ImageSet) -> ImageSet | None:
    """The images as the run's autoencoder gives them back, without noise in the latents; None where it has none."""
    autoencoder = getattr(getattr(model, "system", None), "autoencoder", None)
    if autoencoder is None:
        return None
    device, parts = torch.device(getattr(model, "device", "cpu")), []
    with torch.no_grad():
        for start in range(0, len(real), _AT_ONCE):
            images = real.take(range(start, min(start + _AT_ONCE, len(real)))).tensors().to(device)
            given = autoencoder.decode_raw(autoencoder.raw_moments(images * 2 - 1)[0])
            parts.append(_as_bytes((given + 1) / 2))
    return replace(real, pixels=np.concatenate(parts))


def check_generator(model: Any, name: str) -> None:
    """Raise ConfigError unless the model makes images from prompts."""
    if not hasattr(model, "generate"):
        raise ConfigError(f"{name} makes no images from prompts; give a synthesis run, or a folder of generated images")


def cost_of(model: Any, run: Path, prompts: Sequence[str], options: dict[str, Any]) -> Cost:
    """Of an image in a batch of 4."""
    some = [prompts[k % len(prompts)] for k in range(_COST_BATCH)]
    network = getattr(model, "system", model)
    counted = sum(one.numel() for one in network.parameters()) if hasattr(network, "parameters") else None
    device = torch.device(getattr(model, "device", "cpu"))
    return measure(
        lambda: model.generate(some, seed=0, **options),
        batch=_COST_BATCH,
        device=device,
        parameters=counted,
        training_hours=training_hours(run),
        runs=1,
    )


def _as_bytes(images: Float[Tensor, "B 3 H W"]) -> UInt8[np.ndarray, "B H W 3"]:
    return (255 * images.float().cpu().clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
