"""The development set of ImageCLEFmed MEDVQA-GI 2024: colonoscopy and gastroscopy with about ten prompts an image.

    root/prompt-gt.csv: Prompt;Filename (one row for each prompt)    root/images/

Each prompt tells one attribute (what, how many, where, which colours), so a prompt is a partial label of its image.
The set has no splits: images fall by a hash of their file names, with all their prompts. (Splitting the *rows*, as was
done before, puts every image on both sides.)
"""

from functools import partial
from pathlib import Path

from pydantic import Field

from medtextdiff import config
from medtextdiff.data import made_up
from medtextdiff.data.errors import DataError
from medtextdiff.data.listing import Entry, gather
from medtextdiff.data.records import Listing, Source, split_records
from medtextdiff.data.tables import read_table
from medtextdiff.types import Side

TABLE = "prompt-gt.csv"


class Config(config.Config):
    """MEDVQA-GI in its official layout. `val_share` of the images are held out, which ones `split_seed` decides.

    A column `Paraphrase`, where there is one, gives further prompts.
    """

    root: str
    images: str = "images"
    val_share: float = Field(default=0.1, ge=0, lt=1)
    split_seed: int = 0
    side: Side = "viewer"

    def build(self) -> Source:
        """The source; nothing is read yet."""
        return Source(self.root, partial(_scan, self), self.side)

    @classmethod
    def tiny(cls, folder: Path) -> "Config":
        """Write a made-up set into `folder` and give its config."""
        made = made_up.write(folder)
        rows = [f"{e.note};{e.name}.png\nA bright disc, number {k};{e.name}.png\n" for k, e in enumerate(made)]
        (folder / TABLE).write_text("Prompt;Filename\n" + "".join(rows), encoding="utf-8")
        return cls(root=str(folder))


def _scan(settings: Config) -> Listing:
    root = Path(settings.root)
    table, folder = root / TABLE, root / settings.images
    if not folder.is_dir():
        raise DataError(f"{root} has no folder '{settings.images}'; put the images there or set `images`")
    entries = []
    for row in read_table(table, ["Prompt", "Filename"], ["Paraphrase"]):
        if not row.cells["Filename"]:
            raise DataError(f"table {table}, line {row.number}: no image is named; fill in or delete the row")
        notes = [row.cells["Prompt"], row.cells.get("Paraphrase", "")]
        image = folder / row.cells["Filename"]
        entries.append(Entry(f"{TABLE} line {row.number}", image, None, tuple(note for note in notes if note)))
    listing = gather(entries, folder)
    shares = {"val": settings.val_share, "train": 1 - settings.val_share}
    return Listing(tuple(split_records(listing.records, shares, settings.split_seed)), listing.findings)
