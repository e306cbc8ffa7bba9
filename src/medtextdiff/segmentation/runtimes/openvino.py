"""OpenVINO on the CPU, float32 or bf16. `pip install 'medtextdiff[openvino]'`."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeInt
from torch import Tensor

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.segmentation.graphs.exported import Session
from medtextdiff.segmentation.graphs.packages import need
from medtextdiff.segmentation.graphs.to_onnx import write_onnx
from medtextdiff.segmentation.graphs.traced import Graph

_HINTS = {"float32": "f32", "bf16": "bf16"}


class Config(config.Config):
    """`threads` 0: as many as torch uses. `precision`: what the graphs are computed in; they are stored as float32."""

    threads: NonNegativeInt = 0
    precision: Literal["float32", "bf16"] = "float32"

    def build(self) -> "Runtime":
        """The runtime.

        Raises:
            ConfigError: openvino is not installed.
        """
        need("openvino", "openvino")
        return Runtime(self)


class Runtime:
    """See `Config`."""

    def __init__(self, settings: Config) -> None:
        self._settings = settings

    def versions(self) -> dict[str, str]:
        """Of what runs the graphs."""
        return {"openvino": version("openvino")}

    def write(self, graph: Graph, folder: Path) -> None:
        """Write `NAME.xml` and `NAME.bin`, by way of ONNX.

        Raises:
            ConfigError: as `write_onnx`, or the exporter's packages are missing.
        """
        need("openvino", "onnx", "onnxscript")
        import openvino

        path = write_onnx(graph, folder)
        model = openvino.Core().read_model(path)  # not convert_model, which reports home
        openvino.save_model(model, folder / f"{graph.name}.xml", compress_to_fp16=False)
        del model  # it maps the file below
        for file in (path, path.with_name(f"{path.name}.data")):
            file.unlink(missing_ok=True)

    def open(self, folder: Path, name: str) -> Session:
        """A graph ready to run.

        Raises:
            ConfigError: it is missing, damaged or no graph.
        """
        import openvino

        threads = self._settings.threads or torch.get_num_threads()
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self._settings.precision],  # its own default is bf16 where there is any
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        path = folder / f"{name}.xml"
        try:
            return _Session(openvino.Core().compile_model(path, "CPU", settings), name)
        except Exception as error:  # openvino raises plain RuntimeErrors, over many lines
            raise ConfigError(f"{path} cannot be run ({type(error).__name__}); export the model again") from None


class _Session:
    def __init__(self, model: Any, name: str) -> None:
        self._model, self._name = model, name
        self._inputs = [one.get_any_name() for one in model.inputs]

    def __call__(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        feed = {name: inputs[name].detach().contiguous().numpy() for name in self._inputs}
        try:
            found = self._model.infer_new_request(feed)
            return [torch.from_numpy(np.array(found[one])) for one in self._model.outputs]
        except Exception as error:
            raise ConfigError(
                f"the graph '{self._name}' failed ({type(error).__name__}); try --runtime torch"
            ) from error
