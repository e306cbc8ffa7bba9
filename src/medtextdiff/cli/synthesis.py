"""The commands of image synthesis."""

from pathlib import Path
from typing import Annotated

import typer

from medtextdiff.cli.options import Device, Overwrite, Precision
from medtextdiff.cli.printing import one_line_errors, say
from medtextdiff.cli.printing import table as print_table


def generate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the images; goes on where it stopped.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A shipped generator's name or a run folder.")],
    prompts: Annotated[list[str] | None, typer.Argument(help="What to show.", metavar="PROMPT...")] = None,
    table: Annotated[Path | None, typer.Option("--prompts", help="Table of prompts: csv, xlsx or jsonl.")] = None,
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
