"""Does the model use the text? Every image with its right note, with none, and with notes told otherwise."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from medtextdiff import __version__
from medtextdiff.api.loading import load_segmenter
from medtextdiff.api.model import Model
from medtextdiff.api.scored import drawn_together, read_pair, records_of, wrong_notes
from medtextdiff.config import ConfigError
from medtextdiff.data import note_edits
from medtextdiff.data.atomic import check_place
from medtextdiff.data.notes import mirror_note
from medtextdiff.evaluation import sensitivity_page
from medtextdiff.evaluation.report_folder import check_free, csv_text, json_text, write_folder
from medtextdiff.evaluation.segmentation import FOREGROUND, score_image
from medtextdiff.evaluation.sensitivity import confusion, summarise_tellings, swapped, what_was_given
from medtextdiff.evaluation.statistics import bootstrap_interval
from medtextdiff.types import IGNORE, Record

Say = Callable[[str], None]
BURIED_UNDER = 2000  # tokens


class _Telling(NamedTuple):
    """A way to tell every note; `notes` are in the records' order."""

    name: str
    notes: list[str]


def sensitivity(
    model: str | Path,
    *,
    data: str | Path,
    out: str | Path,
    split: str = "val",
    masks: str | None = None,
    seed: int = 0,
    bank: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    overwrite: bool = False,
    progress: Say = lambda line: None,
) -> dict[str, list[list[str]]]:
    """Score a model under each way of telling the notes; write report.json, per_image.csv, table.csv and report.html.

    Each image is encoded once and decoded for every note. Where the data have several targets an image, also the Dice
    of each, and what was given for what was asked.

    Args:
        model: a run folder or a shipped model; its data are read as the run read its own.
        masks: the folder of the masks, where it is not the run's own.
        seed: of the typos, the unrelated sentences and the bootstrap.
        bank: a folder that keeps the denoiser's levels.

    Returns:
        Tables by name, each a head and its rows.

    Raises:
        ConfigError, DataError: a model that reads no notes, a data set or an option that cannot be used.
    """
    check_free(Path(out), overwrite)
    check_place(Path(out))
    loaded = load_segmenter(model, device=device, precision=precision, bank=bank)
    if not hasattr(loaded.segmenter, "encode") or getattr(loaded.segmenter, "text", True) is None:
        raise ConfigError(f"{loaded.name} reads no notes, so no note can matter; give a model with a text encoder")
    records = records_of(loaded, data, split, masks)
    tellings = _tellings(loaded, records, seed)
    pairs = _Masks(loaded, records)
    dice, given = _score(loaded, records, tellings, pairs, progress)
    changed = np.array([[new != old.note for new, old in zip(t.notes, records, strict=True)] for t in tellings])
    targets = pairs.targets
    report: dict[str, Any] = {
        "format": 1,
        "title": f"What the note is worth: {loaded.name} on {Path(data).name} ({split})",
        "meta": _meta(loaded, data, split, masks, seed, precision, Path(out)),
        "num_records": len(records),
        "num_images": len({record.image for record in records}),
        "tellings": summarise_tellings([t.name for t in tellings], dice, changed, drawn_together(records), seed=seed),
        "by_target": _by_target(pairs, tellings, dice, seed) if targets else {},
        "answers": _answers(pairs, records, given) if targets else {},
    }
    head = ["id", "group", *(f"{t.name} (dice)" for t in tellings), *(f"{t.name} (changed)" for t in tellings)]
    rows = [[r.id, r.patient or "", *map(float, dice[:, k]), *map(int, changed[:, k])] for k, r in enumerate(records)]
    lines = sensitivity_page.telling_lines(report["tellings"], len(records))
    files = {
        "report.json": json_text(report),
        "per_image.csv": csv_text([*head, "given"], [[*row, one] for row, one in zip(rows, given, strict=True)]),
        "table.csv": csv_text(sensitivity_page.TELLINGS_HEAD, lines),
        "report.html": sensitivity_page.render(report),
    }
    progress(f"wrote {write_folder(Path(out), files)}")
    return _tables(report, lines)


def _tellings(model: Model, records: Sequence[Record], seed: int) -> list[_Telling]:
    """The right notes first. A telling that leaves all notes as they are is kept: that is a finding, too."""
    own = [record.note for record in records]
    if not any(note.strip() for note in own):
        raise ConfigError("no image of this split has a note, so nothing can be told otherwise; choose another split")
    filler = note_edits.other_text(BURIED_UNDER, _counter(model), seed)
    edits: dict[str, Callable[[str], str]] = {
        "right": lambda note: note,
        "none": lambda note: "",
        "sides swapped": mirror_note,
        "places dropped": note_edits.drop_places,
        "unrelated sentence": lambda note: note_edits.unrelated(note, seed) if note.strip() else note,
        "typos in 5 % of words": lambda note: note_edits.misspell(note, 0.05, seed),
        "typos in 10 % of words": lambda note: note_edits.misspell(note, 0.1, seed),
        "typos in 20 % of words": lambda note: note_edits.misspell(note, 0.2, seed),
        f"after {BURIED_UNDER:,} tokens of other text": lambda note: note_edits.bury(note, filler),
    }
    told = [_Telling(name, [edit(note) for note in own]) for name, edit in edits.items()]
    reworded = [record.other_notes[0] if record.other_notes else note_edits.reword(record.note) for record in records]
    told.insert(8, _Telling("paraphrase", reworded))
    with suppress(ValueError):  # no other image has another note
        told.insert(2, _Telling("another image's", wrong_notes(records)))
    return told


def _counter(model: Model) -> Callable[[str], int]:
    lengths = getattr(getattr(model.segmenter, "text", None), "lengths", None)
    if lengths is None:  # exported graphs and fixed-length encoders do not count
        return lambda note: len(note.split())
    return lambda note: int(lengths([note])[0])


class _Masks:
    """The true masks of the records, and of the other targets of their images. `targets` is empty without these."""

    def __init__(self, model: Model, records: Sequence[Record]) -> None:
        self.model, self.records = model, records
        asked = getattr(model.run.data.source, "targets", {})
        ids = [max((name for name in asked if one.id.endswith(f"__{name}")), key=len, default="") for one in records]
        self.targets = [name for name in asked if name in ids] if set(ids) <= set(asked) else []
        self.asked = ids if self.targets else []
        self._truths: dict[Path, dict[str, np.ndarray]] = {}

    def of_image(self, index: int) -> dict[str, np.ndarray]:
        """By target, as booleans [H W]; that of one image is remembered, since its records follow each other."""
        image = self.records[index].image
        assert image is not None
        if image not in self._truths:
            same = [k for k, record in enumerate(self.records) if record.image == image]
            masks = {self.asked[k]: read_pair(self.model, self.records[k])[1] for k in same}
            self._truths = {image: {name: (mask > 0) & (mask != IGNORE) for name, mask in masks.items()}}
        return self._truths[image]

    def mirror(self) -> dict[str, str]:
        """The other side of each target that has one, by their first phrasings."""
        first = {record.note: name for record, name in zip(self.records, self.asked, strict=True)}
        sides = {name: first.get(mirror_note(note)) for note, name in first.items()}
        return {name: other for name, other in sides.items() if other is not None and other != name}


def _score(
    model: Model, records: Sequence[Record], tellings: Sequence[_Telling], masks: _Masks, progress: Say
) -> tuple[np.ndarray, list[str]]:
    """Dice [V N] of every telling and record, and what was given for the right notes ("" without targets)."""
    dice = np.zeros((len(tellings), len(records)))
    given = []
    image: Path | None = None
    for k, record in enumerate(records):
        pixels, truth = read_pair(model, record)
        if record.image != image:
            encoded, image = model.encode(pixels), record.image
        known: dict[str, float] = {}
        answer = ""
        for v, telling in enumerate(tellings):
            note = telling.notes[k]
            if note not in known:
                found = model.decode(encoded, note).mask
                known[note] = score_image(found, truth, model.num_classes, distances=False)[FOREGROUND]["dice"]
                if v == 0 and masks.targets:
                    answer = what_was_given(found > 0, masks.of_image(k), masks.asked[k])
            dice[v, k] = known[note]
        given.append(answer)
        progress(f"{model.name}: {k + 1}/{len(records)}")
    return dice, given


def _by_target(masks: _Masks, tellings: Sequence[_Telling], dice: np.ndarray, seed: int) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in masks.targets:
        chosen = [k for k, asked in enumerate(masks.asked) if asked == name]
        own = dice[:, chosen]
        means = {t.name: float(row.mean()) for t, row in zip(tellings[1:], own[1:], strict=True)}
        groups = drawn_together([masks.records[k] for k in chosen])
        interval = bootstrap_interval(own[0], seed=seed, groups=groups)._asdict()
        found[name] = {"num": own.shape[1], "dice": interval, "means": means}
    return found


def _answers(masks: _Masks, records: Sequence[Record], given: Sequence[str]) -> dict[str, Any]:
    return {
        "targets": masks.targets,
        "counts": confusion(masks.asked, given, masks.targets).tolist(),
        "swapped": swapped(masks.asked, given, masks.mirror()),
    }


def _meta(
    model: Model, data: str | Path, split: str, masks: str | None, seed: int, precision: str, out: Path
) -> dict[str, Any]:
    words = ["medtextdiff", "sensitivity", model.name, "--data", str(data), "--split", split, "--seed", str(seed)]
    words += ["--masks", masks] if masks is not None else []
    words += ["--precision", precision] if precision != "auto" else []
    limit = getattr(getattr(model.segmenter, "text", None), "limit", None)
    return {
        "command": shlex.join([*words, "-o", str(out)]),
        "model": model.name,
        "model sha256": model.sha256,
        "data": str(data),
        "split": split,
        "seed": seed,
        "encoder takes (tokens)": "unknown" if limit is None else str(limit),
        "scored at": "native size",
        "precision": model.precision,
        "medtextdiff": __version__,
        "torch": torch.__version__,
    }


def _tables(report: Mapping[str, Any], lines: list[list[str]]) -> dict[str, list[list[str]]]:
    tables = {"notes": [list(sensitivity_page.TELLINGS_HEAD), *lines]}
    if report["by_target"]:
        head = ["target", "images", "Dice (%)"]
        rows = [line[:3] for line in sensitivity_page.target_lines(report["by_target"])]
        tables["targets"] = [head, *rows]
    if report["answers"]:
        answers = report["answers"]
        rows = sensitivity_page.confusion_lines(answers)
        tables["asked and given"] = [sensitivity_page.confusion_head(answers), *rows]
        if answers["swapped"]["of"]:
            tables["the other side was given"] = [["swapped"], [sensitivity_page.swapped_text(answers["swapped"])]]
    return tables
