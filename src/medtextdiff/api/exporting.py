"""Export a trained segmenter to another runtime."""

from collections.abc import Callable
from pathlib import Path

from medtextdiff.api import exports, shelf
from medtextdiff.api.loading import load_segmenter
from medtextdiff.config import ConfigError
from medtextdiff.data.atomic import check_place


def export(
    name_or_run: str | Path, *, to: str, out: str | Path, progress: Callable[[str], None] = lambda line: None
) -> dict[str, float]:
    """Write a segmenter's graphs into the folder `out`, each checked against torch; gives each graph's largest error.

    `to` is "onnx" or "openvino". An error is the largest difference from torch as a share of torch's largest value,
    over several batches, image sizes and note lengths; above 1e-3 nothing is written.

    Raises:
        ConfigError: no such model or runtime, `out` is there, a package is missing, or a graph is not exact enough.
    """
    target = Path(out)
    exports.runtime(to)  # before the long work
    if target.exists():
        raise ConfigError(f"{target} exists; give another folder with -o")
    check_place(target)
    folder = shelf.find(name_or_run)
    exports.refuse_export(folder)
    model = load_segmenter(name_or_run, device="cpu", precision="float32", runtime=exports.TORCH)
    name = folder.name  # never a path of this machine
    about = exports.write(model.segmenter, folder, name=name, sha256=model.sha256, to=to, out=target, progress=progress)
    return {graph: max(check.error for check in about.checks if check.graph == graph) for graph in about.graphs}
