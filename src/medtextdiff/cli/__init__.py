"""The commands: read options, call `api`, print. No torch here, and no decisions."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from medtextdiff.cli import judging, synthesis, worth
from medtextdiff.cli.options import Bank, Device, Masks, Model, Output, Overwrite, Precision, Runtime, Settings
from medtextdiff.cli.printing import one_line_errors, say, table
from medtextdiff.cli.printing import tables as print_tables

app = typer.Typer(
    name="medtextdiff",
    help="Text-conditioned diffusion for medical images: image + clinical note -> mask, prompt -> image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Look at a data set before training on it.", no_args_is_help=True, rich_markup_mode=None)
convert_app = typer.Typer(help="Turn other projects' checkpoints into our folders.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(convert_app, name="convert")
app.add_typer(judging.app)

DEFAULT_MODEL = "nuclei-small"


@app.command()
def segment(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", metavar="IMAGE...")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the masks.")],
    model: Model = DEFAULT_MODEL,
    note: Annotated[str | None, typer.Option(help="One note for all images.")] = None,
    notes: Annotated[
        Path | None, typer.Option(help="Table of notes: csv, tsv, xlsx or jsonl with columns image, note.")
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write the mask drawn on the image.")] = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write probability maps.")] = False,
    save_logits: Annotated[
        Path | None, typer.Option(help="Also write the logits [K, h, w] of one image (.npy).")
    ] = None,
    page: Annotated[bool, typer.Option("--page", help="Also write one HTML page that shows the results.")] = False,
    mode: Annotated[str | None, typer.Option(help="resize or tiles; the default is the model's own.")] = None,
    bank: Bank = None,
    device: Device = "auto",
    precision: Precision = "auto",
    runtime: Runtime = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Segment images, each from its note: masks at the images' own size."""
    from medtextdiff import api

    with one_line_errors():
        report = api.segment_files(
            images,
            model=model,
            out=output,
            note=note,
            notes=notes,
            overlay=overlay,
            probabilities=probabilities,
            save_logits=save_logits,
            page=page,
            mode=mode,
            bank=bank,
            device=device,
            precision=precision,
            runtime=runtime,
            overwrite=overwrite,
            progress=say,
        )
        lines = [
            [
                r.image,
                "yes" if r.has_note else "none",
                f"{r.foreground:.1f}",
                f"{r.confidence:.3f}",
                f"{r.seconds:.2f}",
                model,
            ]
            for r in report.results
        ]
        if lines:
            table(["image", "note", "foreground %", "confidence", "seconds", "model"], lines)
        for place, reason in report.failures:
            print(f"failed: {place}: {reason}", file=sys.stderr)
        if report.results and report.failures:
            print(f"{len(report.failures)} of {report.total} images failed; the others are done", file=sys.stderr)
        if report.failures:
            raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name; `medtextdiff recipes` lists them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder; an unfinished run is resumed.")],
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Train a recipe into a run folder. Run it again to resume."""
    from medtextdiff import api

    with one_line_errors():
        result = api.train(recipe, settings=settings or [], out=output, device=device)
        print(result)


@app.command()
def recipes() -> None:
    """List the recipes."""
    from medtextdiff import api

    with one_line_errors():
        table(["recipe", "what it trains"], [[name, first_line] for name, first_line in api.recipes().items()])


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="A recipe, a shipped model or a run folder.")],
    settings: Settings = None,
) -> None:
    """Print the whole configuration as JSON."""
    from medtextdiff import api

    with one_line_errors():
        print(api.show(what, settings=settings or []))


@app.command()
def models() -> None:
    """List the models that ship: size, what they were trained on, licence, scores."""
    from medtextdiff import api

    with one_line_errors():
        for model in api.models():
            print(f"{model.name} ({model.task}, {model.megabytes:.1f} MB)")
            for name in ("trained_on", "licence", "scores", "card"):
                print(f"  {name.replace('_', ' ')}: {getattr(model, name)}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A run folder or a shipped model.", metavar="RUN|NAME")],
    data: Annotated[Path, typer.Option(help="The data set's folder or manifest.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")],
    split: Annotated[str, typer.Option(help="Which split.")] = "val",
    against: Annotated[str | None, typer.Option(help="Another run: paired test between the two.")] = None,
    notes: Annotated[str, typer.Option(help="right, none or wrong (another image's note).")] = "right",
    mode: Annotated[str | None, typer.Option(help="resize or tiles; the default is the model's own.")] = None,
    at: Annotated[int | None, typer.Option(help="Score at N x N pixels instead of the native size.")] = None,
    as_published: Annotated[
        bool, typer.Option("--as-published", help="Also score as the published code does; not with --at.")
    ] = False,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Leave out the images whose masks the run was trained on.")
    ] = False,
    masks: Masks = None,
    bank: Bank = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Use the model otherwise: use.tile=512, use.flips=true. Repeatable."),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Score a model on a data set: per-image rows, intervals, and an HTML page."""
    from medtextdiff import api

    with one_line_errors():
        summary = api.evaluate(
            model,
            data=data,
            out=output,
            split=split,
            against=against,
            notes=notes,
            mode=mode,
            at=at,
            as_published=as_published,
            unseen=unseen,
            settings=settings or [],
            masks=masks,
            bank=bank,
            device=device,
            precision=precision,
            overwrite=overwrite,
            progress=say,
        )
        table(["score", "value"], [[name, text] for name, text in summary.items()])


app.command()(worth.sensitivity)
app.command()(worth.probe)
app.command()(worth.compare)
app.command()(synthesis.generate)
app.command()(synthesis.pseudo_label)
app.command()(synthesis.merge)


@app.command()
def features(
    source: Annotated[Path, typer.Argument(help="One image; with --bank also a folder or data set.", metavar="IMAGE")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A .safetensors file for one image.")] = None,
    model: Model = DEFAULT_MODEL,
    bank: Bank = None,
    budget_gb: Annotated[float | None, typer.Option(help="Of the bank; the least used beyond it are dropped.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Write the levels that the denoiser gives for one image (-o), or keep those of many (--bank). Resumes."""
    from medtextdiff import api

    with one_line_errors():
        where = {"model": model, "device": device, "precision": precision}
        if output is not None:
            shapes = api.features(source, out=output, bank=bank, overwrite=overwrite, **where)
            table(["level", "shape"], [[name, "x".join(map(str, shape))] for name, shape in shapes.items()])
            return
        report = api.fill_bank(source, bank=bank, budget_gb=budget_gb, progress=say, **where)
        table(["images", "views there", "views made"], [[report.images, report.found, report.made]])
        if report.dropped:
            say(f"{report.dropped} least used entries were dropped: the bank is full; give a larger --budget-gb")
        for place, reason in report.failures:
            print(f"failed: {place}: {reason}", file=sys.stderr)
        if report.unkept:
            print(f"failed: the levels of {report.unkept} views could not be kept", file=sys.stderr)
        if report.failures or report.unkept:
            raise typer.Exit(1)


@app.command()
def pack(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    output: Output,
    dtype: Annotated[str, typer.Option(help="float16, bfloat16 or float32.")] = "float16",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="How it will be used, e.g. use.guidance=3. Repeatable.")
    ] = None,
) -> None:
    """Write a finished run without checkpoints and logs, in half precision: to ship or to share."""
    from medtextdiff import api

    with one_line_errors():
        sizes = api.pack(run, out=output, dtype=dtype, settings=settings or [])
        table(["file", "MB"], [[name, f"{size / 1e6:.2f}"] for name, size in sizes.items()])


@app.command()
def bench(
    what: Annotated[
        list[str] | None,
        typer.Option(
            help="A part: backbone, head, prediction, epoch, ours, notes, bank, shipped, generation, start, scaling "
            "or encoders. Repeatable."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A .json or .md file to write as well.")] = None,
    runs: Annotated[int, typer.Option(help="Medians are over so many runs.")] = 3,
    small: Annotated[bool, typer.Option("--small", help="An eighth of the full width: to try it out.")] = False,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Measure time, memory and arithmetic on this machine, against the published way."""
    from medtextdiff.bench import run

    with one_line_errors():
        found = run.bench(
            what or [], out=output, runs=runs, small=small, device=device, overwrite=overwrite, progress=say
        )
        print_tables(found)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A run folder or a shipped model.", metavar="RUN|NAME")],
    to: Annotated[str, typer.Option(help="onnx or openvino.")],
    output: Output,
) -> None:
    """Write a segmenter as graphs for another runtime, checked against torch; `segment --model` takes the folder."""
    from medtextdiff import api

    with one_line_errors():
        errors = api.export(model, to=to, out=output, progress=say)
        table(["graph", "largest error"], [[name, f"{error:.1e}"] for name, error in errors.items()])


@data_app.command("check")
def data_check(
    root: Annotated[Path, typer.Argument(help="The data set's folder or manifest.")],
    side: Annotated[str, typer.Option(help="Whose left the notes mean: viewer or patient.")] = "viewer",
    masks: Annotated[str | None, typer.Option(help="The folder of the masks, where it is not masks/.")] = None,
    model: Annotated[str | None, typer.Option(help="Count words against this model's text encoder.")] = None,
) -> None:
    """Find what is wrong with a data set, and say how to mend it. Exits 1 when something must be mended."""
    from medtextdiff import api

    with one_line_errors():
        findings = api.data_check(root, side=side, masks=masks, model=model, progress=say)
        for finding in findings:
            print(f"{finding.severity}: {finding.code}: {finding.where}: {finding.message} -> {finding.how_to_mend}")
        errors = sum(finding.severity == "error" for finding in findings)
        print(f"{len(findings)} findings, {errors} of them errors")
        if errors:
            raise typer.Exit(1)


@convert_app.command("adm")
def convert_adm(
    checkpoint: Annotated[Path, typer.Argument(help="A guided-diffusion checkpoint (.pt).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for UNet2DModel.from_pretrained.")],
    flags: Annotated[
        Path | None, typer.Option(help="guided-diffusion's flags as JSON; default: read off the shapes.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn an OpenAI guided-diffusion checkpoint into a diffusers folder, exactly."""
    from medtextdiff import api

    with one_line_errors():
        print(api.convert_adm(checkpoint, out=output, flags=flags, overwrite=overwrite))


@app.command("import-published")
def import_published(
    adm: Annotated[Path, typer.Option(help="256x256_diffusion_uncond.pt.")],
    head: Annotated[Path, typer.Option(help="model_best.pth of the published code.")],
    text: Annotated[str, typer.Option(help="The text encoder as a Hugging Face folder.")],
    config: Annotated[str, typer.Option(help="monuseg, qata or mosmed.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder to write.")],
    flags: Annotated[
        Path | None, typer.Option(help="guided-diffusion's flags as JSON; default: read off the shapes.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn the published FastTextDiff or TextDiff weights into one of our runs."""
    from medtextdiff import api

    with one_line_errors():
        print(
            api.import_published(
                adm=adm, head=head, text=text, name=config, out=output, flags=flags, overwrite=overwrite
            )
        )


def main() -> None:
    """Entry point: one clear line for every error, never a traceback (MEDTEXTDIFF_DEBUG=1 shows it)."""
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            app()  # typer's own way prints the help
        if not hasattr(error, "format_message"):  # no wrong call: shown whole, as MEDTEXTDIFF_DEBUG asks
            raise
        print(f"error: {' '.join(error.format_message().split())} (--help shows the options)", file=sys.stderr)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)
