"""Generate files: images for prompts, a contact sheet and a table, resumable, each file marked as synthetic."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from medtextdiff.api import shelf
from medtextdiff.api.generator import Generator, check_seed, load_generator
from medtextdiff.config import ConfigError
from medtextdiff.data import images, tables
from medtextdiff.data.atomic import check_place, whole_file
from medtextdiff.data.errors import OutputExists
from medtextdiff.data.generated import SYNTHETIC
from medtextdiff.evaluation.pictures import grid
from medtextdiff.training.disk import write_json
from medtextdiff.types import Picture

Say = Callable[[str], None]

REQUEST, TABLE, SHEET = "request.json", "prompts.csv", "contact_sheet.png"
_DAMAGED = "damaged"
_SHOWN = 64  # images on the sheet


@dataclass(frozen=True)
class Made:
    """One line of prompts.csv."""

    file: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class GenerateReport:
    """What became of a request: images that were there already, and images made now."""

    found: int
    made: int
    table: Path


def generate(prompts: str | Sequence[str], *, model: str | Path, **options: Any) -> Any:
    """One image in [0, 1] for each prompt, [B, 3, H, W]; `options` are those of `Generator.generate`.

    For many requests load the model once.
    """
    return load_generator(shelf.find(model, "generate"), str(model)).generate(prompts, **options)


def generate_files(
    prompts: Sequence[str],
    *,
    model: str | Path,
    out: Path,
    table: Path | None = None,
    column: str = "prompt",
    num: int = 1,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: str | None = None,
    batch_size: int = 4,
    device: str = "auto",
    precision: str = "auto",
    base: str | Path | None = None,
    prior_base: str | Path | None = None,
    overwrite: bool = False,
    progress: Say = lambda line: None,
) -> GenerateReport:
    """Write `num` images for each prompt into `out`, with `prompts.csv` and `contact_sheet.png`.

    Image k of the request has the seed `seed` + k and the name of its number. What an earlier start of the same request
    left is not made again; where it is stopped, what was made stays, in the table too. `base` and `prior_base` say
    where the base of an adapter lies now, if not where it was trained.

    Raises:
        ConfigError, DataError: a bad model, prompt, table or setting, or `out` holds another request: nothing was
            written. ConfigError also where memory does not suffice: what was made stays.
    """
    if num < 1:
        raise ConfigError(f"-n {num} asks for no image; give at least 1 for each prompt")
    if batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size} is too small; give 1 or more")
    placed = _prompts(prompts, table, column)
    check_place(out)
    check_seed(seed, len(placed) * num)
    where: dict[str, Any] = {"device": device, "precision": precision, "base": base, "prior_base": prior_base}
    loaded = load_generator(shelf.find(model, "generate"), str(model), **where)
    settings = loaded.settings(steps=steps, guidance=guidance, sampler=sampler)
    loaded.check_prompts(placed)
    wanted = [text for _, text in placed for _ in range(num)]
    request = [Made(_name(k), text, seed + k) for k, text in enumerate(wanted)]
    return _fulfil(loaded, settings, request, out, num, batch_size, overwrite, progress)


def _prompts(prompts: Sequence[str], table: Path | None, column: str) -> list[tuple[str, str]]:
    if table is not None and prompts:
        raise ConfigError("give prompts or --prompts, not both")
    if table is not None:
        rows = tables.read_table(table, [column], option="--column")
        return [(f"{table} line {row.number}", row.cells[column]) for row in rows]
    if not prompts:
        raise ConfigError("there is no prompt; give one or more, or a table of them with --prompts")
    return [(f"prompt {number}", text) for number, text in enumerate(prompts, 1)]


def _fulfil(
    loaded: Generator,
    settings: Any,
    request: Sequence[Made],
    out: Path,
    num: int,
    batch_size: int,
    overwrite: bool,
    progress: Say,
) -> GenerateReport:
    about = _about(loaded, settings)
    there = _begin(out, about, request, overwrite)
    missing = [line for line in request if line.file not in there]
    made = 0
    try:
        prompts, seeds = [line.prompt for line in missing], [line.seed for line in missing]
        waiting = iter(missing)
        for batch in loaded.batches(prompts, seeds, settings, batch_size):
            for pixels, line in zip(batch.permute(0, 2, 3, 1).numpy(), waiting, strict=False):
                _write(out / line.file, pixels, about | {"Seed": str(line.seed)}, overwrite)
                made += 1
            progress(f"{len(there) + made}/{len(request)}")
    finally:  # also when a person stops it: what is done is told
        done = [line for line in request if (out / line.file).is_file()]
        if done:
            _write_table(out / TABLE, done, loaded, settings)
            _write_sheet(out, done, num, about)
    return GenerateReport(len(there), made, out / TABLE)


def _about(loaded: Generator, settings: Any) -> dict[str, str]:
    """What every image says of itself. Not its prompt, which may speak of a patient."""
    return SYNTHETIC | {
        "Model": Path(loaded.name).name,
        "Model-SHA256": loaded.sha256,
        "Sampler": settings.sampler,
        "Steps": str(settings.steps),
        "Guidance": f"{settings.guidance:g}",
    }


def _begin(out: Path, about: dict[str, str], request: Sequence[Made], overwrite: bool) -> set[str]:
    """Note down what is asked for, and give the files that are there already.

    Raises:
        OutputExists: `out` holds another request, or files that no request explains; or its request.json is damaged.
    """
    text = json.dumps([[line.file, line.prompt, line.seed] for line in request])
    asked = about | {"images": len(request), "request": hashlib.sha256(text.encode()).hexdigest()}
    path = out / REQUEST
    there = {line.file for line in request if (out / line.file).exists()}
    before = _read_request(path)
    if before == _DAMAGED:
        raise OutputExists(
            f"{path} is damaged, so what the images beside it were made of is unknown; give another -o, or delete {out}"
        )
    if not overwrite:
        if before is None and (there or (out / TABLE).exists() or (out / SHEET).exists()):
            raise OutputExists(f"{out} holds images already, of no request known; give another -o, or --overwrite")
        if before not in (None, asked):
            raise OutputExists(
                f"{out} holds images of another request (other prompts, model, seed or settings); give another -o to "
                "keep them, or --overwrite"
            )
    out.mkdir(parents=True, exist_ok=True)
    if overwrite:  # an image of the old request must not stay beside those of the new one
        for name in {*there, *_files_of(before, out), TABLE, SHEET}:
            (out / name).unlink(missing_ok=True)
        there = set()
    write_json(path, asked)
    return there


def _name(k: int) -> str:
    return f"{k:06d}.png"


def _files_of(asked: Any, out: Path) -> list[str]:
    """The images in `out` that a request.json speaks of; none where it names no number."""
    num = asked.get("images") if isinstance(asked, dict) else None
    there = [path.name for path in out.glob("*.png") if path.stem.isdecimal() and path.name == _name(int(path.stem))]
    return [name for name in there if int(name.removesuffix(".png")) < num] if isinstance(num, int) else []


def _read_request(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OSError):
        return _DAMAGED


def _write(path: Path, pixels: Float[np.ndarray, "H W 3"], about: dict[str, str], overwrite: bool) -> None:
    images.write_picture(path, Picture(pixels, header={"text": about}), overwrite)


def _write_table(path: Path, done: Sequence[Made], loaded: Generator, settings: Any) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["file", "prompt", "seed", "model", "model_sha256", "sampler", "steps", "guidance"])
    shared = [Path(loaded.name).name, loaded.sha256, settings.sampler, settings.steps, f"{settings.guidance:g}"]
    writer.writerows([line.file, line.prompt, line.seed, *shared] for line in done)
    with whole_file(path, overwrite=True) as file:
        file.write(buffer.getvalue().encode("utf-8"))


def _write_sheet(out: Path, done: Sequence[Made], num: int, about: dict[str, str]) -> None:
    """The first images in rows: a prompt's own where there are several of each, else eight."""
    shown = [images.read(out / line.file).pixels for line in done[:_SHOWN]]
    shown = [np.broadcast_to(pixels, (*pixels.shape[:2], 3)) for pixels in shown]  # a grey one is read as grey
    columns = num if 1 < num <= 16 else 8
    _write(out / SHEET, grid(shown, columns), about, overwrite=True)
