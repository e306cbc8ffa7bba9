"""A folder of generated images, as `medtextdiff generate` writes it: images and `prompts.csv`."""

import re
from dataclasses import dataclass
from pathlib import Path

from medtextdiff.data.errors import DataError
from medtextdiff.data.tables import is_file, join, read_table

TABLE = "prompts.csv"
_SEED = re.compile("-?[0-9]{1,19}")
SYNTHETIC = {"Synthetic": "yes; made by a model, no image of a patient", "Software": "medtextdiff"}  # text of a PNG


@dataclass(frozen=True)
class Generated:
    """One generated image: from which prompt, seed and model. `pair` names two wordings of one thing, where given."""

    image: Path
    prompt: str
    seed: int
    model: str
    pair: str = ""


def read_generated(folder: str | Path) -> list[Generated]:
    """The images that `prompts.csv` (columns file, prompt; seed, model, pair may be absent) lists, in its order.

    Raises:
        DataError: no folder, table or column; a file twice or not there; a seed that is no number. Names the line.
    """
    folder = Path(folder)
    table = folder / TABLE
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give what `medtextdiff generate` wrote")
    if not table.is_file():
        raise DataError(f"{folder} has no {TABLE}; it names each image's prompt (columns file, prompt, seed, model)")
    rows = read_table(table, ("file", "prompt"), ("seed", "model", "pair"))
    lost = [f"line {row.number}" for row in rows if not row.cells["file"] or not is_file(folder / row.cells["file"])]
    if lost:
        raise DataError(f"{table}: {len(lost)} images are not there ({join(lost)}); generate them again to resume")
    seen: dict[str, int] = {}
    found = []
    for row in rows:
        name, seed = row.cells["file"], row.cells.get("seed", "") or "0"
        if name in seen:
            raise DataError(f"{table}, line {row.number}: this file is listed in line {seen[name]} already")
        seen[name] = row.number
        if not _SEED.fullmatch(seed):
            raise DataError(f"{table}, line {row.number}: a seed is a whole number")
        model, pair = row.cells.get("model", ""), row.cells.get("pair", "")
        found.append(Generated(folder / name, row.cells["prompt"], int(seed), model or folder.name, pair))
    return found
