"""`load`: a shipped model or a run, whatever it is for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medtextdiff.api import model, shelf
from medtextdiff.api.generator import is_generator, load_generator
from medtextdiff.config import ConfigError
from medtextdiff.segmentation import feature_bank
from medtextdiff.segmentation.graphs.description import is_export


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
    options = {"bank": bank, "runtime": runtime, "progress": progress}
    return model.load(name_or_run, device=device, precision=precision, **options)  # type: ignore[arg-type]
