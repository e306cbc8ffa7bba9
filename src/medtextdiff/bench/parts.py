"""The tables: what is measured, and the ways side by side. Each function gives the rows of one table."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medtextdiff import api
from medtextdiff.api import exports
from medtextdiff.bench import published_path
from medtextdiff.bench.measure import Row, Way, once, relative_error, side_by_side
from medtextdiff.bench.models import Bed
from medtextdiff.bench.synthesis_parts import generation
from medtextdiff.bench.text_parts import encoders, notes
from medtextdiff.config import ConfigError
from medtextdiff.diffusion import denoiser as denoiser_part
from medtextdiff.recipes import run_folder
from medtextdiff.segmentation import feature_bank, features
from medtextdiff.segmentation.heads import pyramid

Table = list[Row]
_MODEL = "nuclei-small"  # that ships


def backbone(bed: Bed, runs: int) -> tuple[Table, dict[str, float]]:
    """Levels of one image, for both sets of taps; and how far bf16 is from float32."""
    rows, errors = [], {}
    for name in ("monuseg", "qata"):
        extract = bed.features(name)

        def published(extract: Any = extract) -> Any:
            return published_path.levels(extract, bed.denoiser, bed.images)

        def exact(extract: Any = extract) -> Any:
            with torch.no_grad():
                return extract(bed.denoiser, bed.images)

        def fast(extract: Any = extract) -> Any:
            with torch.no_grad(), _precision(bed):
                return extract(bed.fast_denoiser, _last(bed.images))

        expected = published()
        errors[f"levels {name}, ours float32"] = relative_error(exact(), expected)
        errors[f"levels {name}, ours {_name(bed)}"] = relative_error(fast(), expected)
        ways = [
            Way(f"{name}: published path", published),
            Way(f"{name}: ours, float32", exact),
            Way(f"{name}: ours, {_name(bed)}", fast, _name(bed)),
        ]
        rows += side_by_side(ways, runs, bed.device)
    return rows, errors


def head(bed: Bed, runs: int) -> tuple[Table, dict[str, float]]:
    """The published head, forward, and forward with backward."""
    rows, errors = [], {}
    for name in ("monuseg", "qata"):
        module, levels = bed.head(name), bed.levels(name)
        short = [level.to(_dtype(bed)) for level in levels]
        plain, ours, fast = _head_ways(bed, module, levels, short)
        with torch.no_grad():
            expected = plain()
            errors[f"logits {name}, ours float32"] = relative_error(ours(), expected)
            errors[f"logits {name}, ours {_name(bed)}"] = relative_error(fast(), expected)
        for what, wrap in (("forward", _forward), ("forward and backward", _backward)):
            ways = [
                Way(f"{name} {what}: published path", wrap(plain, module)),
                Way(f"{name} {what}: ours, float32", wrap(ours, module)),
                Way(f"{name} {what}: ours, {_name(bed)}", wrap(fast, module), _name(bed)),
            ]
            rows += side_by_side(ways, runs, bed.device)
    return rows, errors


def prediction(bed: Bed, runs: int) -> tuple[Table, dict[str, float]]:
    """From the image to the logits, and again after only the note was edited (MoNuSeg's settings)."""
    extract, module = bed.features("monuseg"), bed.head("monuseg")

    def published() -> Tensor:
        with torch.no_grad():
            levels = published_path.levels(extract, bed.denoiser, bed.images)
            return published_path.head(module, levels, bed.text.tokens, bed.size)

    def fast() -> Tensor:
        with torch.no_grad(), _precision(bed):
            return module(extract(bed.fast_denoiser, _last(bed.images)), bed.text, bed.box, bed.size)

    with torch.no_grad(), _precision(bed):
        kept = extract(bed.fast_denoiser, _last(bed.images))

    def edited() -> Tensor:
        with torch.no_grad(), _precision(bed):
            return module(kept, bed.note(9), bed.box, bed.size)

    error = relative_error(fast(), published())
    ways = [
        Way("published path, image or note", published),
        Way(f"ours, from the image, {_name(bed)}", fast, _name(bed)),
        Way(f"ours, after editing the note, {_name(bed)}", edited, _name(bed)),
    ]
    return side_by_side(ways, runs, bed.device), {f"logits from the image, {_name(bed)}": error}


def epoch(bed: Bed, runs: int) -> tuple[Table, dict[str, float]]:
    """What one image costs in an epoch of training the published head (MoNuSeg's settings), its levels banked."""
    extract, module = bed.features("monuseg"), bed.head("monuseg")
    with tempfile.TemporaryDirectory() as folder:
        bank = feature_bank.Config(folder=folder, budget_gb=1.0).build()

        def published() -> None:
            levels = published_path.levels(extract, bed.denoiser, bed.images)
            _backward(lambda: published_path.head(module, levels, bed.text.tokens, bed.size), module)()

        def banked() -> None:
            with _precision(bed):
                levels = bank.levels(extract, bed.fast_denoiser, _last(bed.images))
            _backward(_run(bed, module, levels), module)()

        banked()  # fills it
        ways = [Way("published path", published), Way(f"ours, banked, {_name(bed)}", banked, _name(bed))]
        return side_by_side(ways, runs, bed.device), {}


def bank(bed: Bed, runs: int, num: int = 1000) -> tuple[Table, dict[str, float]]:
    """Images banked with the denoiser that ships, and a head trained on all of them once, a tenth first: mind how time
    and memory grow."""
    denoiser = denoiser_part.Config(path=str(run_folder.PRETRAINED / "ddpm-small" / "denoiser")).build()
    denoiser = denoiser.to(bed.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    extract = features.Config(taps=(1, 3, 5, 7), timesteps=(30,), noise="none").build()
    head = pyramid.Config(width=64).build(extract.channels(denoiser), extract.strides(denoiser), None, 2)
    head = head.to(bed.device)

    def picture(number: int) -> Tensor:
        return torch.rand(1, 3, bed.side, bed.side, generator=torch.Generator().manual_seed(number)) * 2 - 1

    rows: Table = []
    for count in (num // 10, num):
        with tempfile.TemporaryDirectory() as folder:
            kept = feature_bank.Config(folder=folder).build()

            def levels(number: int, kept: Any = kept) -> Any:
                with _precision(bed):
                    return kept.levels(extract, denoiser, _last(picture(number).to(bed.device)))

            def fill(count: int = count, levels: Any = levels) -> None:
                for number in range(count):
                    levels(number)

            def train(count: int = count, levels: Any = levels) -> None:
                for number in range(count):
                    _backward(_our_logits(bed, head, levels(number)), head)()

            rows += once([Way(f"{count} images banked", fill), Way(f"an epoch on {count} of them", train)], bed.device)
    return rows, {}


def ours(bed: Bed, runs: int) -> tuple[Table, dict[str, float]]:
    """Our head against the exact rewrite of the published one, on the same levels: a training step and a prediction."""
    exact, light = bed.head("monuseg"), bed.our_head("monuseg")
    levels = [level.to(_dtype(bed)) for level in bed.levels("monuseg")]
    rows = []
    for what, wrap in (("prediction", _forward), ("training step", _backward)):
        ways = []
        for name, module in (("exact rewrite", exact), ("our head", light)):
            ways.append(Way(f"{what}: {name}", wrap(_run(bed, module, levels), module), _name(bed)))
        rows += side_by_side(ways, runs, bed.device)
    return rows, {}


def shipped(bed: Bed, runs: int) -> tuple[Table, dict[str, float]]:
    """The model that ships, loaded already: one image of 256 x 256, and one of 1000 x 1000 in tiles.

    On a CPU also by each runtime that is installed, in every precision that it offers.
    """
    rng = np.random.default_rng(0)
    note = "The nuclei density in the upper right is high."
    with tempfile.TemporaryDirectory() as folder:
        models = _runtimes(bed, Path(folder))
        rows: Table = []
        for side, how in ((256, ""), (1000, " in tiles")):
            picture = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            ways = [
                Way(f"{side} x {side}{how}, {name}", lambda m=model, p=picture: m.segment(p, note), model.precision)  # type: ignore[misc]
                for name, model in models.items()
            ]
            rows += side_by_side(ways, runs, bed.device)
    return rows, {}


def _runtimes(bed: Bed, folder: Path) -> dict[str, Any]:
    """nuclei-small, in torch and in what else computes it here, by what to call it."""
    first = api.load(_MODEL, device=str(bed.device))
    models = {f"torch, {first.precision}": first}
    for name in exports.runtimes() if bed.device.type == "cpu" else ():
        try:
            api.export(_MODEL, to=name, out=folder / name)
        except ConfigError:  # its package is not installed
            continue
        for precision in exports.precisions(name):
            if precision != "bf16" or bed.bf16:
                models[f"{name}, {precision}"] = api.load(folder / name, precision=precision)
    return models


def start(bed: Bed, runs: int) -> tuple[Table, dict[str, float]]:
    """From the shell, each in a process of its own: the help, the import, and one image segmented; beside it the
    imports alone of the libraries that it cannot do without."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "made.png"
        pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(picture)
        note = ["--note", "The nuclei density in the upper right is high."]
        segment = ["-m", "medtextdiff", "segment", str(picture), *note, "--overwrite", "-o", folder]
        modernbert = "import torch, transformers.models.modernbert.modeling_modernbert"
        commands = {
            "medtextdiff --help": ["-m", "medtextdiff", "--help"],
            "import medtextdiff": ["-c", "import medtextdiff"],
            "segment, one 256 x 256 image": segment,
            "import torch": ["-c", "import torch"],
            "import torch and transformers' ModernBERT": ["-c", modernbert],
        }
        ways = [Way(name, lambda arguments=arguments: _process(arguments)) for name, arguments in commands.items()]  # type: ignore[misc]
        return side_by_side(ways, runs, bed.device), {}


def scaling(bed: Bed, runs: int) -> tuple[Table, dict[str, float]]:
    """How cost grows: the rewritten head with the note's length and the classes, the shipped model with the size."""
    rows = []
    levels = [level.to(_dtype(bed)) for level in bed.levels("qata")]
    module = bed.head("qata")
    ways = [
        Way(f"head, note of {length} words", _forward(_run(bed, module, levels, length), module), _name(bed))
        for length in (10, 64, 512)
    ]
    for classes in (2, 20):
        other = bed.head("qata", classes)
        ways.append(Way(f"head, {classes} classes", _forward(_run(bed, other, levels), other), _name(bed)))
    rows += side_by_side(ways, runs, bed.device)
    model, rng = api.load(_MODEL, device=str(bed.device)), np.random.default_rng(0)
    pictures = {side: rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (128, 256, 512, 1024)}
    sizes = [
        Way(f"nuclei-small, {side} x {side}", lambda picture=picture: model.segment(picture), model.precision)  # type: ignore[misc]
        for side, picture in pictures.items()
    ]
    return rows + side_by_side(sizes, runs, bed.device), {}


PARTS: dict[str, Callable[[Bed, int], tuple[Table, dict[str, float]]]] = {
    part.__name__: part
    for part in (backbone, head, prediction, epoch, ours, notes, bank, shipped, generation, start, scaling, encoders)
}


def _head_ways(bed: Bed, module: Any, levels: list[Tensor], short: list[Tensor]) -> tuple[Any, Any, Any]:
    def plain() -> Tensor:
        return published_path.head(module, levels, bed.text.tokens, bed.size)

    def ours() -> Tensor:
        return module(levels, bed.text, bed.box, bed.size)

    return plain, ours, _run(bed, module, short)


def _run(bed: Bed, module: Any, levels: list[Tensor], num_words: int | None = None) -> Callable[[], Tensor]:
    text = bed.text if num_words is None else bed.note(num_words)

    def run() -> Tensor:
        with _precision(bed):
            return module(levels, text, bed.box, bed.size)

    return run


def _our_logits(bed: Bed, head: Any, levels: Any) -> Callable[[], Tensor]:
    def logits() -> Tensor:
        with _precision(bed):
            return head(levels, None, bed.box, bed.size)

    return logits


def _forward(run: Callable[[], Tensor], _module: Any) -> Callable[[], Any]:
    def forward() -> Tensor:
        with torch.no_grad():
            return run()

    return forward


def _backward(run: Callable[[], Tensor], module: Any) -> Callable[[], Any]:
    def both() -> None:
        module.zero_grad(set_to_none=True)
        run().float().square().mean().backward()

    return both


def _process(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def _precision(bed: Bed) -> AbstractContextManager[Any]:
    return torch.autocast(bed.device.type, dtype=torch.bfloat16) if bed.bf16 else nullcontext()


def _dtype(bed: Bed) -> torch.dtype:
    return torch.bfloat16 if bed.bf16 else torch.float32


def _name(bed: Bed) -> str:
    return "bf16" if bed.bf16 else "float32"


def _last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
