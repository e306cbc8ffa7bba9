"""The commands that ask what text is worth."""

from pathlib import Path
from typing import Annotated

import typer

from medtextdiff.cli.options import Bank, Device, Masks, Overwrite, Precision, Settings
from medtextdiff.cli.printing import one_line_errors, report_failures, say, tables


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
    draws: Annotated[int, typer.Option(help="How often sentences and new weights are drawn; figures are means.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the first draw, the next count on from it; and of intervals.")] = 0,
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
                draws=draws,
                seed=seed,
                overwrite=overwrite,
                progress=say,
            )
        )


def compare(
    encoder: Annotated[
        list[str],
        typer.Option(help="none, or a name as `probe` takes it; the first is the reference. Repeatable."),
    ],
    data: Annotated[list[Path], typer.Option(help="A data set's folder. Repeatable.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder; an unfinished comparison there goes on.")],
    seeds: Annotated[int, typer.Option(help="Runs of each encoder on each set.")] = 3,
    masks: Annotated[str | None, typer.Option(help="The folder of the masks in sets without masks/.")] = None,
    split: Annotated[str, typer.Option(help="Which split is scored.")] = "val",
    settings: Settings = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Compare text encoders with all else held equal: one bank of image features, one head, one budget."""
    from medtextdiff import api

    with one_line_errors():
        found, failures = api.compare(
            encoder,
            data=data,
            out=output,
            seeds=seeds,
            masks=masks,
            split=split,
            settings=settings or [],
            device=device,
            precision=precision,
            progress=say,
        )
        tables(found)
        report_failures(failures)
