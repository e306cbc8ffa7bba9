"""One process writes one run: the file `.lock` of a run folder."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medtextdiff.training import disk
from medtextdiff.training.errors import RunError


@contextmanager
def held(run_dir: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of `run_dir` for the block.

    The file holds a process id and when that process started. A lock whose process is gone (killed) is taken over,
    and said.

    Raises:
        RunError: a living process holds it, the file is not a lock of ours, or the disk is full.
    """
    path = run_dir / ".lock"
    if path.exists():
        _remove_stale(path, say)
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        raise RunError(f"{path}: another process took this run a moment ago; choose another run folder") from None
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; choose another run folder") from None
    try:
        with disk.writing(path), os.fdopen(file, "w") as stream:
            json.dump({"pid": os.getpid(), "started": _started(os.getpid())}, stream)
        yield
    finally:
        path.unlink(missing_ok=True)


def _remove_stale(path: Path, say: Callable[[str], None]) -> None:
    text = path.read_text()
    try:
        pid, started = int(json.loads(text)["pid"]), float(json.loads(text)["started"])
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path} is not a lock of ours; delete it if no process writes this run") from None
    if _started(pid) == started:
        raise RunError(f"process {pid} is writing this run ({path}); wait for it, end it, or choose another run folder")
    say(f"taking over the lock of process {pid}, which is gone ({path})")
    aside = path.with_name(f".lock.{secrets.token_hex(4)}")
    os.replace(path, aside)
    if aside.read_text() != text:  # another process was quicker, and this lock is its new one
        os.replace(aside, path)
        raise RunError(f"{path}: another process took this run a moment ago; choose another run folder")
    aside.unlink()


def _started(pid: int) -> float | None:
    """When a process started, or None if there is none: a process id alone may be somebody else's by now.

    On Linux in seconds since the boot: the time of day at which it started changes when the clock is set.
    """
    import psutil  # comes with accelerate

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return round(process.create_time() - psutil.boot_time(), 2) if psutil.LINUX else process.create_time()
    except psutil.NoSuchProcess:
        return None
