"""Which documents are learned from and which are kept out: by a hash, so that nothing has to be remembered."""

import hashlib
from typing import Literal

Split = Literal["train", "heldout"]


def split_of(document: str, heldout: float) -> Split:
    """The split of a document without a patient, by its text alone: the same in every corpus that holds it."""
    return _by(document.encode(), 16, heldout)


def split_of_patient(patient: str, heldout: float, seed: int) -> Split:
    """The split of all that is told of a patient."""
    return _by(f"{seed} {patient}".encode(), 8, heldout)


def _by(key: bytes, digest_size: int, heldout: float) -> Split:
    digest = hashlib.blake2b(key, digest_size=digest_size).digest()
    return "heldout" if int.from_bytes(digest[:8], "big") < heldout * 2**64 else "train"
