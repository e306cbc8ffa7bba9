"""Write a segmenter's graphs for a runtime, and hold each against torch."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from medtextdiff.segmentation.graphs.checking import check
from medtextdiff.segmentation.graphs.description import TOKENIZER, Check, Config
from medtextdiff.segmentation.graphs.exported import Session
from medtextdiff.segmentation.graphs.traced import Graph, cases, graphs_of
from medtextdiff.segmentation.models.fasttextdiff import FastTextDiff
from medtextdiff.text import graph as text_graph


@runtime_checkable
class Runtime(Protocol):
    """What a part of `segmentation.runtimes` builds."""

    def versions(self) -> dict[str, str]:
        """Of the packages that run the graphs."""
        ...

    def write(self, graph: Graph, folder: Path) -> None:
        """Write one graph into `folder`."""
        ...

    def open(self, folder: Path, name: str) -> Session:
        """One graph, ready to run."""
        ...


def write_graphs(
    segmenter: nn.Module,
    runtime: Runtime,
    folder: Path,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[tuple[str, ...], tuple[Check, ...]]:
    """Write all graphs of `segmenter` (and its tokenizer) into `folder`; gives their names and how each was checked.

    Raises:
        ConfigError, TextError: a segmenter that cannot be exported, or a graph that departs from torch.
    """
    segmenter = _plain(segmenter)
    multiple, graphs = multiple_of(segmenter), graphs_of(segmenter)
    text: Any = getattr(segmenter, "text", None)
    limit = None if text is None else text_graph.Config.of(text).limit
    checks: list[Check] = []
    for graph in graphs:
        progress(f"exporting the graph '{graph.name}'")
        runtime.write(graph, folder)
        session = runtime.open(folder, graph.name)
        found = [check(graph, session, case, multiple) for case in cases(multiple, limit)]
        progress(f"'{graph.name}' departs from torch by at most {max(one.error for one in found):.1e}")
        checks += found
    if text is not None:
        text.tokenizer.save_pretrained(folder / TOKENIZER)
    return tuple(graph.name for graph in graphs), tuple(checks)


def describe(segmenter: Any, graphs: Sequence[str], checks: Sequence[Check], **about: Any) -> Config:
    """The description of `segmenter`'s graphs; `about` are the fields that say where they come from."""
    shared: dict[str, Any] = {"graphs": tuple(graphs), "checks": tuple(checks), "multiple": multiple_of(segmenter)}
    if isinstance(segmenter, FastTextDiff):
        text = None if segmenter.text is None else text_graph.Config.of(segmenter.text)
        shared |= {"strides": segmenter.strides, "features": segmenter.features.settings, "text": text}
    return Config(num_classes=segmenter.num_classes, **shared, **about)


def multiple_of(segmenter: Any) -> int:
    """Image sides that the graphs take are multiples of this."""
    return int(
        segmenter.denoiser.multiple if isinstance(segmenter, FastTextDiff) else getattr(segmenter, "multiple", 1)
    )


def _plain(segmenter: nn.Module) -> nn.Module:
    """A copy in eval mode on the CPU, float32, in the usual order of memory."""
    return copy.deepcopy(segmenter).cpu().float().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
