"""`load`: a shipped model, a run or an export, whatever it is for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from medtextdiff.api import exports, shelf
from medtextdiff.api.computing import device_of, digest, precision_of
from medtextdiff.api.generator import is_generator, load_generator
from medtextdiff.api.model import Model
from medtextdiff.config import ConfigError
from medtextdiff.recipes import run_folder, segmentation_run
from medtextdiff.segmentation import feature_bank
from medtextdiff.segmentation.graphs.description import is_export
from medtextdiff.segmentation.graphs.description import read as read_description
from medtextdiff.training.components import load_components


def load(
    name_or_run: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    bank: str | Path | feature_bank.Config | None = None,
    runtime: str = "auto",
    base: str | Path | None = None,
    prior_base: str | Path | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Any:
    """A shipped model by name, a run folder, or a folder of exported graphs, ready to use.

    A segmenter's run gives a `Model`, a generator's a `Generator`.

    Args:
        name_or_run: `medtextdiff models` lists the names.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
        precision: "float32", "bf16", or "auto": bf16 where the device computes in it.
        bank: of a segmenter: a folder that keeps the denoiser's levels, so that no view of an image is encoded twice.
        runtime: "torch", "onnx" or "openvino"; "auto" is torch, or what a folder was exported to. A segmenter asked for
            in another runtime than torch is exported first, once, into the user's cache folder (docs/export.md).
        base, prior_base: of an adapter's run: where its base lies now, if not where it was trained.
        progress: told what such an export does.

    Raises:
        ConfigError: no such model, or settings that cannot be; RunError: a file is missing or was tampered with.
    """
    folder = shelf.find(name_or_run)
    if not is_export(folder) and is_generator(folder):
        if bank is not None or runtime not in ("auto", "torch"):
            raise ConfigError(f"{name_or_run} is a generator: it has no bank, and torch alone runs it")
        where: dict[str, Any] = {"device": device, "precision": precision, "base": base, "prior_base": prior_base}
        return load_generator(folder, str(name_or_run), **where)
    if base is not None or prior_base is not None:
        raise ConfigError(f"{name_or_run} is no generator: it has no base")
    return load_segmenter(
        name_or_run, device=device, precision=precision, bank=bank, runtime=runtime, progress=progress
    )


def load_segmenter(
    name_or_run: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    bank: str | Path | feature_bank.Config | None = None,
    runtime: str = "auto",
    progress: Callable[[str], None] = lambda line: None,
) -> Model:
    """As `load`, where nothing but a segmenter will do.

    Raises:
        ConfigError, RunError: as `load`, or a run that cannot segment.
    """
    folder = shelf.find(name_or_run)
    if bank is not None and (is_export(folder) or runtime not in ("auto", exports.TORCH)):
        raise ConfigError("exported graphs keep no levels in a bank; leave --bank out, or use --runtime torch")
    if is_export(folder):
        return _load_export(folder, str(name_or_run), device, precision, runtime)
    if runtime in ("auto", exports.TORCH):
        return _load_run(folder, str(name_or_run), device_of(device), precision, bank)
    sha256 = digest(run_folder.check(folder))
    place = exports.cache_place(sha256, runtime)
    if not place.exists():
        progress(f"exporting {name_or_run} to {runtime}, once; it is kept in {place}")
        source = _load_run(folder, str(name_or_run), torch.device("cpu"), "float32")
        exports.write(
            source.segmenter, folder, name=folder.name, sha256=sha256, to=runtime, out=place, progress=progress
        )
    return _load_export(place, str(name_or_run), device, precision, runtime)


def _load_run(
    folder: Path,
    name: str,
    where: torch.device,
    precision: str,
    bank: str | Path | feature_bank.Config | None = None,
) -> Model:
    hashes = run_folder.check(folder)
    run = _segmentation_run(folder, name)
    segmenter = run.build_model(folder)
    load_components(segmenter, folder, built=run_folder.own_parts(run.model))
    segmenter = segmenter.eval().to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    computed_in = precision_of(precision, where)
    denoiser = getattr(segmenter, "denoiser", None)
    if computed_in == "bf16" and denoiser is not None and not any(w.requires_grad for w in denoiser.parameters()):
        denoiser.to(torch.bfloat16)  # autocast would cast frozen weights anew for every image: 2.2 GB for the ADM
    if bank is not None:
        _attach(segmenter, bank, name)
    return Model(name, run, segmenter, where, computed_in, digest(hashes))


def _attach(segmenter: Any, bank: str | Path | feature_bank.Config, name: str) -> None:
    if not hasattr(segmenter, "keep_levels"):
        raise ConfigError(f"{name} has no denoiser, so it has no levels to keep; leave out the bank")
    settings = bank if isinstance(bank, feature_bank.Config) else feature_bank.Config(folder=str(bank))
    segmenter.requires_grad_(False)  # in use nothing is trained, whatever was in training
    segmenter.keep_levels(settings.build())


def _load_export(folder: Path, name: str, device: str, precision: str, runtime: str) -> Model:
    own = read_description(folder).runtime
    if runtime not in ("auto", own):
        raise ConfigError(f"{folder} holds graphs for {own}, not for {runtime}; leave --runtime out, or give the run")
    if device not in ("auto", "cpu"):
        raise ConfigError(f"exported graphs run on the CPU, not on '{device}'; leave --device out, or --runtime torch")
    cpu, offered = torch.device("cpu"), exports.precisions(own)
    chosen: str = precision_of(precision, cpu)
    if precision == "auto" and chosen not in offered:
        chosen = offered[0]
    segmenter, about = exports.open_folder(folder, chosen)
    return Model(name, _segmentation_run(folder, name), segmenter, cpu, chosen, about.model_sha256, own)


def _segmentation_run(folder: Path, name: str) -> segmentation_run.Run:
    run = run_folder.read_config(folder)
    if not isinstance(run, segmentation_run.Run):
        raise ConfigError(
            f"{name} is no segmentation run but a {run.kind()}; it cannot segment (a generator: use generate)"
        )
    return run
