"""Train a recipe into a run folder."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medtextdiff import recipes as recipe_room
from medtextdiff.api import shelf
from medtextdiff.api.computing import device_of, tell_cuts
from medtextdiff.config import Config, ConfigError, map_strings, override, to_json
from medtextdiff.data.atomic import check_place
from medtextdiff.recipes import run_folder
from medtextdiff.training import checkpoint, components, engine, provenance
from medtextdiff.training.device import is_main_process
from medtextdiff.training.progress import say
from medtextdiff.training.settings import FREE

# On resuming. Where the data lies may change too: its files are known by their hashes. A feature bank is a cache.
MAY_CHANGE = {*(f"training.{name}" for name in FREE), "data.root", "bank", "cache"}
MAY_CHANGE |= {f"bank.{name}" for name in ("kind", "folder", "budget_gb", "dtype")}


def recipes() -> dict[str, str]:
    """Every recipe's name with the first line of what it says about itself."""
    return {name: (function.__doc__ or "").strip().splitlines()[0] for name, function in recipe_room.listing().items()}


def show(what: str | Path, *, settings: Sequence[str] = ()) -> str:
    """The configuration of a recipe, a shipped model or a run folder, as JSON.

    Raises:
        ConfigError: none of these; the nearest name is offered.
    """
    return json.dumps(to_json(override(_run_of(what), settings)), indent=2)


def train(
    recipe: str | Config, *, settings: Sequence[str] = (), out: str | Path, device: str = "auto"
) -> dict[str, Any]:
    """Train into `out`; an unfinished run there is resumed. Returns the last step and scores.

    Afterwards `out` holds config.json, lock.json (data hashes, versions, seed, commit), metrics.jsonl, one folder for
    each trained component, and manifest.json with the hashes of all.

    Raises:
        ConfigError: an unknown recipe or setting, or settings that cannot be.
        RunError: `out` belongs to another run; TrainingError: the loss is not finite; Interrupted: a signal.
    """
    run = override(recipe_room.find(recipe) if isinstance(recipe, str) else recipe, settings)
    run = run.replace(model=map_strings(run.model, _from_here))  # type: ignore[attr-defined]
    run_dir = Path(out)
    _check_free(run_dir)
    job = run.job()  # type: ignore[attr-defined]
    _check_ours(run_dir, [run_folder.CONFIG, *(name for name, _ in job.model.named_children())])
    training: engine.Config = run.training  # type: ignore[attr-defined]
    if job.validate is not None and job.scores and training.monitor not in job.scores:
        raise ConfigError(
            f"training.monitor cannot be '{training.monitor}'; this run's validation has: {', '.join(job.scores)}"
        )
    if job.settle is not None:
        job.settle(run_dir)
    if job.prepare is not None:
        job.prepare(run_dir, str(device_of(device)))

    def begin() -> None:
        resumed = checkpoint.latest(run_dir / "checkpoints") is not None
        about = {"config": run, "data": job.data_hashes, "also": job.also_read, "seed": training.seed}
        provenance.write_lock(run_dir, **about, frozen=job.frozen, resumed=resumed, free=MAY_CHANGE)
        run_folder.write_config(run, run_dir)
        if job.describe is not None:
            job.describe(run_dir)

    hooks = {"validate": job.validate, "after_step": job.after_step, "begin": begin}
    result = engine.fit(job.model, job.loss, job.data, training, run_dir, **hooks, device=device)
    if is_main_process():
        tell_cuts(job.model, say)
        also = [] if job.conclude is None else job.conclude(job.model, run_dir)
        finish(run, job.model, run_dir, also=also, kept=job.kept, frozen=job.frozen)
    return {"run": str(run_dir), "step": result.last_step, "weights": result.weights, "score": result.best_metric}


def _from_here(text: str) -> str:
    """A path as a person gives it: in a finished run `./` means within the run folder."""
    return os.path.normpath(text) if text.startswith("./") else text


def finish(
    run: Config,
    model: Any,
    run_dir: Path,
    *,
    dtype: Any = None,
    also: Sequence[str] = (),
    kept: Sequence[str] = (),
    frozen: Mapping[str, str] | None = None,
) -> None:
    """Write the components and the config that finds them: what makes a run folder complete.

    `also` names further files in the folder that the manifest shall seal, `kept` frozen components to be saved, too;
    `frozen` has the digests of all that do not train.
    """
    run_folder.write_config(_with_own_parts(run, model, kept), run_dir)
    built_on = run_folder.foundations(run_folder.read_config(run_dir))
    also = [run_folder.CONFIG, *also]
    elsewhere = run_folder.parts_elsewhere(run_folder.read_config(run_dir).model)  # type: ignore[attr-defined]
    beside = {name: digest for name, digest in (frozen or {}).items() if name in elsewhere}
    components.save_components(model, run_dir, dtype=dtype, also=also, kept=kept, built_on=built_on, beside=beside)


def _with_own_parts(run: Config, model: Any, kept: Sequence[str]) -> Config:
    """The config in which each component that is saved whole is loaded from the run folder."""
    settings: Config = run.model  # type: ignore[attr-defined]
    for name, child in model.named_children():
        part = getattr(settings, name, None)
        saved = name in kept or any(weight.requires_grad for weight in child.parameters())
        if saved and components.writes_itself(child) and isinstance(part, Config):
            settings = settings.replace(**{name: part.saved(f"./{name}")})  # type: ignore[attr-defined]
    return run.replace(model=settings)


def _check_free(run_dir: Path) -> None:
    if (run_dir / components.MANIFEST).is_file():
        raise ConfigError(f"{run_dir} holds a finished run; give another folder with -o, or delete that one first")
    check_place(run_dir)


def _check_ours(run_dir: Path, names: Sequence[str]) -> None:
    """Refuse a folder in which training would replace somebody's files."""
    there = [name for name in names if (run_dir / name).exists()]
    if there and not (run_dir / "lock.json").exists():
        raise ConfigError(f"{run_dir} is no run of ours, and its '{there[0]}' would be replaced; give another -o")


def _run_of(what: str | Path) -> Config:
    if Path(what).is_dir() or str(what) in run_folder.builtin_names():
        return run_folder.read_config(shelf.find(what))
    return recipe_room.find(str(what))
