"""One loop for every job."""

from medtextdiff.training.errors import Interrupted, RunError, TrainingError

__all__ = ["Interrupted", "RunError", "TrainingError"]
