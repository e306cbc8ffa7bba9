"""The commands that ask what text is worth."""

from pathlib import Path
from typing import Annotated

import typer

from medtextdiff.cli.options import Bank, Device, Masks, Overwrite, Precision
from medtextdiff.cli.printing import one_line_errors, say, tables


def sensitivity(
    model: Annotated[str, typer.Argument(help="A run folder or a shipped model.", metavar="RUN|NAME")],
    data: Annotated[Path, typer.Option(help="The data set's folder or manifest.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")],
    split: Annotated[str, typer.Option(help="Which split.")] = "val",
    masks: Masks = None,
    seed: Annotated[int, typer.Option(help="Of the typos, the unrelated sentences and the intervals.")] = 0,
    bank: Bank = None,
    device: Device = "auto",
    precision: Precision = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Does the model use the text? Dice with the right note, none, a wrong, misspelt, reworded or buried one."""
    from medtextdiff import api

    with one_line_errors():
        found = api.sensitivity(
            model,
            data=data,
            out=output,
            split=split,
            masks=masks,
            seed=seed,
            bank=bank,
            device=device,
            precision=precision,
            overwrite=overwrite,
            progress=say,
        )
        tables(found)


def probe(
    encoder: Annotated[
        str,
        typer.Argument(help="modernbert-small, a folder, minilm, bag-of-words, a hub id; untrained:NAME of these."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")],
    against: Annotated[list[str] | None, typer.Option(help="A further encoder. Repeatable.")] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="A row for the same shape with new weights.")] = False,
    seed: Annotated[int, typer.Option(help="Of the sentences, new weights and intervals.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """What does a text encoder know? Side, height, number, negation, severity, finding, and paraphrases."""
    from medtextdiff import api

    with one_line_errors():
        tables(
            api.probe(
                encoder,
                out=output,
                against=against or [],
                untrained=untrained,
                seed=seed,
                overwrite=overwrite,
                progress=say,
            )
        )
