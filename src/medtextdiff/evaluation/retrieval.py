"""Is the nearest candidate the one that says the same?"""

import numpy as np
from jaxtyping import Float, Int


def ranks(queries: Float[np.ndarray, "N D"], candidates: Float[np.ndarray, "M E"]) -> Int[np.ndarray, " N"]:
    """The place, from 1, of each query's own candidate (the row of the same number) by cosine.

    Either side is centred on its own mean first: else a direction that all sentences share would decide. A candidate
    that is exactly as near counts as nearer, so features that are all alike win nothing. Recall@1 is the share of
    ranks of 1, MRR the mean of 1 / rank.

    Raises:
        ValueError: shapes that differ.
    """
    if queries.shape != candidates.shape:
        raise ValueError(f"each query needs its candidate; got {queries.shape} and {candidates.shape}")
    near = _unit(queries) @ _unit(candidates).T
    own = np.diagonal(near)[:, None]
    return (near >= own - 1e-9).sum(axis=1).astype(np.int64)


def _unit(rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    rows = rows - rows.mean(axis=0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)
