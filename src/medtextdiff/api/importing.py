"""Other projects' weights become our folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor

from medtextdiff.api import training
from medtextdiff.config import ConfigError, nearest
from medtextdiff.data.atomic import check_place
from medtextdiff.data.errors import OutputExists
from medtextdiff.diffusion import adm, adm_flags, denoiser
from medtextdiff.recipes import segmentation as segmentation_recipes
from medtextdiff.segmentation import published
from medtextdiff.text.encoders import fixed_length
from medtextdiff.training import components, disk
from medtextdiff.training.weights import digests_of_frozen

RECIPES = {
    "monuseg": segmentation_recipes.fasttextdiff_monuseg_as_published,
    "qata": segmentation_recipes.fasttextdiff_qata_as_published,
    "mosmed": segmentation_recipes.fasttextdiff_mosmed_as_published,
}


def convert_adm(checkpoint: Path, *, out: Path, flags: Path | None = None, overwrite: bool = False) -> str:
    """Write the diffusers folder of an OpenAI guided-diffusion checkpoint.

    Raises:
        CheckpointError: not such a checkpoint, or a pickle with code in it; FileExistsError: `out` is there.
    """
    check_place(out)
    known = None if flags is None else adm_flags.read_flags(flags)
    adm.convert_checkpoint(checkpoint, known, out, overwrite=overwrite)
    return f"wrote {out}; load it with diffusers.UNet2DModel.from_pretrained"


def import_published(
    *, adm: Path, head: Path, text: str, name: str, out: Path, flags: Path | None = None, overwrite: bool = False
) -> str:
    """Write a run folder whose `segment --save-logits` gives the published code's logits.

    The run holds the converted denoiser and the head; the text encoder stays where `text` says.

    Raises:
        ConfigError: an unknown `name`; CheckpointError, TextError: files that do not fit; OutputExists.
    """
    if name not in RECIPES:
        raise ConfigError(f"no published settings are called '{name}'; {nearest(name, RECIPES)}")
    _check_free(out, overwrite)
    weights = _read_head(head)  # seconds, before the minutes of the denoiser
    with disk.whole_folder(out) as building:
        convert_adm(adm, out=building / "denoiser", flags=flags)
        _finish(weights, text, name, building)
    return f"wrote {out}; segment with --model {out}"


def _check_free(out: Path, overwrite: bool) -> None:
    """Only a run that was imported is ever replaced, and only with nothing else in its folder."""
    check_place(out)
    if not out.exists():
        return
    if not overwrite:
        raise OutputExists(f"{out} exists; give another folder, or --overwrite")
    if not (out / components.MANIFEST).is_file():
        raise OutputExists(f"{out} is no run, so it is not replaced; give another folder")
    sealed = {components.MANIFEST, *components.check_components(out)}
    strange = [name for name in _files(out, out) if name not in sealed]
    if strange:
        raise OutputExists(f"{out} holds more than a run ({strange[0]}), so it is not replaced; give another folder")


def _read_head(path: Path) -> dict[str, Tensor]:
    return published.convert_head(adm.read_checkpoint(path))


def _finish(weights: Mapping[str, Tensor], text: str, name: str, building: Path) -> None:
    run = RECIPES[name]()
    located = Path(text).resolve() if Path(text).is_dir() else text
    settings = run.model.replace(
        denoiser=denoiser.Config(path="./denoiser"), text=fixed_length.Config(path=str(located))
    )
    run = run.replace(model=settings)
    model = run.build_model(building)
    published.load_head(model.get_submodule("head"), weights, cast(published.Name, name))
    files = _files(building / "denoiser", building)
    training.finish(run, model, building, also=files, frozen=digests_of_frozen(model))


def _files(folder: Path, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
