"""Score a model on a data set: per-image rows, intervals, a paired test, and a report."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from medtextdiff import __version__
from medtextdiff.api.computing import tell_cuts
from medtextdiff.api.loading import load_segmenter
from medtextdiff.api.model import Model
from medtextdiff.api.scored import drawn_together, read_pair, records_of, trained_images, unseen_of, wrong_notes
from medtextdiff.config import ConfigError, override
from medtextdiff.data import transforms
from medtextdiff.data.atomic import check_place
from medtextdiff.evaluation.report import Example, read_curves, write_report
from medtextdiff.evaluation.report_folder import check_free
from medtextdiff.evaluation.segmentation import FOREGROUND, Row, score_as_published, score_image, summarise
from medtextdiff.recipes import segmentation_run
from medtextdiff.recipes.run_folder import CONFIG
from medtextdiff.types import IGNORE, Record

Say = Callable[[str], None]
NOTES = ("right", "none", "wrong")
PUBLISHED_SIZE = 256


def evaluate(
    model: str | Path,
    *,
    data: str | Path,
    out: str | Path,
    split: str = "val",
    against: str | Path | None = None,
    notes: str = "right",
    mode: str | None = None,
    at: int | None = None,
    as_published: bool = False,
    unseen: bool = False,
    settings: Sequence[str] = (),
    masks: str | None = None,
    bank: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    overwrite: bool = False,
    progress: Say = lambda line: None,
) -> dict[str, str]:
    """Score `model` on a split and write `report.json`, `per_image.csv` and `report.html`.

    Args:
        model: a run folder or a shipped model's name.
        data: the data set's folder or manifest.
        against: another model; both are scored on the same images and compared in pairs.
        notes: "right"; "none"; or "wrong", each image with the next image's differing note.
        at: make image and mask N x N first (area decides for the mask) and score there; None: native size.
        as_published: also score as the published code does, at 256 px against its grown masks; not with `at`, after
            which they would not grow.
        unseen: leave out the images whose masks `model` or `against` was trained on, as told by their lock.json;
            without it they are scored, and counted in the report.
        settings: how the models are used, e.g. "use.tile=512" or "use.flips=true", instead of how they were validated.
        masks: the folder of the masks, where it is not the one that the model was trained on.
        bank: a folder that keeps the denoiser's levels, so that no view of an image is encoded twice.

    Returns:
        The foreground's scores as text, with intervals.

    Raises:
        ConfigError, DataError: a model, data set or option that cannot be used; OutputExists: `out` is there.
    """
    if notes not in NOTES:
        raise ConfigError(f"no notes '{notes}'; give right, none or wrong")
    if at is not None and at < 1:
        raise ConfigError(f"images cannot be scored at {at} x {at} pixels; give a size of 1 or more, or leave it out")
    if at is not None and as_published:
        raise ConfigError(
            "--as-published grows the masks by making them smaller from their own size; leave out --at, or score twice"
        )
    check_free(Path(out), overwrite)
    check_place(Path(out))
    scorer = _Scorer(mode, at, as_published, progress)
    loaded = _used(load_segmenter(model, device=device, precision=precision, bank=bank), settings)
    records = records_of(loaded, data, split, masks)
    known = trained_images([model] if against is None else [model, against], required=unseen)
    new = unseen_of(records, known)
    num_seen = len(records) - len(new)
    if unseen and not new:
        raise ConfigError(f"every image of split '{split}' of {data} was trained on; give other data")
    if unseen:
        records = new
    elif num_seen:
        progress(
            f"{num_seen} of these {len(records)} images were trained on, so this is no test; --unseen leaves them out"
        )
    words = _words(records, notes)
    other = None
    if against is not None:  # maybe one without levels, so without the bank
        other = _used(load_segmenter(against, device=device, precision=precision), settings)
    scorer.check([loaded] if other is None else [loaded, other], records)
    rows = scorer.rows(loaded, records, words)
    others = None if other is None else {other.name: scorer.rows(other, records, words)}
    summary = summarise(rows)
    options: dict[str, Any] = {
        "split": split,
        "against": against,
        "notes": notes,
        "mode": mode,
        "at": at,
        "masks": masks,
    }
    options |= {"as-published": as_published, "unseen": unseen, "set": list(settings)}
    options |= {"precision": None if precision == "auto" else precision}
    told = f"{num_seen} of the split's images, as far as lock.json tells" + _fate(num_seen, unseen)
    write_report(
        Path(out),
        title=f"{loaded.name} on {Path(data).name} ({split})",
        rows=rows,
        summary=summary,
        meta=_meta(loaded, data, Path(out), options, len(rows)) | ({} if known is None else {"trained on": told}),
        pictures=lambda name: scorer.example(loaded, records, words, name),
        curves=loaded_curves(model),
        against=others,
        overwrite=overwrite,
    )
    tell_cuts(loaded.segmenter, progress)
    progress(f"wrote {Path(out) / 'report.html'}")
    return _as_text(summary) | {"images": str(len(rows))}


def _fate(num_seen: int, unseen: bool) -> str:
    if not num_seen:
        return ""
    return ", left out" if unseen else ", scored as well: no test"


def _used(model: Model, settings: Sequence[str]) -> Model:
    """The model, used otherwise."""
    for setting in settings:
        if not setting.startswith("use."):
            raise ConfigError(f"'{setting}' would be another model; evaluation takes only settings of use.*")
    model.run = cast(segmentation_run.Run, override(model.run, settings))
    return model


class _Scorer:
    """How every image of a report is predicted and scored."""

    def __init__(self, mode: str | None, at: int | None, as_published: bool, progress: Say) -> None:
        self.mode, self.at, self.as_published, self.progress = mode, at, as_published, progress

    def rows(self, model: Model, records: Sequence[Record], words: Sequence[str]) -> list[Row]:
        rows = []
        groups: Sequence[str | None] = drawn_together(records) or [None] * len(records)
        for number, (record, note, group) in enumerate(zip(records, words, groups, strict=True), 1):
            image, truth = read_pair(model, record, self.at)
            result = model.segment(image, note, mode=self.mode)  # type: ignore[arg-type]
            scores = score_image(result.mask, truth, model.num_classes)
            if self.as_published:
                scores["as_published"] = self._as_published(result.probabilities, truth)
            rows.append(Row(record.id, scores, bool(note.strip()), group))
            self.progress(f"{model.name}: {number}/{len(records)}")
        return rows

    def check(self, models: Sequence[Model], records: Sequence[Record]) -> None:
        """Find what would stop the scoring before it begins: a mode, classes that differ, a file that is damaged."""
        for model in models:
            model.check_mode(self.mode)
        if len({model.num_classes for model in models}) > 1:
            told = " and ".join(f"{model.name} tells {model.num_classes} classes apart" for model in models)
            raise ConfigError(f"{told}; only models of the same classes can be compared")
        for model in models:
            for record in records:
                read_pair(model, record, self.at)

    def example(self, model: Model, records: Sequence[Record], words: Sequence[str], name: str) -> Example:
        index = next(k for k, record in enumerate(records) if record.id == name)
        image, truth = read_pair(model, records[index], self.at)
        result = model.segment(image, words[index], mode=self.mode)  # type: ignore[arg-type]
        pixels = np.broadcast_to(image, (*image.shape[:2], 3))
        return Example((255 * pixels).round().astype(np.uint8), truth, result.mask)

    def _as_published(self, probs: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        pred = transforms.resize_image(torch.from_numpy(probs), PUBLISHED_SIZE).argmax(dim=0)
        mask = transforms.published_mask(torch.from_numpy(truth), PUBLISHED_SIZE)
        ignored = mask == IGNORE  # the published score knows none: both are made background there
        return score_as_published(pred.masked_fill(ignored, 0).numpy(), mask.masked_fill(ignored, 0).numpy())


def loaded_curves(model: str | Path) -> list[dict[str, Any]] | None:
    """The lines of a run's metrics.jsonl, or None where it has none (a shipped model)."""
    path = Path(model) / "metrics.jsonl"
    return read_curves(path) if path.is_file() and (Path(model) / CONFIG).is_file() else None


def _words(records: Sequence[Record], notes: str) -> list[str]:
    own = [record.note for record in records]
    if notes == "right":
        return own
    if notes == "none":
        return [""] * len(own)
    try:
        return wrong_notes(records)
    except ValueError as error:
        raise ConfigError(f"{error}, or --notes none") from None


def _meta(model: Model, data: str | Path, out: Path, options: Mapping[str, Any], num: int) -> dict[str, Any]:
    at = options["at"]
    return {
        "command": _command([model.name, "--data", str(data), "-o", str(out)], options),
        "model": model.name,
        "model sha256": model.sha256,
        "recipe": model.run.kind(),
        "data": str(data),
        "split": options["split"],
        "notes": options["notes"],
        "mode": options["mode"] or model.run.use.mode,
        "scored at": f"{at} x {at} px" if at else "native size",
        "images": num,
        "training seed": model.run.training.seed,
        "precision": model.precision,
        "medtextdiff": __version__,
        "torch": torch.__version__,
    }


def _command(words: Sequence[str], options: Mapping[str, Any]) -> str:
    """The command that gives this report. The process's own may be a server's, with who knows what in it."""
    words = ["medtextdiff", "evaluate", *words]
    for name, value in options.items():
        if isinstance(value, list):
            words += [word for item in value for word in (f"--{name}", item)]
        elif value is not None and value is not False:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)


def _as_text(summary: dict[str, Any]) -> dict[str, str]:
    found = {}
    for region, scores in summary["regions"].items():
        for name, value in scores.items():
            if isinstance(value, dict):
                factor = 1.0 if name == "hd95" else 100.0
                mean, low, high = (factor * value[key] for key in ("mean", "low", "high"))
                label = name if region == FOREGROUND else f"{region} {name}"
                found[label] = f"{mean:.2f} [{low:.2f}, {high:.2f}]"
    return found
