"""Exported graphs against torch, on random inputs of several batches, sizes and note lengths."""

import torch
from torch import Tensor

from medtextdiff.config import ConfigError
from medtextdiff.segmentation.graphs.description import TOLERANCE, Check
from medtextdiff.segmentation.graphs.exported import Session
from medtextdiff.segmentation.graphs.traced import Case, Graph


def check(graph: Graph, session: Session, case: Case, multiple: int) -> Check:
    """The error of one graph on one case.

    Raises:
        ConfigError: the error is above `TOLERANCE`, or a value is no number.
    """
    seed = hash((case.batch, case.rows, case.columns, case.words)) % 2**31  # of integers: the same in every process
    inputs = graph.draw(case, torch.Generator().manual_seed(seed))
    error = relative_error(session(inputs), graph.run(inputs))
    size = (case.rows * multiple, case.columns * multiple)
    if not error <= TOLERANCE:
        raise ConfigError(
            f"the exported graph '{graph.name}' departs from torch by {error:.1e} of the largest value (batch "
            f"{case.batch}, {size[0]} x {size[1]} pixels, {case.words} words; {TOLERANCE:g} is allowed); "
            "nothing was written"
        )
    return Check(
        graph=graph.name, batch=case.batch, height=size[0], width=size[1], words=case.words, error=float(f"{error:.2e}")
    )


def relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference as a share of the largest expected value, of the worst output; inf for other shapes."""
    errors = [0.0]
    for ours, theirs in zip(found, expected, strict=True):
        if ours.shape != theirs.shape or not bool(ours.isfinite().all()):
            return float("inf")
        errors.append(float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12)))
    return max(errors)
