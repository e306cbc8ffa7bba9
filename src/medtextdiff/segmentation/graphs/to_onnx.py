"""A traced graph as an ONNX file: by torch.export, so that batch, image size and note length stay open."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import torch

from medtextdiff.config import ConfigError
from medtextdiff.segmentation.graphs.traced import EXAMPLE, Graph

_LOGGER = "torch.onnx"  # says at every export that torchvision is not there


def write_onnx(graph: Graph, folder: Path) -> Path:
    """Write `NAME.onnx` with its weights beside it (`NAME.onnx.data`), float32.

    Raises:
        ConfigError: torch cannot trace the graph, or took a side that varies for a fixed one.
    """
    inputs = graph.draw(EXAMPLE, torch.Generator().manual_seed(0))
    target = folder / f"{graph.name}.onnx"
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(graph.module, tuple(inputs.values()), dynamic_shapes=_sides(graph))
            written = torch.onnx.export(
                program, input_names=list(inputs), output_names=list(graph.outputs), dynamo=True, verbose=False
            )
            assert written is not None
            fixed = _fixed(graph, written)
    except Exception as error:  # a tracer meets any network; what it raises is of every kind
        raise ConfigError(f"torch cannot export the graph '{graph.name}': {_one_line(error)}") from error
    if fixed:
        raise ConfigError(f"the graph '{graph.name}' came out with fixed sides: {', '.join(fixed)}; this torch cannot")
    written.save(target, external_data=True)  # a protobuf holds 2 GB at most
    return target


def _sides(graph: Graph) -> tuple[Any, ...]:
    """The sides in the form of the module's signature: one tuple where it takes any number of tensors."""
    sides = tuple(graph.sides[name] for name in graph.sides)
    return (sides,) if graph.name == "decode" else sides


def _fixed(graph: Graph, written: object) -> list[str]:
    shapes = {value.name: value.shape for value in written.model.graph.inputs}  # type: ignore[attr-defined]
    sides = [(name, side) for name, some in graph.sides.items() if name in shapes for side in some]
    return [f"{name}[{side}]" for name, side in sides if isinstance(shapes[name][side], int)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger, checked = logging.getLogger(_LOGGER), jaxtyping.config.jaxtyping_disable
    level = logger.level
    logger.setLevel(logging.ERROR)
    jaxtyping.config.update("jaxtyping_disable", True)  # a traced size is no int, which our tests' checks refuse
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", checked)
        logger.setLevel(level)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
