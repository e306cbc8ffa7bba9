"""Segment files: one image or a folder, with a note for each, written next to each other whole or not at all."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medtextdiff.api.computing import tell_cuts
from medtextdiff.api.loading import load_segmenter
from medtextdiff.api.model import Image, Model, Result
from medtextdiff.config import ConfigError
from medtextdiff.data import images, tables
from medtextdiff.data.atomic import check_place, refuse_existing, whole_file
from medtextdiff.data.errors import DataError, OutputExists
from medtextdiff.evaluation.result import ResultItem, Shown, result_page
from medtextdiff.training.disk import write_json, writing
from medtextdiff.types import Picture

Say = Callable[[str], None]

_NAME_ALONE, _BARE = 1, 2  # see _agreement: the folders differ; the table tells no folder


@dataclass(frozen=True)
class FileResult:
    """One line of the table. `note` is not kept: it may speak of a patient."""

    image: str
    has_note: bool
    foreground: float  # percent
    confidence: float
    seconds: float
    files: dict[str, str]


@dataclass
class Report:
    """What became of a list of images."""

    results: list[FileResult] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)  # (file, why)

    @property
    def total(self) -> int:
        """Images that were asked for."""
        return len(self.results) + len(self.failures)


def segment(image: Image, note: str = "", *, model: str | Path = "nuclei-small", **options: Any) -> Result:
    """Segment one image; `options` are those of `load`. For many images load the model once."""
    return load_segmenter(model, **options).segment(image, note)


def segment_files(
    inputs: Sequence[Path],
    *,
    model: str | Path,
    out: Path,
    note: str | None = None,
    notes: Path | None = None,
    overlay: bool = False,
    probabilities: bool = False,
    save_logits: Path | None = None,
    page: bool = False,
    mode: str | None = None,
    bank: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    overwrite: bool = False,
    progress: Say = lambda line: None,
) -> Report:
    """Write `NAME_mask.png` for each image into `out`, and what else is asked for, with `result.json` for all.

    `bank`: a folder that keeps the denoiser's levels, so that no view of an image is encoded twice.
    A bad file is listed in the report, and the others go on. Where all are bad, nothing is written.

    Raises:
        ConfigError, DataError: a bad model, option, folder or table: nothing was written.
    """
    if mode not in (None, "resize", "tiles"):
        raise ConfigError(f"no mode '{mode}'; give resize or tiles")
    paths = _paths(inputs)
    words = _notes(paths, note, notes)
    check_place(out)
    _check_logits(save_logits, len(paths))
    names = _names(paths)
    wanted = [kind for kind, on in (("overlay", overlay), ("probability", probabilities)) if on]
    _check_free(out, paths, names, ["mask", *wanted], page, save_logits, overwrite)
    loaded = load_segmenter(model, device=device, precision=precision, bank=bank, runtime=runtime, progress=progress)
    report, items = Report(), []
    try:
        for path, name, text in zip(paths, names, words, strict=True):
            try:
                picture, result = _segment_one(loaded, path, text, mode)
                logits = None
                if save_logits is not None:
                    logits = save_logits, loaded.logits(picture, text, mode=mode)  # type: ignore[arg-type]
                files = _write(out, name, picture, result, wanted, logits, overwrite)
            except (ValueError, OSError, MemoryError) as error:
                report.failures.append((str(path), why(path, error)))
                continue
            report.results.append(
                FileResult(str(path), bool(text.strip()), result.foreground, result.confidence, result.seconds, files)
            )
            items += [_shown(name, picture, result, loaded.name)] if page else []
            if len(paths) > 1:
                progress(f"{report.total}/{len(paths)} {path.name}")
    finally:  # also when a person stops it: what is done is told
        tell_cuts(loaded.segmenter, progress)
        _tell(out, loaded, report, items)
    return report


def _tell(out: Path, model: Model, report: Report, items: list[Shown]) -> None:
    if report.results:  # else nothing is left behind that would stand in the way of the next try
        write_json(out / "result.json", _summary(model, report))
    if items:
        with writing(out / "result.html"):
            result_page(out / "result.html", title="Segmentation", items=items, overwrite=True)


def features(
    image: Path,
    *,
    model: str | Path,
    out: Path,
    bank: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    overwrite: bool = False,
) -> dict[str, tuple[int, ...]]:
    """Write the denoiser's levels of an image as safetensors (`level_0` the coarsest), and give their shapes.

    Raises:
        ConfigError, ImageError, OutputExists.
    """
    from safetensors.torch import save

    if out.suffix != ".safetensors":
        raise ConfigError(f"levels are written as .safetensors, not '{out.suffix}'; name the output so")
    refuse_existing(out, overwrite)
    if image.is_dir():
        raise ConfigError(f"{image} is a folder: its levels fill a bank, --bank DIR without -o; -o takes one image")
    levels = load_segmenter(model, device=device, precision=precision, bank=bank).levels(image)
    tensors = {f"level_{k}": level[0].contiguous() for k, level in enumerate(levels)}
    with whole_file(out, overwrite) as file:
        file.write(save(tensors))
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _segment_one(model: Model, path: Path, note: str, mode: Any) -> tuple[Picture, Result]:
    started = time.perf_counter()
    picture = images.read(path)
    result = model.segment(picture, note, mode=mode)
    seconds = time.perf_counter() - started
    return picture, Result(result.mask, result.probabilities, result.foreground, result.confidence, seconds)


def why(path: Path, error: Exception) -> str:
    """The reason of a file's failure in one line, without the path that stands before it already."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()).removeprefix(f"{path} ") or type(error).__name__


def _write(
    out: Path,
    name: str,
    picture: Picture,
    result: Result,
    wanted: Sequence[str],
    logits: tuple[Path, np.ndarray] | None,
    overwrite: bool,
) -> dict[str, str]:
    """All files of an image; where one fails, those that were new are taken back."""
    files = {kind: f"{name}_{kind}.png" for kind in ("mask", *wanted)}
    paths = [out / file for file in files.values()] + ([] if logits is None else [logits[0]])
    new, made = [path for path in paths if not path.exists()], not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        if logits is not None:
            _save_logits(*logits, overwrite)
        if "overlay" in files:
            images.write_overlay(out / files["overlay"], picture, result.mask, overwrite)
        if "probability" in files:
            images.write_probabilities(out / files["probability"], 1 - result.probabilities[0].clip(0, 1), overwrite)
        images.write_mask(out / files["mask"], result.mask, overwrite)
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        if made and out.exists():
            out.rmdir()
        raise
    return files


def _shown(name: str, picture: Picture, result: Result, model: str) -> Shown:
    """Drawn at once: the arrays of many large images would not fit in memory together."""
    pixels = np.broadcast_to(picture.pixels, (*picture.pixels.shape[:2], 3))
    shown = (255 * pixels).round().astype(np.uint8)
    foreground = 1 - result.probabilities[0]
    return Shown.of(ResultItem(name, shown, result.mask, result.confidence, result.seconds, model, foreground))


def _save_logits(path: Path, logits: np.ndarray, overwrite: bool) -> None:
    with whole_file(path, overwrite) as file:
        np.save(file, logits)


def _summary(model: Model, report: Report) -> dict[str, Any]:
    results = [
        {
            "image": line.image,
            "has_note": line.has_note,
            "foreground_percent": round(line.foreground, 3),
            "confidence": round(line.confidence, 4),
            "seconds": round(line.seconds, 3),
            "files": line.files,
        }
        for line in report.results
    ]
    failures = [{"image": place, "why": why} for place, why in report.failures]
    about = {"model": model.name, "sha256": model.sha256, "device": str(model.device)}
    about |= {"precision": model.precision, "runtime": model.runtime}
    return about | {"results": results, "failures": failures}


def _paths(inputs: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            inside = images.list_images(path)
            if not inside:
                raise DataError(f"folder {path} holds no image; it may hold {', '.join(sorted(images.SUFFIXES))}")
            found += inside
        else:
            found.append(path)
    if not found:
        raise DataError("no image was named; give files or folders")
    twice = sorted(str(path) for path, times in Counter(found).items() if times > 1)
    if twice:
        raise DataError(f"{tables.join(twice)} would be segmented twice; name each image once")
    return found


def _notes(paths: Sequence[Path], note: str | None, table: Path | None) -> list[str]:
    if table is None:
        return [note or ""] * len(paths)
    if note is not None:
        raise ConfigError("give --note or --notes, not both")
    rows = tables.read_table(table, required=("image", "note"))
    found = _rows_of(paths, rows)
    missing = [path.name for path, own in zip(paths, found, strict=True) if not own]
    if missing:
        some = tables.join(missing)
        raise DataError(
            f"{table} has no row for {len(missing)} images ({some}); {_unused(rows, found)}add rows, with an empty "
            "note if none"
        )
    for path, own in zip(paths, found, strict=True):
        if len({row.cells["note"] for row in own}) > 1:
            lines = tables.join(str(row.number) for row in own)
            raise DataError(f"{table} has several notes for {path} (lines {lines}); keep one, or name the folders too")
    _check_shared(table, paths, [own[0] for own in found])
    return [own[0].cells["note"] for own in found]


def _unused(rows: Sequence[tables.Row], used: Sequence[Sequence[tables.Row]]) -> str:
    """What to say of rows that fit no image: one may hold a misspelt name. Or a note, so the cell is not shown."""
    lines = sorted({row.number for row in rows} - {row.number for own in used for row in own})
    if not lines:
        return ""
    bare = any(Path(row.cells["image"]).suffix.lower() not in images.SUFFIXES for row in rows if row.number in lines)
    ending = ", and a name needs its ending, as .png" if bare else ""
    return f"line {lines[0]} is the first of {len(lines)} that name none of the images{ending}: correct them, or "


def _rows_of(paths: Sequence[Path], rows: Sequence[tables.Row]) -> list[list[tables.Row]]:
    """For each image the rows that name it: those with most of its path; else those with its bare name.

    Where the table's folders are those of some images, a row of another folder is another image's, whatever its name.
    """
    by_name: dict[str, list[tuple[Path, tables.Row]]] = {}
    for row in rows:
        told = Path(tables.normal(row.cells["image"]).replace("\\", "/"))
        by_name.setdefault(told.name, []).append((told, row))
    spelt = [Path(tables.normal(str(path))) for path in paths]
    named = [[(_agreement(path, told), row) for told, row in by_name.get(path.name, [])] for path in spelt]
    folders_agree = any(length > _BARE for some in named for length, _ in some)
    least = _BARE if folders_agree else _NAME_ALONE
    tops = [max((length for length, _ in some), default=0) for some in named]
    return [[row for length, row in some if length == max(top, least)] for some, top in zip(named, tops, strict=True)]


def _agreement(path: Path, name: Path) -> int:
    """Of two paths with one name: 1: the folders do not agree; else more, the more folders `name` tells."""
    return 1 + len(name.parts) if path.parts[-len(name.parts) :] == name.parts else _NAME_ALONE


def _check_shared(table: Path, paths: Sequence[Path], rows: Sequence[tables.Row]) -> None:
    """Two images of one name in two folders may not share a row that names no folder: whose note would it be?"""
    users: dict[int, Path] = {}
    for path, row in zip(paths, rows, strict=True):
        other = users.setdefault(row.number, path)
        if other != path:
            raise DataError(f"{table}, line {row.number} fits both {other} and {path}; name their folders in the table")


def _names(paths: Sequence[Path]) -> list[str]:
    """What the outputs are called: the stem, with the folder or the ending where two images would collide."""
    stems, names = Counter(path.stem for path in paths), Counter(path.name for path in paths)
    return [path.stem if stems[path.stem] == 1 else _long(path, names) for path in paths]


def _long(path: Path, names: Mapping[str, int]) -> str:
    plain = path.name.replace(".", "_")
    return plain if names[path.name] == 1 else f"{path.parent.name}_{plain}"


def _check_logits(path: Path | None, num_images: int) -> None:
    if path is None:
        return
    if num_images != 1 or path.suffix != ".npy":
        raise ConfigError("--save-logits takes one image and a name that ends in .npy")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")


def _check_free(
    out: Path,
    paths: Sequence[Path],
    names: Sequence[str],
    kinds: Sequence[str],
    page: bool,
    logits: Path | None,
    overwrite: bool,
) -> None:
    if len(set(names)) != len(names):
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        raise DataError(f"several images would be written as {tables.join(twice)}; segment their folders one by one")
    wanted = [out / f"{name}_{kind}.png" for name in names for kind in kinds]
    there = [path for path in _also(out, wanted, page, logits) if path.exists()]
    own = {path.resolve() for path in paths}
    lost = [str(path) for path in there if path.resolve() in own]
    if lost:  # whatever --overwrite says: it is of outputs
        raise DataError(f"{tables.join(lost)} would be written, but is one of the images; give another -o")
    if there and not overwrite:
        raise OutputExists(f"{there[0]} exists ({len(there)} outputs do); give another -o, or --overwrite")


def _also(out: Path, wanted: list[Path], page: bool, logits: Path | None) -> Iterator[Path]:
    yield from wanted
    yield out / "result.json"
    if page:
        yield out / "result.html"
    if logits is not None:
        yield logits
