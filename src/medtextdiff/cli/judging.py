"""The commands that judge synthetic images: score them, and have people rate them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medtextdiff.cli import lists
from medtextdiff.cli.options import Device, Output, Overwrite
from medtextdiff.cli.printing import one_line_errors, say, table

_Data = Annotated[Path, typer.Option(help="The real data set's folder or manifest.")]
_TrainSplit = Annotated[str, typer.Option(help="Real images that were trained on.")]
_Seeds = Annotated[str, typer.Option(help="Of a run: one or several, e.g. 0,1,2; several give intervals.")]
_Extractor = Annotated[
    str, typer.Option(help="denoiser (ships), efficientnet_lite0, a vision model's folder, or a TorchScript file.")
]
_ExtractorSettings = Annotated[
    list[str] | None, typer.Option("--set", help="Change the extractor: size=256, pooling=mean. Repeatable.")
]
_Fit = Annotated[str, typer.Option(help="How real images become square: squeeze or crop.")]

app = typer.Typer()
rate_app = typer.Typer(help="A blinded study: people judge real and synthetic images.", no_args_is_help=True)
app.add_typer(rate_app, name="rate")


@app.command("evaluate-synthesis")
def evaluate_synthesis(
    source: Annotated[
        str, typer.Argument(help="A synthesis run, or a folder of images with prompts.csv.", metavar="RUN|DIR")
    ],
    data: _Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")],
    split: Annotated[str, typer.Option(help="Real images that were held out.")] = "val",
    train_split: _TrainSplit = "train",
    num: Annotated[
        int | None, typer.Option("-n", help="Images a seed that a run makes; default: as many as held-out images.")
    ] = None,
    seeds: _Seeds = "0",
    extractor: _Extractor = "denoiser",
    settings: _ExtractorSettings = None,
    protocol: Annotated[str | None, typer.Option(help="Also a challenge's figures: medvqa2024 or medvqa2025.")] = None,
    reconstructions: Annotated[
        Path | None, typer.Option(help="The held-out images as an autoencoder gives them back, under their names.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Compare the images of a folder at N x N pixels; default: their own.")
    ] = None,
    fit: _Fit = "squeeze",
    steps: Annotated[int | None, typer.Option(help="Of a run's sampler.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Of a run's sampler.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Of a run.")] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Score images made from prompts: quality, adherence, memorisation, utility, cost; with an HTML page."""
    from medtextdiff import api

    with one_line_errors():
        asked = {"steps": steps, "guidance": guidance, "sampler": sampler}
        summary = api.evaluate_synthesis(
            source,
            data=data,
            out=output,
            split=split,
            train_split=train_split,
            num=num,
            seeds=lists.numbers(seeds, int, "seeds"),
            extractor=extractor,
            settings=settings or [],
            protocol=protocol,
            reconstructions=reconstructions,
            size=size,
            fit=fit,
            options={name: value for name, value in asked.items() if value is not None},
            device=device,
            overwrite=overwrite,
            progress=say,
        )
        table(["score", "value"], [[name, text] for name, text in summary.items()])


@app.command()
def sweep(
    run: Annotated[str, typer.Argument(help="A synthesis run, or a generator that ships.", metavar="RUN|NAME")],
    data: _Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder; an unfinished sweep there goes on.")],
    guidance: Annotated[str | None, typer.Option(help="Values beside the run's own, e.g. 1,1.5,3.")] = None,
    steps: Annotated[str | None, typer.Option(help="Likewise, e.g. 10,50,150.")] = None,
    samplers: Annotated[str | None, typer.Option(help="Likewise, e.g. ddim,euler.")] = None,
    split: Annotated[str, typer.Option(help="Real images to compare with; their prompts are used.")] = "val",
    train_split: _TrainSplit = "train",
    num: Annotated[
        int | None, typer.Option("-n", help="Images a seed and setting; default: as many as the split has.")
    ] = None,
    seeds: _Seeds = "0",
    extractor: _Extractor = "denoiser",
    settings: _ExtractorSettings = None,
    fit: _Fit = "squeeze",
    device: Device = "auto",
) -> None:
    """How guidance, steps and sampler change a generator's images: one table, one thing changed at a time."""
    from medtextdiff import api

    with one_line_errors():
        head, *rows = api.sweep(
            run,
            data=data,
            out=output,
            guidance=lists.numbers(guidance, float, "guidance values"),
            steps=lists.numbers(steps, int, "steps"),
            samplers=lists.words(samplers),
            split=split,
            train_split=train_split,
            num=num,
            seeds=lists.numbers(seeds, int, "seeds"),
            extractor=extractor,
            settings=settings or [],
            fit=fit,
            device=device,
            progress=say,
        )
        table(head, rows)


@rate_app.command("make")
def rate_make(
    real: Annotated[Path, typer.Argument(help="Real images: a data set or a folder.", metavar="REAL_DIR")],
    synthetic: Annotated[
        list[Path], typer.Argument(help="Synthetic images: a folder for each system.", metavar="SYNTH_DIR...")
    ],
    output: Output,
    num: Annotated[int, typer.Option("-n", help="Images in all, half of them real; a tenth come twice besides.")] = 60,
    seed: Annotated[int, typer.Option(help="Decides which images, and their order.")] = 0,
    split: Annotated[str | None, typer.Option(help="Of the real data set; default: all of it.")] = None,
    size: Annotated[int | None, typer.Option(help="Side in pixels; default: the smallest image's.")] = None,
    fit: Annotated[str, typer.Option(help="How images become square: squeeze or crop.")] = "squeeze",
    overwrite: Overwrite = False,
) -> None:
    """Write a page for raters, and the key that says which image is which."""
    from medtextdiff import api

    with one_line_errors():
        options: dict[str, Any] = {"num": num, "seed": seed, "split": split, "size": size, "fit": fit}
        done = api.rate_make(real, synthetic, out=output, **options, overwrite=overwrite, progress=say)
        table(["what", "value"], [[name, text] for name, text in done.items()])


@rate_app.command("score")
def rate_score(
    sheet: Annotated[Path, typer.Argument(help="The folder that `rate make` wrote.")],
    ratings: Annotated[list[Path], typer.Argument(help="What raters sent back (csv or json).", metavar="RATINGS...")],
    output: Output,
    overwrite: Overwrite = False,
) -> None:
    """Score raters' answers: recognition, ratings by system, agreement."""
    from medtextdiff import api

    with one_line_errors():
        found = api.rate_score(sheet, ratings, out=output, overwrite=overwrite)
        table(["score", "value"], [[name, text] for name, text in found.items()])
