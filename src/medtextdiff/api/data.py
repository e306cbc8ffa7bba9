"""Look at a data set before training on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medtextdiff.api.loading import load_segmenter
from medtextdiff.config import ConfigError
from medtextdiff.data import check
from medtextdiff.data.records import Finding
from medtextdiff.data.sources import detect


def data_check(
    root: str | Path,
    *,
    side: str = "viewer",
    masks: str | None = None,
    model: str | Path | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Finding]:
    """What is wrong with a data set and how to mend it, errors first; no note's text is in it.

    `side` is whose left the notes mean; `masks` the folder of the masks in the `images/` layout; `model` the model
    whose text encoder the notes' lengths are held against.

    Raises:
        DataError: there is no data set; ConfigError: an option that cannot be.
    """
    if side not in ("viewer", "patient"):
        raise ConfigError(f"no side '{side}'; whose left do the notes mean: viewer or patient?")
    fields: dict[str, object] = {"side": side}
    if masks is not None:
        fields["mask_folder"] = masks
    limits: dict[str, Any] = {}
    if model is not None:
        text = getattr(load_segmenter(model, device="cpu").segmenter, "text", None)
        if text is not None:
            limits = {"max_words": text.limit, "count_words": lambda note: text.lengths([note])[0]}
    settings = detect(root, **fields)
    source = settings.build()  # type: ignore[attr-defined]

    def say(done: int, total: int) -> None:
        if done % 100 == 0 or done == total:
            progress(f"checked {done}/{total}")

    findings = check.check(source, progress=say, **limits)
    progress(f"read as '{settings.kind().rpartition('.')[2]}'; {check.summary(source)}")
    return findings
