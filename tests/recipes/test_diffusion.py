"""The run of a denoiser: which images it was trained on."""

import pytest
from PIL import Image

from medtextdiff.data.errors import ImageError
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


def test_an_image_that_cannot_be_read_is_told_before_the_training(tmp_path):
    folders.Config.tiny(tmp_path)
    (tmp_path / "images" / "disc_03.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"disc_03\.png is not a PNG"):
        Run(model=denoiser.Scratch.tiny(), roots={str(tmp_path): 1.0}, split="").job()
