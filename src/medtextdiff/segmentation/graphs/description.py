"""What `export.json` says of a folder of graphs: enough to run them, and how they were checked."""

import json
from pathlib import Path

from pydantic import PositiveInt

from medtextdiff import config
from medtextdiff.config import ConfigError, from_json
from medtextdiff.segmentation import features as features_part
from medtextdiff.text import graph as text_graph

EXPORT = "export.json"
TOKENIZER = "tokenizer"
TOLERANCE = 1e-3  # of the largest value; float32


class Check(config.Config):
    """A graph on random inputs: the largest difference from torch, as a share of torch's largest value."""

    graph: str
    batch: PositiveInt
    height: PositiveInt
    width: PositiveInt
    words: PositiveInt
    error: float


class Config(config.Config):
    """The contents of `export.json`. `features` and `strides` are those of a FastTextDiff, `text` of its notes."""

    runtime: str
    graphs: tuple[str, ...]
    num_classes: PositiveInt
    multiple: PositiveInt
    strides: tuple[PositiveInt, ...] = ()
    features: features_part.Config | None = None
    text: text_graph.Config | None = None
    model: str
    model_sha256: str
    versions: dict[str, str]
    tolerance: float = TOLERANCE
    checks: tuple[Check, ...] = ()


def is_export(folder: Path) -> bool:
    """Whether the folder is one of exported graphs."""
    return (folder / EXPORT).is_file()


def read(folder: Path) -> Config:
    """The description of an export folder.

    Raises:
        ConfigError: it is damaged, or no description of ours.
    """
    path = folder / EXPORT
    try:
        found = from_json(json.loads(path.read_text(encoding="utf-8")))
    except ConfigError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({type(error).__name__}); export the model again") from None
    if not isinstance(found, Config):
        raise ConfigError(f"{path} describes no export; export the model again")
    return found
