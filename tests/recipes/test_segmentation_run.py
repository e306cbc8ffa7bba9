"""The run of a segmenter: how it reads other data than its own, and how it is validated."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from medtextdiff.api.model import Model
from medtextdiff.api.scored import read_pair
from medtextdiff.data import augment, images, transforms
from medtextdiff.data.errors import DataError
from medtextdiff.data.sources import folders, lvit, manifest, targets
from medtextdiff.evaluation.segmentation import score_image
from medtextdiff.recipes.segmentation import fasttextdiff_monuseg_as_published
from medtextdiff.recipes.segmentation_run import Data, Run
from medtextdiff.segmentation import use
from medtextdiff.segmentation.models import unet


class Bright(nn.Module):
    """Says foreground where a pixel is no darker than half of the background: noise, so the size shown matters."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(9.0))

    def forward(self, images, notes, boxes=None):
        light = self.weight * (images.mean(dim=1) + 0.3)
        return torch.stack([-light, light], dim=1)


def test_another_folder_of_masks_changes_nothing_else_of_the_source(tmp_path):
    folders.Config.tiny(tmp_path / "own")
    other = shutil.copytree(tmp_path / "own", tmp_path / "other")
    shutil.copytree(other / "masks", other / "masks_lesion")
    table = other / "notes.csv"
    head, *rows = table.read_text().splitlines()
    rows = [f"{row},finding {k},person {k // 2}" for k, row in enumerate(rows)]
    table.write_text("\n".join([f"{head},finding,person", *rows]) + "\n")
    source = folders.Config(root=str(tmp_path / "own"), notes_columns=("finding",), patient_column="person")
    record = Data(source=source).at(other, "masks_lesion").build().records()[0]
    assert record.mask.parent == other / "masks_lesion"
    assert (record.note, record.patient) == ("finding 0", "person 0")
    found = Data().at(other, "masks_lesion").build().records()[0]
    assert found.mask.parent == other / "masks_lesion"


@pytest.mark.parametrize(("layout", "known"), [(lvit, 1), (lvit, 0), (manifest, 1), (manifest, 0), (targets, 1)])
def test_a_layout_that_knows_its_masks_takes_no_other_folder(layout, known, tmp_path):
    tmp_path.joinpath("set").mkdir()
    source = layout.Config.tiny(tmp_path / "set")
    with pytest.raises(DataError, match="leave out --masks masks_lesion"):
        Data(source=source if known else None).at(source.root, "masks_lesion")


@pytest.mark.parametrize("used", [{"mode": "tiles"}, {"mode": "resize", "size": 12}, {"mode": "resize", "size": 40}])
@pytest.mark.parametrize("read", [{"size": None}, {"size": 12}, {"size": 12, "masks": "as_published"}])
def test_what_is_validated_is_what_evaluate_gives(used, read, tmp_path):
    folders.Config.tiny(tmp_path)
    data = Data(root=str(tmp_path), augmentation=augment.Config(crop=8), **read)
    run, model = Run(data=data, use=use.Config(**used)), Bright().eval()
    loaded = Model("bright", run, model, torch.device("cpu"), "float32", "")
    pairs = [(record.note, *read_pair(loaded, record)) for record in data.validation()]
    dice = [score_image(loaded.segment(image, note).mask, mask, 2)["foreground"]["dice"] for note, image, mask in pairs]
    assert run.job().validate(model) == {"dice": 100 * np.mean(dice)}
    assert 0 < np.mean(dice) < 1


def test_published_recipes_train_on_images_made_smaller_as_they_are_used(tmp_path):
    folders.Config.tiny(tmp_path)
    run = fasttextdiff_monuseg_as_published()
    assert run.data.antialias is run.use.antialias is False
    small = run.replace(
        model=unet.Config(),
        data=run.data.replace(root=str(tmp_path), size=20, augmentation=augment.Config()),
        use=run.use.replace(size=20),
    )
    record = small.data.records("train")[0]
    native = transforms.to_tensor(images.read(record.image))
    sample = small.job().data.sample(0, torch.Generator())
    torch.testing.assert_close(sample.image, small.use.working_image(native)[0], atol=1.01 / 255, rtol=0)
    assert torch.equal(sample.mask, transforms.published_mask(torch.from_numpy(images.read_mask(record.mask)), 20))
