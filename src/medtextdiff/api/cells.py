"""One cell of the controlled comparison: a data set, an encoder and a seed; trained, scored, and kept."""

import json
import shutil
import statistics
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from medtextdiff.api.loading import load_segmenter
from medtextdiff.api.scored import read_pair, records_of
from medtextdiff.api.training import train
from medtextdiff.config import Config, ConfigError, completed, to_json
from medtextdiff.evaluation.segmentation import FOREGROUND, score_image
from medtextdiff.recipes import segmentation_run
from medtextdiff.recipes.run_folder import locate
from medtextdiff.training.device import mixed
from medtextdiff.training.disk import sha256, write_json

SCORES = "scores.json"
_TIMED_NOTES = 24


class Cell(NamedTuple):
    """What a cell is made of; `folder` is its own. `run` and `data_hash` decide its weights, the rest the scores."""

    set: str
    encoder: str
    seed: int
    data: Path
    run: segmentation_run.Run
    folder: Path
    split: str
    precision: str
    data_hash: str

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.set}, {self.encoder}, seed {self.seed}"


def finished(cell: Cell) -> dict[str, Any] | None:
    """The scores of a cell that was finished, or None.

    Raises:
        ConfigError: they were made with other settings, data or another encoder, or are damaged.
    """
    path = cell.folder / SCORES
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        before = {"data": cell.data_hash} | kept["made_with"]  # older ones do not tell their data
        same = before | {"run": completed(before["run"])} == made_with(cell)
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} is damaged; delete the folder {cell.folder}, and the cell is run again") from None
    if not same:
        raise ConfigError(
            f"{cell.folder} was made with other settings or another encoder, of other images, masks or notes, or "
            "scored otherwise; choose another -o, or delete that folder"
        )
    return kept


def made_with(cell: Cell) -> dict[str, Any]:
    """What a finished cell must agree with to count: the run, the data, the encoder's weights, how it was scored."""
    run = to_json(cell.run.replace(bank=None))
    scored = {"split": cell.split, "precision": cell.precision, "data": cell.data_hash}
    return {"run": run, "encoder": _digest(cell.run.model.text), **scored}  # type: ignore[attr-defined]


def run_cell(cell: Cell, *, device: str) -> dict[str, Any]:
    """Train and score a cell, and keep `scores.json` beside its run; an unfinished training is resumed.

    Gives {"dice": {record id: value}, "training_s" (None where a training was resumed), "made_with"}.

    Raises:
        What training, loading and scoring raise; nothing but the cell's own folder is touched.
    """
    run_dir = cell.folder / "run"
    if (run_dir / "manifest.json").is_file():
        shutil.rmtree(run_dir)  # trained, but stopped before its scores were kept: its time is not known
    resumed = run_dir.exists()
    started = time.perf_counter()
    train(cell.run, out=run_dir, device=device)
    seconds = None if resumed else time.perf_counter() - started
    dice = _score(cell, run_dir, device)
    shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
    scores = {"dice": dice, "training_s": seconds, "made_with": made_with(cell)}
    write_json(cell.folder / SCORES, scores)
    return scores


def note_milliseconds(encoder: Config | None, notes: Sequence[str]) -> float | None:
    """The median time that an encoder takes for one note it has not seen, alone, on the CPU; None without encoder."""
    distinct = sorted({note for note in notes if note.strip()})[:_TIMED_NOTES]
    if encoder is None or not distinct:
        return None
    cold = {"cache_size": 0} if "cache_size" in type(encoder).model_fields else {}
    built = locate(encoder.replace(**cold)).build()  # type: ignore[attr-defined]
    times = []
    with torch.no_grad():
        for note in [distinct[0], *distinct]:  # the first call warms up
            started = time.perf_counter()
            built([note])
            times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[1:])


def fill_views(run: segmentation_run.Run, device: str) -> None:
    """Keep the levels of every training view in the run's bank, so that no cell pays for it.

    A view is found by drawing: with a few draws too many for the number of views there are.

    Raises:
        ConfigError: a denoiser that is trained; DataError: data that do not fit.
    """
    job = run.replace(model=run.model.replace(text=None)).job()
    if job.settle is None or run.bank is None:
        raise ConfigError(
            "a comparison stands on one frozen denoiser and its bank; leave model.denoiser.trainable=false"
        )
    job.settle(Path(run.bank.folder))
    where = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))
    lower = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(mixed(run.training.precision, where.type == "cuda"))
    model: Any = job.model.to(where).eval()
    draws = 6 * (run.data.augmentation.num_views or 4)
    with torch.no_grad(), torch.autocast(where.type, dtype=lower, enabled=lower is not None):
        for index in range(len(job.data)):
            seen: set[bytes] = set()
            for draw in range(draws):
                image = job.data.sample(index, torch.Generator().manual_seed(draw)).image
                digest = image.numpy().tobytes()
                if digest not in seen:
                    seen.add(digest)
                    model.encode(image[None].to(where))


def _score(cell: Cell, run_dir: Path, device: str) -> dict[str, float]:
    model = load_segmenter(run_dir, device=device, precision=cell.precision, bank=cell.run.bank)
    dice = {}
    for record in records_of(model, cell.data, cell.split):
        pixels, truth = read_pair(model, record)
        found = model.segment(pixels, record.note).mask
        dice[record.id] = score_image(found, truth, model.num_classes, distances=False)[FOREGROUND]["dice"]
    return dice


def _digest(encoder: Config | None) -> dict[str, str]:
    """SHA-256 of the files of an encoder that lies in a folder."""
    path = getattr(locate(encoder), "path", None) if encoder is not None else None
    folder = Path(path).expanduser() if path is not None else None
    if folder is None or not folder.is_dir():
        return {}
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".json", ".txt"))
    return {file.name: _hash(file, file.stat().st_mtime_ns) for file in files}


@lru_cache
def _hash(file: Path, _changed: int) -> str:
    """Every cell asks again, and weights may be a gigabyte."""
    return sha256(file)
