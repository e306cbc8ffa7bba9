"""Where records come from: one file per layout of a data set."""

from pathlib import Path

from medtextdiff import config
from medtextdiff.data.errors import DataError


def detect(root: str | Path, **fields: object) -> config.Config:
    """The source that fits a path, as its config; `fields` go into it (e.g. `side="patient"`).

    Raises:
        DataError: nothing fits, or the layout has no such field; the message says what each layout would need.
    """
    from medtextdiff.data.sources import folders, lvit, manifest, medvqa_gi, rocov2

    path = Path(root)
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".xlsx"):
        return _config(manifest.Config, path, fields)
    if any((path / name).is_dir() for name in lvit.FOLDERS.values()):
        return _config(lvit.Config, path, fields)
    if (path / medvqa_gi.TABLE).is_file() and not _has_notes(path):
        return _config(medvqa_gi.Config, path, fields)
    if any((path / f"{name}{rocov2.CAPTIONS}").is_file() for name in rocov2.SPLITS.values()):
        return _config(rocov2.Config, path, fields)
    if (path / "images").is_dir():
        return _config(folders.Config, path, _without_table(path) | fields)
    for name in ("manifest.csv", "manifest.jsonl"):
        if (path / name).is_file():
            return _config(manifest.Config, path / name, fields)
    if not path.exists():
        raise DataError(f"{path} does not exist; check the path")
    raise DataError(
        f"{path} fits no known layout; it needs images/ (with masks/ and notes.csv), or Train_Folder/ with img/ and "
        "labelcol/ (LViT), or prompt-gt.csv (MEDVQA-GI), or train_captions.csv (ROCOv2), or a table manifest.csv with "
        "the columns image, mask, note, split"
    )


def _config(kind: type[config.Config], path: Path, fields: dict[str, object]) -> config.Config:
    for name in fields:
        if name not in kind.model_fields:
            option = {"mask_folder": "--masks", "side": "--side"}.get(name, name)
            raise DataError(
                f"{path} is read as '{kind.kind().rpartition('.')[2]}', which has no choice of {option}; leave it out"
            )
    return kind.model_validate({"root": str(path), **fields})


def _without_table(path: Path) -> dict[str, object]:
    return {} if _has_notes(path) else {"notes": None}


def _has_notes(path: Path) -> bool:
    return any((path / f"notes{suffix}").is_file() for suffix in (".csv", ".xlsx", ".jsonl"))
