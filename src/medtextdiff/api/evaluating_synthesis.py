"""Evaluate a generator, or a folder of what it made: quality, adherence, memorisation, utility, cost."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import medtextdiff
from medtextdiff import __version__
from medtextdiff.api import feature_extractors, generating_for_evaluation, image_sets, synthesis_figures
from medtextdiff.api.computing import device_of
from medtextdiff.api.image_sets import ImageSet
from medtextdiff.config import ConfigError, nearest
from medtextdiff.data.atomic import check_place
from medtextdiff.data.errors import DataError
from medtextdiff.data.generated import Generated, read_generated
from medtextdiff.evaluation import synthesis, synthesis_report
from medtextdiff.evaluation.cost import Cost
from medtextdiff.evaluation.report_folder import check_free
from medtextdiff.recipes.run_folder import CONFIG, PRETRAINED
from medtextdiff.types import Record

Say = Callable[[str], None]
PROTOCOLS = ("medvqa2024", "medvqa2025")
_MIN_SIDE, _MAX_SIDE = 16, 1024


@dataclass(frozen=True)
class _Made:
    """What was generated, and what is known of how: the rows of a folder's table, or the run's cost and model."""

    images: ImageSet
    items: list[Generated]
    cost: Cost | None = None
    model: Any = None


def evaluate_synthesis(
    source: str | Path,
    *,
    data: str | Path,
    out: str | Path,
    split: str = "val",
    train_split: str = "train",
    num: int | None = None,
    seeds: Sequence[int] = (0,),
    extractor: str = "denoiser",
    settings: Sequence[str] = (),
    protocol: str | None = None,
    reconstructions: str | Path | None = None,
    size: int | None = None,
    fit: str = "squeeze",
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Say = lambda line: None,
) -> dict[str, str]:
    """Evaluate images made from prompts, and write `report.json`, tables, sheets and `report.html`.

    Args:
        source: a folder of images with `prompts.csv`, or a run, which first generates from prompts of `split`.
        data: the real data set: `train_split` for what was trained on, `split` for what was held out.
        num: how many images a seed a run generates; None: as many as real images of `split`.
        seeds: of a run; several give intervals over seeds. A folder's own seeds count.
        extractor: "denoiser" (ours, ships), "efficientnet_lite0", a folder of a vision model or denoiser, or a
            TorchScript file; `settings` change it, e.g. "size=256".
        protocol: also the figures of a challenge: "medvqa2024" or "medvqa2025".
        reconstructions: a folder of the held-out images as an autoencoder gives them back, under their names.
        size, fit: all images are made squares of `size` (default: the generated images' own) first, by "squeeze" or
            "crop", as the generator's training did.
        options: of `generate`, e.g. {"steps": 25}.

    Returns:
        The main figures of the generated images as text.

    Raises:
        ConfigError, DataError: a source, data set, extractor or option that cannot be used; FileExistsError: `out`.
    """
    out = Path(out)
    _check_options(num, seeds, protocol, size, fit, out, overwrite)
    if split == train_split:
        raise ConfigError(
            f"split and train_split are both '{split}': held-out images are compared with those of training, so they "
            "must be others; name two splits"
        )
    real = image_sets.real_splits(data, split, train_split)
    held_out = real[split]
    extract = feature_extractors.build(extractor, settings)
    if protocol == "medvqa2024":
        synthesis_figures.check_classifies(extract)
    if reconstructions is not None and not Path(reconstructions).is_dir():
        raise ConfigError(f"{reconstructions} is not a folder; give one of the held-out images as they are given back")
    side, make = _source(str(source), held_out, num, seeds, size, fit, dict(options or {}), device, protocol, progress)
    real_sets = {  # before anything is generated: one that cannot be read is told at once
        name: image_sets.of_records(records, side, fit, what=f"split '{name}'", progress=progress)
        for name, records in real.items()
    }
    made = make()
    sets = synthesis_figures.Sets(made.images, held_out=real_sets[split], train=real_sets[train_split])
    sets = _with_reconstructions(sets, reconstructions, made, side, fit)
    figures = synthesis_figures.Figures(sets, extract, seed=int(seeds[0]), device=device_of(device), progress=progress)
    told: dict[str, Any] = {
        "data": data,
        "split": split,
        "train-split": train_split,
        "n": num,
        "seeds": ",".join(map(str, seeds)),
    }
    told |= {"extractor": extractor, "set": list(settings), "protocol": protocol, "reconstructions": reconstructions}
    told |= {"size": size, "fit": fit, **(options or {})}
    meta = _meta(str(source), told, out, sets, extract.about)
    content = _content(f"{Path(source).name} on {Path(data).name} ({split})", meta, figures, made, protocol)
    progress(f"wrote {synthesis_report.write(out, content)}")
    generated = next(row for row in content.quality if row.name == "generated")
    return synthesis_figures.as_text(generated, dict(content.audits))


def _check_options(
    num: int | None,
    seeds: Sequence[int],
    protocol: str | None,
    size: int | None,
    fit: str,
    out: Path,
    overwrite: bool,
) -> None:
    generating_for_evaluation.check_draws(num, seeds)
    if protocol not in (None, *PROTOCOLS):
        raise ConfigError(f"no protocol '{protocol}'; {nearest(str(protocol), PROTOCOLS)}")
    if size is not None and not _MIN_SIDE <= size <= _MAX_SIDE:
        raise ConfigError(f"images cannot be compared at {size} pixels; give {_MIN_SIDE} to {_MAX_SIDE}")
    image_sets.check_fit(fit)
    check_free(out, overwrite, synthesis_report.FILES)
    check_place(out)


def _source(
    source: str, records: Sequence[Record], num: int | None, seeds: Sequence[int], size: int | None, fit: str,
    options: dict[str, Any], device: str, protocol: str | None, progress: Say,
) -> tuple[int, Callable[[], _Made]]:  # fmt: skip
    """The side of the images, and what gives them: those of a folder are read here, a run generates when asked."""
    folder = Path(source)
    if folder.is_dir() and not (folder / CONFIG).is_file():
        if num is not None or options:
            raise ConfigError(f"{folder} holds images that are made already: leave out -n and the sampling options")
        items = read_generated(folder)
        if protocol == "medvqa2025":
            synthesis_figures.check_pairs(items)
        there = _Made(image_sets.of_generated(items, size, fit), items)
        if len(items) < synthesis.MIN_IMAGES:
            raise DataError(f"{source} has {len(items)} images; fewer than {synthesis.MIN_IMAGES} cannot be compared")
        return there.images.pixels.shape[1], lambda: there
    if size is not None:
        raise ConfigError(
            f"--size is of a folder of images, and {source} makes them at its own size: leave it out, or "
            "generate them first"
        )
    if protocol == "medvqa2025":
        synthesis_figures.check_pairs([])
    model = _load(source, device)
    generating_for_evaluation.check_generator(model, source)
    prompts = generating_for_evaluation.draw_prompts(model, records, num or len(records), int(seeds[0]), progress)

    def generated() -> _Made:
        images = generating_for_evaluation.generate_sets(model, source, prompts, seeds, options, progress)
        run = folder if folder.is_dir() else PRETRAINED / source
        return _Made(images, [], generating_for_evaluation.cost_of(model, run, prompts, options), model)

    return model.size[0], generated


def _load(source: str, device: str) -> Any:
    return medtextdiff.load(source, device=device)


def _with_reconstructions(
    sets: synthesis_figures.Sets, folder: str | Path | None, made: _Made, side: int, fit: str
) -> synthesis_figures.Sets:
    """From a folder; or, where a run has an autoencoder, from it."""
    if folder is not None:
        return sets.with_reconstructions(image_sets.of_reconstructions(Path(folder), sets.held_out, side, fit))
    again = generating_for_evaluation.reconstructed(made.model, sets.held_out)
    return sets if again is None else sets.with_reconstructions(again)


def _content(
    title: str, meta: dict[str, Any], figures: synthesis_figures.Figures, made: _Made, protocol: str | None
) -> synthesis_report.Content:
    challenge, says = figures.challenge_figures(protocol, made.items)
    quality = figures.quality_rows()
    groups, attributes = figures.adherence_lines()
    learned, over = figures.utility_lines()
    audits = figures.audits()
    return synthesis_report.Content(
        title=title,
        meta=meta,
        quality=quality,
        audits=audits,
        real=list(figures.sets.held_out.pixels[:16]),
        generated=list(figures.sets.generated.pixels[:32]),
        pairs=figures.closest_pairs(audits["pixels"]),
        per_image=figures.per_image(audits),
        groups=groups,
        attributes=attributes,
        utility=learned,
        utility_attributes=over,
        cost=made.cost,
        challenge=challenge,
        challenge_says=says,
        remarks=figures.remarks,
    )


def _meta(
    source: str, told: Mapping[str, Any], out: Path, sets: synthesis_figures.Sets, about: Mapping[str, str]
) -> dict[str, Any]:
    side = sets.held_out.pixels.shape[1]
    return {
        "command": _command(source, told, out),
        "source": source,
        "model": sets.generated.model,
        "data": str(told["data"]),
        **about,
        "images compared at": f"{side} x {side} px, {told['fit']}",
        "generated images": len(sets.generated),
        "held-out real images": len(sets.held_out),
        "real training images": len(sets.train),
        "seeds of the images": f"{min(sets.generated.seeds)} to {max(sets.generated.seeds)}",
        "repetitions with other seeds": len(set(sets.generated.rounds)),
        "seed of draws and classifiers": told["seeds"].partition(",")[0],
        "medtextdiff": __version__,
        "torch": torch.__version__,
    }


def _command(source: str, told: Mapping[str, Any], out: Path) -> str:
    words = ["medtextdiff", "evaluate-synthesis", source]
    for name, value in told.items():
        flag = "-n" if name == "n" else f"--{name}"
        for one in value if isinstance(value, list) else [value]:
            words += [] if one is None else [flag, str(one)]
    return shlex.join([*words, "-o", str(out)])
