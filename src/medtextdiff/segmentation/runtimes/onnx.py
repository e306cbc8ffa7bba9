"""ONNX Runtime on the CPU, float32. `pip install 'medtextdiff[onnx]'`."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.segmentation.graphs.exported import Session
from medtextdiff.segmentation.graphs.packages import need
from medtextdiff.segmentation.graphs.to_onnx import write_onnx
from medtextdiff.segmentation.graphs.traced import Graph


class Config(config.Config):
    """`threads` 0: as many as torch uses."""

    threads: NonNegativeInt = 0
    precision: Literal["float32"] = "float32"

    def build(self) -> "Runtime":
        """The runtime.

        Raises:
            ConfigError: onnxruntime is not installed.
        """
        need("onnx", "onnxruntime")
        return Runtime(self)


class Runtime:
    """See `Config`."""

    def __init__(self, settings: Config) -> None:
        self._settings = settings

    def versions(self) -> dict[str, str]:
        """Of what runs the graphs."""
        return {"onnxruntime": version("onnxruntime")}

    def write(self, graph: Graph, folder: Path) -> None:
        """Write `NAME.onnx` and `NAME.onnx.data`.

        Raises:
            ConfigError: as `write_onnx`, or the exporter's packages are missing.
        """
        need("onnx", "onnx", "onnxscript")
        write_onnx(graph, folder)

    def open(self, folder: Path, name: str) -> Session:
        """A graph ready to run.

        Raises:
            ConfigError: it is missing, damaged or no graph.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self._settings.threads or torch.get_num_threads()
        options.log_severity_level = 4  # what is wrong comes as an exception, too
        path = folder / f"{name}.onnx"
        try:
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen types without a common base
            raise ConfigError(f"{path} cannot be run ({type(error).__name__}); export the model again") from None
        return _Session(session, name)


class _Session:
    def __init__(self, session: Any, name: str) -> None:
        self._session, self._name = session, name
        self._inputs = [one.name for one in session.get_inputs()]

    def __call__(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        feed = {name: inputs[name].detach().contiguous().numpy() for name in self._inputs}
        try:
            return [torch.from_numpy(found) for found in self._session.run(None, feed)]
        except Exception as error:
            raise ConfigError(
                f"the graph '{self._name}' failed ({type(error).__name__}); try --runtime torch"
            ) from error
