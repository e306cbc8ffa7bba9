"""How long a run was trained."""

import json
from pathlib import Path

from medtextdiff.evaluation.report import read_curves
from medtextdiff.training.components import MANIFEST

KEY = "training_hours"  # in the manifest of a packed run, which has no metrics


def training_hours(run: str | Path) -> float | None:
    """By the clock, over all its sessions: of `metrics.jsonl`, or as `pack` wrote it down; None where neither says."""
    path = Path(run) / "metrics.jsonl"
    if path.is_file():
        seconds = [float(line["seconds"]) for line in read_curves(path) if "seconds" in line]
        return max(seconds) / 3600 if seconds else None
    manifest = Path(run) / MANIFEST
    told = json.loads(manifest.read_text(encoding="utf-8")).get(KEY) if manifest.is_file() else None
    return None if told is None else float(told)
