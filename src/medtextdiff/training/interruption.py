"""SIGTERM and Ctrl-C as a wish to stop, granted between two steps."""

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """A context in which the first SIGTERM or SIGINT only sets `wanted`; a second SIGINT stops at once.

    The handlers that were there come back at the end. Outside the main thread signals cannot be caught, and
    nothing is changed.
    """

    def __init__(self) -> None:
        self.wanted: str | None = None  # the signal's name
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.wanted = signal.Signals(number).name
