"""Levels on disk: one file for each key, read by memory map, written whole or not at all, the least used dropped.

A file is a preamble (mark, CRC-32 of the rest, header's length, file's length), a header in JSON, and the levels'
numbers in the order they have in memory, each on a 64-byte border. Several processes may use one folder.
"""

import json
import logging
import os
import shutil
import struct
import time
import zlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medtextdiff.data.atomic import whole_file
from medtextdiff.data.errors import DataError
from medtextdiff.types import Levels

SUFFIX = ".levels"
RESERVE = 2_000_000_000  # bytes of the disk that are left to others, as a run's checkpoints
_MARK = b"MTDBANK1"
_PREAMBLE = struct.Struct("<8sIIQ")
_CHECKED = 12  # the CRC covers everything from here on
_BORDER = 64
_MAX_VERIFIED = 100_000  # keys remembered; more are checked again
_STALE = 3600.0  # seconds after which a half-written file is nobody's any more

_log = logging.getLogger(__name__)


class Store:
    """Levels by key, in `folder`, which is made when the first ones are kept."""

    def __init__(self, folder: Path, budget: int) -> None:
        """`budget`: bytes that all files may take together; with several writers it may be passed by a twentieth."""
        self.folder, self.budget = folder, budget
        self.kept = self.dropped = 0
        self._verified: dict[str, tuple[int, ...]] = {}
        self._used: int | None = None  # None: not counted yet
        self._unseen = 0  # bytes written since the folder was last looked through
        self._oldest: deque[tuple[int, Path]] = deque()
        self._warned = False

    def read(self, key: str) -> Levels | None:
        """The levels as private views of the memory-mapped file, or None: not there, cut short, or damaged.

        A file is checked against its CRC when it is first read, and again when anybody changed it since.
        """
        path = self._path(key)
        try:
            before = _signature(path)
            memory: Any = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=before[1])
        except (OSError, RuntimeError):  # RuntimeError: torch's word for a file it cannot map
            return None
        header = _header(memory, key, check=self._verified.get(key) != before)
        if header is None:
            return None
        self._remember(key, path)
        return [_view(memory, about) for about in header["levels"]]

    def write(self, key: str, levels: Levels, dtypes: Sequence[torch.dtype]) -> bool:
        """Keep levels, which `read` gives back as `dtypes`: a copy where that is not their own type, else a view.

        False, and one warning for all times, where the disk refuses. Nothing half-written stays.
        """
        path = self._path(key)
        parts, size = _packed(key, levels, dtypes)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free < size + RESERVE:
                return self._refused(f"less than {RESERVE // 10**9} GB are free on its disk")
            with whole_file(path, overwrite=True) as file:
                for part in parts:
                    file.write(part)
        except (OSError, DataError) as error:
            return self._refused(" ".join(str(error).split()))
        self.kept += 1
        with suppress(OSError):
            self._remember(key, path)
        self._make_room(path, size)
        return True

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / (key[2:] + SUFFIX)

    def _remember(self, key: str, path: Path) -> None:
        """Note that the file is whole, and by its time when it was last used."""
        now = time.time_ns()
        with suppress(OSError):  # read-only, or dropped meanwhile: the map stays good
            os.utime(path, ns=(now, now))
        if len(self._verified) >= _MAX_VERIFIED:
            self._verified.clear()
        with suppress(OSError):
            self._verified[key] = _signature(path)

    def _refused(self, reason: str) -> bool:
        if not self._warned:
            self._warned = True
            _log.warning("the feature bank %s keeps no more levels, the work goes on: %s", self.folder, reason)
        return False

    def _make_room(self, new: Path, size: int) -> None:
        """Drop the least used files but `new` until all fit the budget."""
        self._unseen += size
        if self._used is None or self._unseen > self.budget / 20:
            self._scan()
        else:
            self._used += size
        rescanned = False
        while self._used is not None and self._used > self.budget:
            if not self._oldest:
                if rescanned:
                    return
                self._scan()
                rescanned = True
                continue
            time_used, path = self._oldest.popleft()
            if path != new:
                self._drop(path, time_used)

    def _drop(self, path: Path, time_used: int) -> None:
        with suppress(OSError):  # dropped by another process
            about = path.stat()
            if about.st_mtime_ns == time_used:  # else it was used since
                path.unlink()
                self._used = (self._used or 0) - about.st_size
                self.dropped += 1

    def _scan(self) -> None:
        """Count what is there, least used first; clear what killed processes left."""
        found, self._used = [], 0
        for path in self.folder.glob("[0-9a-f][0-9a-f]/*"):
            with suppress(OSError):
                about = path.stat()
                if path.suffix == SUFFIX:
                    found.append((about.st_mtime_ns, path))
                    self._used += about.st_size
                elif path.suffix == ".tmp" and time.time() - about.st_mtime > _STALE:
                    path.unlink()
        self._oldest, self._unseen = deque(sorted(found)), 0


def _signature(path: Path) -> tuple[int, ...]:
    about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


def _packed(key: str, levels: Levels, dtypes: Sequence[torch.dtype]) -> tuple[list[Any], int]:
    """What is written, piece by piece, and its length."""
    dense = [_dense(level) for level in levels]
    about, end = [], 0
    for level, dtype in zip(dense, dtypes, strict=True):
        place = {"at": end, "shape": list(level.shape), "stride": list(level.stride())}
        about.append(place | {"stored": _name(level.dtype), "dtype": _name(dtype)})
        end = _next_border(end + level.numel() * level.element_size())
    head = json.dumps({"key": key, "levels": about}).encode()
    head += b" " * (_next_border(_PREAMBLE.size + len(head)) - _PREAMBLE.size - len(head))
    parts: list[Any] = [head]
    for level in dense:
        content = _bytes(level)
        parts += [content, bytes(_next_border(len(content)) - len(content))]
    size = _PREAMBLE.size + len(head) + end
    check = zlib.crc32(_PREAMBLE.pack(_MARK, 0, len(head), size)[_CHECKED:])
    for part in parts:
        check = zlib.crc32(part, check)
    return [_PREAMBLE.pack(_MARK, check, len(head), size), *parts], size


def _dense(level: Tensor) -> Tensor:
    level = level.detach().cpu()
    whole = level.is_contiguous() or (level.ndim == 4 and level.is_contiguous(memory_format=torch.channels_last))
    return level if whole else level.contiguous()


def _bytes(level: Tensor) -> memoryview:
    flat: Any = level.as_strided((level.numel(),), (1,)).view(torch.uint8).numpy()  # channels-last or not
    return memoryview(flat)


def _header(memory: torch.UntypedStorage, key: str, check: bool) -> dict[str, Any] | None:
    """The header of a whole file of this key; None for anything else."""
    if memory.nbytes() < _PREAMBLE.size:
        return None
    whole: Any = torch.empty(0, dtype=torch.uint8).set_(memory, 0, (memory.nbytes(),), (1,)).numpy()
    content = memoryview(whole)
    mark, crc, length, size = _PREAMBLE.unpack(content[: _PREAMBLE.size])
    if mark != _MARK or size != memory.nbytes():
        return None
    if check and zlib.crc32(content[_CHECKED:]) != crc:
        return None
    header: dict[str, Any] = json.loads(bytes(content[_PREAMBLE.size : _PREAMBLE.size + length]))
    header["levels"] = [about | {"at": about["at"] + _PREAMBLE.size + length} for about in header["levels"]]
    return header if header["key"] == key else None


def _view(memory: torch.UntypedStorage, about: dict[str, Any]) -> Tensor:
    stored: torch.dtype = getattr(torch, about["stored"])
    level = torch.empty(0, dtype=stored).set_(memory, about["at"] // stored.itemsize, about["shape"], about["stride"])
    return level.to(getattr(torch, about["dtype"]))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _next_border(length: int) -> int:
    return -(-length // _BORDER) * _BORDER
