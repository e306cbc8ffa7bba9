"""What a run says of itself in files: `metrics.jsonl`, and TensorBoard where asked for."""

import json
import math
from pathlib import Path
from typing import Any

from medtextdiff.training import disk


class Log:
    """Appends lines to `metrics.jsonl`; lines after `step` (of a run that was killed and resumed) are cut off first.

    `accelerator` passes the numbers on to its trackers (TensorBoard) when it has any.
    """

    def __init__(self, run_dir: Path, step: int, accelerator: Any) -> None:
        self.path = run_dir / "metrics.jsonl"
        self._accelerator = accelerator
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        kept = "".join(line for line in lines if _step(line) <= step)
        disk.write_whole(self.path, lambda temporary: temporary.write_text(kept, encoding="utf-8"))

    def add(self, event: str, step: int, values: dict[str, float | bool]) -> None:
        """One line `{"event": event, "step": step, ...}`."""
        told = {name: value if math.isfinite(value) else None for name, value in values.items()}  # JSON has no NaN
        with disk.writing(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, "step": step} | told) + "\n")
        numbers = {f"{event}/{name}": float(value) for name, value in values.items()}
        self._accelerator.log(numbers, step=step)


def _step(line: str) -> float:
    """The step of a line; a line that a kill cut short has none and counts as the last."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
