"""Where records come from: one file per layout of a data set."""

from pathlib import Path

from medtextdiff import config
from medtextdiff.data.errors import DataError
from medtextdiff.data.tables import SUFFIXES


def detect(root: str | Path, **fields: object) -> config.Config:
    """The source that fits a path, as its config; `fields` go into it (e.g. `side="patient"`).

    Raises:
        DataError: nothing fits, or the layout has no such field; the message says what each layout would need.
    """
    from medtextdiff.data.sources import folders, lvit, manifest, medvqa_gi, rocov2

    path = Path(root)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return settled(manifest.Config(root=str(path)), **fields)
    if any((path / name).is_dir() for name in lvit.FOLDERS.values()):
        return settled(lvit.Config(root=str(path)), **fields)
    if (path / medvqa_gi.TABLE).is_file() and not _has_notes(path):
        return settled(medvqa_gi.Config(root=str(path)), **fields)
    if any((path / f"{name}{rocov2.CAPTIONS}").is_file() for name in rocov2.SPLITS.values()):
        return settled(rocov2.Config(root=str(path)), **fields)
    if (path / "images").is_dir():
        return settled(folders.Config(root=str(path)), **(_without_table(path) | fields))
    for name in (f"manifest{suffix}" for suffix in SUFFIXES):
        if (path / name).is_file():
            return settled(manifest.Config(root=str(path / name)), **fields)
    if not path.exists():
        raise DataError(f"{path} does not exist; check the path")
    raise DataError(
        f"{path} fits no known layout; it needs images/ (with masks/ and notes.csv), or Train_Folder/ with img/ and "
        "labelcol/ (LViT), or prompt-gt.csv (MEDVQA-GI), or train_captions.csv (ROCOv2), or a table manifest.csv with "
        "the columns image, mask, note, split"
    )


def settled(source: config.Config, **fields: object) -> config.Config:
    """The source with some fields changed.

    Raises:
        DataError: its layout has no such field, since it knows that itself.
    """
    for name, value in fields.items():
        if name not in type(source).model_fields:
            option = {"mask_folder": "--masks"}.get(name, name)
            layout, root = source.kind().rpartition(".")[2], getattr(source, "root", "")
            raise DataError(
                f"{root} is read as '{layout}', which has no choice of {option}; leave out {option} {value}"
            )
    return source.replace(**fields)


def _without_table(path: Path) -> dict[str, object]:
    return {} if _has_notes(path) else {"notes": None}


def _has_notes(path: Path) -> bool:
    return any((path / f"notes{suffix}").is_file() for suffix in SUFFIXES)
