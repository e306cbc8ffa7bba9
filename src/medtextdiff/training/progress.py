"""What a person sees of a run while it goes on: a bar on a terminal, otherwise a line now and then."""

import sys
import time
from types import TracebackType
from typing import Any

EVERY = 30.0  # seconds between plain lines


def say(line: str) -> None:
    """One line to the person who started the run, on standard error."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """A context that shows step, loss and the time that is left."""

    def __init__(self, step: int, total: int, enabled: bool = True, seconds: float | None = None) -> None:
        """`seconds`: what is left of a time budget, if there is one."""
        self._first, self._total, self._enabled, self._seconds = step, total, enabled, seconds
        self._begun = self._spoken = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        if self._enabled and sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, completed=self._first)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, step: int, loss: float) -> None:
        """Tell that `step` updates are done, the last one with this loss."""
        if self._bar is not None:
            clock = "" if self._seconds is None else f", at most {_clock(self._time_left())} left"
            self._bar.update(self._task, completed=step, description=f"loss {loss:.4f}{clock}")
            return
        now = time.monotonic()
        if self._enabled and (now - self._spoken >= EVERY or step == self._total):
            self._spoken = now
            left = (now - self._begun) / max(1, step - self._first) * (self._total - step)
            if self._seconds is not None:
                left = min(left, self._time_left())
            say(f"step {step}/{self._total}  loss {loss:.4f}  {_clock(left)} left")

    def _time_left(self) -> float:
        return max(0.0, self._begun + (self._seconds or 0.0) - time.monotonic())


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
    return RichProgress(*columns, TextColumn("{task.description}"), console=Console(stderr=True))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
