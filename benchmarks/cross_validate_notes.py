"""What is the right note worth on a set too small for one split? Each image is judged by a model that never saw it.

    python benchmarks/cross_validate_notes.py DATA OUT [--folds 5] [--recipe segmentation.fasttextdiff_compared]

DATA has the layout images/, masks/, notes.csv; its images are dealt to the folds by the CRC-32 of their names, whatever
their split. One model a fold is trained on the other folds, and judged with the right notes, with none and with wrong
ones. What is done is not done again, so a run that was stopped goes on.
"""

import argparse
import csv
import subprocess
import sys
import zlib
from pathlib import Path

from medtextdiff.evaluation.statistics import holm, paired_test

NOTES = ("right", "none", "wrong")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--recipe", default="segmentation.fasttextdiff_compared")
    options = parser.parse_args()
    if not (options.data / "notes.csv").is_file():
        parser.error(f"{options.data} has no notes.csv; give a folder with images/, masks/ and notes.csv")
    if options.folds < 2:
        parser.error("give at least 2 folds")
    dice: dict[str, dict[str, float]] = {notes: {} for notes in NOTES}
    for number in range(options.folds):
        fold = options.out / f"fold{number}"
        deal(options.data, fold / "data", number, options.folds)
        run, root = str(fold / "run"), str(fold / "data")
        if not (fold / "run" / "manifest.json").exists():
            call("train", options.recipe, "--set", f"data.root={root}", "-o", run)
        for notes in NOTES:
            if not (fold / notes).exists():
                call("evaluate", run, "--data", root, "--notes", notes, "-o", str(fold / notes))
            dice[notes] |= scores(fold / notes / "per_image.csv")
    images = sorted(dice["right"])
    columns = {notes: [100 * dice[notes][image] for image in images] for notes in NOTES}
    tests = {notes: paired_test(columns["right"], columns[notes], seed=0) for notes in NOTES[1:]}
    print(f"{len(images)} images, {options.folds} models\nright  {sum(columns['right']) / len(images):.2f}")
    for (notes, test), p_value in zip(tests.items(), holm([test.p_value for test in tests.values()]), strict=True):
        mean, low, high = test.difference
        print(
            f"{notes:5}  {sum(columns[notes]) / len(images):.2f}  "
            f"right less {notes}: {mean:+.2f} [{low:+.2f}, {high:+.2f}], p = {p_value:.2g} (Holm)"
        )
    return 0


def deal(data: Path, folder: Path, number: int, folds: int) -> None:
    """`data` once more, by links, with fold `number` as its split `val` and all else as `train`."""
    with open(data / "notes.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = sorted((row["image"] for row in rows), key=lambda name: zlib.crc32(name.encode()))
    held_out = set(images[number::folds])
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("images", "masks"):
        if not (folder / name).exists():
            (folder / name).symlink_to((data / name).resolve())
    with open(folder / "notes.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows({**row, "split": "val" if row["image"] in held_out else "train"} for row in rows)


def scores(path: Path) -> dict[str, float]:
    """The Dice of each image."""
    with open(path, encoding="utf-8", newline="") as file:
        return {row["id"]: float(row["foreground_dice"]) for row in csv.DictReader(file)}


def call(*words: str) -> None:
    """One command of ours, in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "medtextdiff", *words])
    if done.returncode:  # it has said why
        sys.exit(done.returncode)


if __name__ == "__main__":
    sys.exit(main())
