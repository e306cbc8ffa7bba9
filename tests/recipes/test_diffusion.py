"""The run of a denoiser: which images it was trained on."""

from PIL import Image

from medtextdiff.data.images import content_hash
from medtextdiff.data.sources import folders
from medtextdiff.diffusion import denoiser
from medtextdiff.recipes.diffusion import Run


def test_every_image_is_hashed_where_folders_use_the_same_names(tmp_path):
    roots = [tmp_path / "a", tmp_path / "b"]
    for root in roots:
        folders.Config.tiny(root)
    for path in (roots[1] / "images").iterdir():
        Image.open(path).rotate(90).save(path)
    run = Run(model=denoiser.Scratch.tiny(), roots={str(root): 1.0 for root in roots}, split="")
    paths = [path for root in roots for path in (root / "images").iterdir()]
    assert sorted(run.job().data_hashes.values()) == sorted(content_hash(path) for path in paths)
