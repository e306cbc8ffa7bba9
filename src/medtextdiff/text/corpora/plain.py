"""Plain text files, or folders of them: UTF-8, one blank line between documents."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field

from medtextdiff import config
from medtextdiff.text.errors import TextError
from medtextdiff.text.reading.files import below
from medtextdiff.text.reading.splits import Split, split_of


class Config(config.Config):
    """Where the texts lie, and how often they are read."""

    paths: tuple[str, ...] = ()  # files, or folders of *.txt
    heldout: float = Field(default=0.02, ge=0, lt=1)  # share of documents kept out of training
    repeat: int = Field(default=1, ge=1)  # times that each training document is read: weight among other corpora

    def build(self) -> "PlainCorpus":
        """The corpus; files are looked up now and read when asked for."""
        return PlainCorpus(self.paths, self.heldout, self.repeat)


class PlainCorpus:
    """Documents of text files, streamed, exact duplicates dropped."""

    def __init__(self, paths: Iterable[str | Path], heldout: float = 0.02, repeat: int = 1) -> None:
        """Look up the files.

        Raises:
            TextError: no path given, a path that is not there, a folder without *.txt.
        """
        self.files = [file for path in paths for file in _files(Path(path).expanduser())]
        if not self.files:
            raise TextError("a plain corpus needs files; give paths=FILE.txt or a folder of *.txt files")
        self._heldout, self._repeat = heldout, repeat

    def documents(self, split: Split = "train", once: bool = False) -> Iterator[str]:
        """The documents of one split, in file order; a document is in the same split in every corpus.

        `once`: not `repeat` times.

        Raises:
            TextError: a file that is not UTF-8.
        """
        for _ in range(self._repeat if split == "train" and not once else 1):
            yield from split_documents(self._all(), split, self._heldout)

    def _all(self) -> Iterator[str]:
        for file in self.files:
            try:
                yield from _paragraphs(file)
            except UnicodeDecodeError:
                raise TextError(f"'{file.name}' is not UTF-8 text; save it as UTF-8") from None


def split_documents(documents: Iterable[str], split: Split, heldout: float) -> Iterator[str]:
    """The distinct documents that belong to `split`; which one does depends on the document's text alone."""
    seen: set[bytes] = set()
    for document in documents:
        digest = hashlib.blake2b(document.encode(), digest_size=16).digest()
        if digest in seen:
            continue
        seen.add(digest)
        if split_of(document, heldout) == split:
            yield document


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise TextError(f"no text file or folder '{path}'; check the path")
    found = below(path, (".txt",))
    if not found:
        raise TextError(f"the folder '{path}' holds no *.txt file")
    return found


def _paragraphs(file: Path) -> Iterator[str]:
    lines: list[str] = []
    with file.open(encoding="utf-8-sig") as stream:
        for line in stream:
            if line.strip():
                lines.append(line.rstrip("\n"))
            elif lines:
                yield "\n".join(lines)
                lines = []
    if lines:
        yield "\n".join(lines)
