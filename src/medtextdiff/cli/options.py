"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option("--model", "-m", help="A shipped model's name, a run folder or an export.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="auto, float32 or bf16.")]
Bank = Annotated[
    Path | None, typer.Option("--bank", help="A folder that keeps the denoiser's levels: no image is encoded twice.")
]
Runtime = Annotated[str, typer.Option(help="auto, torch, onnx or openvino; auto is torch, or that of an export.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Change one setting, a.b=c. Repeatable.")]
Masks = Annotated[str | None, typer.Option(help="The folder of the masks, where it is not the run's own.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")]
