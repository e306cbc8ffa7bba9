"""The models that ship, and where a model's name leads."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from medtextdiff.config import ConfigError, nearest
from medtextdiff.recipes.run_folder import CONFIG, PRETRAINED, builtin_names

CARD = "MODEL_CARD.md"


@dataclass(frozen=True)
class Card:
    """The head of a model card: what a person chooses a model by. `card` is the whole of it."""

    name: str
    task: str
    megabytes: float
    trained_on: str
    licence: str
    scores: str
    card: Path


def models() -> list[Card]:
    """The cards of all models that ship."""
    return [_card(PRETRAINED / name) for name in builtin_names()]


def find(name_or_run: str | Path, task: str = "segment") -> Path:
    """The run folder that a shipped model's name or a path means; an error offers the models for `task`.

    Raises:
        ConfigError: neither; the nearest name is offered.
    """
    path = Path(name_or_run)
    if (PRETRAINED / path).is_dir() and len(path.parts) == 1 and str(path) in builtin_names():
        return PRETRAINED / path
    if (path / CONFIG).is_file():
        return path
    if path.is_dir():
        raise ConfigError(f"{path} is no run folder: it has no {CONFIG}; give a folder that `medtextdiff train` wrote")
    known = [card.name for card in models() if card.task == task]
    raise ConfigError(f"no model or run folder '{name_or_run}'; {nearest(str(name_or_run), known)}")


def _card(folder: Path) -> Card:
    text = (folder / CARD).read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    fields = {name: str(head.get(name, "")) for name in ("task", "trained_on", "licence", "scores")}
    return Card(name=folder.name, megabytes=size, card=folder / CARD, **fields)
