"""The commands of image synthesis."""

from pathlib import Path
from typing import Annotated

import typer

from medtextdiff.cli.options import Device, Overwrite, Precision
from medtextdiff.cli.printing import one_line_errors, report_failures, say
from medtextdiff.cli.printing import table as print_table


def generate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the images; goes on where it stopped.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A shipped generator's name or a run folder.")],
    prompts: Annotated[list[str] | None, typer.Argument(help="What to show.", metavar="PROMPT...")] = None,
    table: Annotated[Path | None, typer.Option("--prompts", help="Table of prompts: csv, tsv, xlsx or jsonl.")] = None,
    column: Annotated[str, typer.Option(help="The column of --prompts that holds them.")] = "prompt",
    num: Annotated[int, typer.Option("-n", help="Images for each prompt.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first image; each further image has the next.")] = 0,
    steps: Annotated[
        int | None, typer.Option(help="Passes through the denoiser; the default is the model's own.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How strongly the prompt counts; 1: as learned. Default: the model's own.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="ddim, euler, dpm++ (Kandinsky: ddpm, ddim); the default is the model's own.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images made at once.")] = 4,
    base: Annotated[
        str | None, typer.Option(help="Where an adapter's base lies now: a diffusers folder or hub id.")
    ] = None,
    prior_base: Annotated[str | None, typer.Option(help="The same for Kandinsky 2.2's prior.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Make images from prompts, each marked as synthetic, with a contact sheet and prompts.csv. Resumes."""
    from medtextdiff import api

    with one_line_errors():
        report = api.generate_files(
            prompts or [],
            model=model,
            out=output,
            table=table,
            column=column,
            num=num,
            seed=seed,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            batch_size=batch_size,
            device=device,
            precision=precision,
            base=base,
            prior_base=prior_base,
            overwrite=overwrite,
            progress=say,
        )
        print_table(["images made", "there before", "table"], [[report.made, report.found, report.table]])


def pseudo_label(
    source: Annotated[
        Path, typer.Argument(help="Generated images, a data set, or a folder of images.", metavar="IMAGES")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pairs; must not exist.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The segmenter that labels: a shipped one or a run.")],
    confidence: Annotated[float, typer.Option(help="A pixel below this probability is ignored in training.")] = 0.8,
    sure: Annotated[float, typer.Option(help="An image with a smaller share of sure pixels is left out.")] = 0.9,
    with_notes: Annotated[bool, typer.Option("--notes/--no-notes", help="Use each image's note or prompt.")] = True,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Label images by a segmenter, unsure pixels left open: pairs to train on beside real ones (data.more=DIR)."""
    from medtextdiff import api

    with one_line_errors():
        found = api.pseudo_label(
            source,
            model=model,
            out=output,
            confidence=confidence,
            sure=sure,
            with_notes=with_notes,
            device=device,
            precision=precision,
            progress=say,
        )
        print_table(["pairs", "unsure, left out", "failed"], [[found.kept, found.unsure, len(found.failures)]])
        report_failures(found.failures)


def merge(
    run: Annotated[str, typer.Argument(help="A run of a synthesis.*_lora recipe.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the merged networks; must not exist.")],
    base: Annotated[str | None, typer.Option(help="Where the base lies now: a diffusers folder or hub id.")] = None,
    prior_base: Annotated[str | None, typer.Option(help="The same for Kandinsky 2.2's prior.")] = None,
) -> None:
    """Add an adapter to its base's weights: plain diffusers networks, which need no peft."""
    from medtextdiff import api

    with one_line_errors():
        for folder in api.merge(run, out=output, base=base, prior_base=prior_base):
            say(str(folder))
