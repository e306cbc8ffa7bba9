"""What goes wrong with a training run."""


class RunError(ValueError):
    """A run folder that cannot be used as it is; the message names the file and says what to do."""


class TrainingError(RuntimeError):
    """Training that cannot go on, e.g. a loss that is not a number. `step` is the update that failed."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Interrupted(RuntimeError):  # noqa: N818 (not an error: what was asked for)
    """Training that was asked to stop (SIGTERM, Ctrl-C) and has saved itself after `step` updates."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
