"""How guidance, steps and the sampler of a generator change its images: one table, one thing changed at a time."""

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import medtextdiff
from medtextdiff import __version__
from medtextdiff.api import feature_extractors, generating_for_evaluation, image_sets, synthesis_figures
from medtextdiff.api.computing import device_of
from medtextdiff.config import ConfigError
from medtextdiff.data.atomic import check_place
from medtextdiff.data.images import records_hash
from medtextdiff.evaluation import sweep_page
from medtextdiff.evaluation.report_folder import csv_text, json_text, write_folder
from medtextdiff.evaluation.statistics import Interval
from medtextdiff.training.disk import write_json
from medtextdiff.types import Record

Say = Callable[[str], None]
_OURS = {"rows", "report"}
_REFERENCE = "real"  # the row that no setting has


class Setting(NamedTuple):
    """How images are sampled."""

    sampler: str
    steps: int
    guidance: float

    @property
    def name(self) -> str:
        """For a person, and of a file."""
        return f"{self.sampler}-{self.steps}-{_short(self.guidance)}"


def sweep(
    run: str | Path,
    *,
    data: str | Path,
    out: str | Path,
    guidance: Sequence[float] = (),
    steps: Sequence[int] = (),
    samplers: Sequence[str] = (),
    split: str = "val",
    train_split: str = "train",
    num: int | None = None,
    seeds: Sequence[int] = (0,),
    extractor: str = "denoiser",
    settings: Sequence[str] = (),
    fit: str = "squeeze",
    device: str = "auto",
    progress: Say = lambda line: None,
) -> list[list[str]]:
    """Generate with each setting from the same prompts and seeds, score, and write a report into `out`/report.

    The first row is the run's own setting; each of the others changes one thing of it. Finished rows are kept in
    `out`/rows, so that a stopped sweep goes on and values may be added later. To choose a setting that is then
    reported on `val`, sweep with `split` = the training split.

    Args:
        run: of a synthesis recipe, or a generator that ships.
        guidance, steps, samplers: values beside the run's own.
        num: images a seed; None: as many as real images of `split`. The rest as `evaluate_synthesis`.

    Returns:
        The table: its head, the floor (real images against real ones), and a row for each setting.

    Raises:
        ConfigError, DataError: a run, data set, value or option that cannot be used; told before anything is made.
    """
    place = Path(out)
    check_place(place)
    strange = (
        [path.name for path in place.iterdir() if path.name not in _OURS and path.name[0] != "."]
        if place.is_dir()
        else []
    )
    if strange:
        raise ConfigError(f"{place} is no sweep (it has {strange[0]}); give a new folder, or one to go on with")
    generating_for_evaluation.check_draws(num, seeds)
    image_sets.check_fit(fit)
    model = medtextdiff.load(run, device=device)
    generating_for_evaluation.check_generator(model, str(run))
    todo = _settings(model, guidance, steps, samplers)
    same = {"split": split, "train_split": train_split, "num": num, "seeds": list(seeds), "extractor": extractor}
    made_with = same | {"set": list(settings), "fit": fit, "data": str(Path(data).resolve()), "model": model.sha256}
    records = image_sets.real_splits(Path(data), split, train_split)
    made_with |= {f"sha256 of '{name}'": records_hash(some) for name, some in records.items()}
    extract = feature_extractors.build(extractor, settings)
    made_with |= {"device": str(model.device), "precision": model.precision}
    made_with = dict(extract.about) | made_with
    reference = _kept(_path(place, _REFERENCE), made_with)
    kept = {setting: _kept(_path(place, setting.name), made_with) for setting in todo if reference}
    work = _Work(model, records, split, train_split, num, seeds, extract, fit, device, progress)
    rows = {setting: row for setting, row in kept.items() if row is not None}
    for number, setting in enumerate(todo, 1):
        if setting not in rows:
            rows[setting] = work.row(setting)
            if reference is None:
                reference = work.reference()
                write_json(_path(place, _REFERENCE), {"made_with": made_with} | reference)
            write_json(_path(place, setting.name), {"made_with": made_with} | rows[setting])
        progress(f"{number}/{len(todo)} {setting.name}")
    meta = made_with | {"command": _command(run, data, out, guidance, steps, samplers, made_with)}
    meta |= {"medtextdiff": __version__}
    assert reference is not None
    report = {"format": 1, "reference": reference["rows"], "rows": [rows[setting] for setting in todo], "meta": meta}
    head, lines = sweep_page.HEAD, sweep_page.lines_of(report)
    page = write_folder(
        place / "report",
        {
            "report.json": json_text(report),
            "table.csv": csv_text(*sweep_page.plain(report)),
            "report.html": sweep_page.render(report),
        },
    )
    progress(f"wrote {page}")
    return [list(head), *lines]


class _Work:
    """What rows have in common; the real images are read when the first row is made."""

    def __init__(
        self, model: Any, records: Mapping[str, list[Record]], split: str, train_split: str, num: int | None,
        seeds: Sequence[int], extractor: Any, fit: str, device: str, progress: Say,
    ) -> None:  # fmt: skip
        self._model, self._seeds, self._fit = model, seeds, fit
        self._device, self._progress = device_of(device), progress
        self._extractor = extractor
        self._records = records
        self._split, self._train_split = split, train_split
        self._prompts = generating_for_evaluation.draw_prompts(
            model, records[split], num or len(records[split]), int(seeds[0]), progress
        )
        self._figures: synthesis_figures.Figures | None = None

    def row(self, setting: Setting) -> dict[str, Any]:
        """Generate and score."""
        _ = self._real  # an image that cannot be read is told before the work
        started = time.perf_counter()
        images = generating_for_evaluation.generate_sets(
            self._model, setting.name, self._prompts, self._seeds, setting._asdict(), self._progress
        )
        seconds = (time.perf_counter() - started) / len(images)
        figures = self._of(images)
        found = figures.generated_row()
        groups, _ = figures.adherence_lines()
        return {
            "setting": setting._asdict(),
            "images": len(images),
            "spread": found.spread,
            "seconds": seconds,
            "figures": {name: _ends(interval) for name, interval in found.figures.items()},
            "adherence": [asdict(line) | {"right": _ends(line.right), "real": _ends(line.real)} for line in groups],
        }

    def reference(self) -> dict[str, Any]:
        """The floor: real images against real ones. After the first row."""
        assert self._figures is not None
        return {
            "rows": [
                {"name": row.name, "images": row.images, "figures": {k: _ends(v) for k, v in row.figures.items()}}
                for row in self._figures.reference_rows()
            ]
        }

    @cached_property
    def _real(self) -> dict[str, image_sets.ImageSet]:
        side = self._model.size[0]
        return {
            name: image_sets.of_records(records, side, self._fit, what=f"split '{name}'", progress=self._progress)
            for name, records in self._records.items()
        }

    def _of(self, images: image_sets.ImageSet) -> synthesis_figures.Figures:
        if self._figures is not None:
            return self._figures.with_generated(images)
        sets = synthesis_figures.Sets(images, self._real[self._split], self._real[self._train_split])
        about: dict[str, Any] = {"seed": int(self._seeds[0]), "device": self._device, "progress": self._progress}
        self._figures = synthesis_figures.Figures(sets, self._extractor, **about)
        _ = self._figures.probe  # trained once, for all rows
        return self._figures


def _short(value: float) -> str:
    """As short as it can be and still this number: 1, 2.5, 1.0000001."""
    return repr(value).removesuffix(".0")


def _settings(model: Any, guidance: Sequence[float], steps: Sequence[int], samplers: Sequence[str]) -> list[Setting]:
    own = model.settings()
    first = Setting(str(own.sampler), int(own.steps), float(own.guidance))
    found = [
        first,
        *(first._replace(guidance=float(value)) for value in guidance),
        *(first._replace(steps=value) for value in steps),
        *(first._replace(sampler=name) for name in samplers),
    ]
    for setting in found:
        model.settings(**setting._asdict())  # says what cannot be
    found = list(dict.fromkeys(found))
    if len(found) < 2:
        raise ConfigError(f"this is the run's own setting alone ({first.name}); give --guidance, --steps or --samplers")
    return found


def _kept(path: Path, made_with: dict[str, Any]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        row = dict(json.loads(path.read_text(encoding="utf-8")))
        same = row.pop("made_with") == made_with
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} is damaged; delete it, and that row is made again") from None
    if not same:
        raise ConfigError(f"{path.parents[1]} holds rows of another model, data set or option; choose another -o")
    return row


def _path(out: Path, name: str) -> Path:
    return out / "rows" / f"{name}.json"


def _ends(interval: Interval) -> dict[str, float | None]:
    """NaN, where a figure has no interval, is null in JSON."""
    return {name: value if value == value else None for name, value in interval._asdict().items()}


def _command(
    run: str | Path, data: str | Path, out: str | Path, guidance: Sequence[float], steps: Sequence[int],
    samplers: Sequence[str], made_with: dict[str, Any],
) -> str:  # fmt: skip
    words = ["medtextdiff", "sweep", str(run), "--data", str(data)]
    values = {"guidance": guidance, "steps": steps, "samplers": samplers, "seeds": made_with["seeds"]}
    for name, some in values.items():
        listed = ",".join(map(str, some))
        words += [f"--{name}", listed] if listed else []
    for name in ("split", "train_split", "extractor", "fit", "device"):
        words += [f"--{name.replace('_', '-')}", made_with[name]]
    for one in made_with["set"]:
        words += ["--set", one]
    words += [] if made_with["num"] is None else ["-n", str(made_with["num"])]
    return shlex.join([*words, "-o", str(out)])
