"""The run of a segmenter: how it reads other data than its own, and how it is validated."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import medtextdiff
from medtextdiff import api
from medtextdiff.api.model import Model
from medtextdiff.api.scored import read_pair
from medtextdiff.config import ConfigError, override
from medtextdiff.data import augment, images, transforms
from medtextdiff.data.errors import DataError
from medtextdiff.data.sources import folders, lvit, manifest, targets
from medtextdiff.diffusion import denoiser
from medtextdiff.evaluation.segmentation import score_image
from medtextdiff.recipes import segmentation
from medtextdiff.recipes.segmentation import fasttextdiff_monuseg_as_published, fasttextdiff_tiny
from medtextdiff.recipes.segmentation_run import Data, Run
from medtextdiff.segmentation import use
from medtextdiff.segmentation.models import unet
from medtextdiff.training.errors import RunError


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


def test_what_has_no_mask_is_named_where_it_was_asked_for(tmp_path):
    for name in ("own", "more"):
        folders.Config.tiny(tmp_path / name)
    own, more = (folders.Config(root=str(tmp_path / name), missing_masks="none") for name in ("own", "more"))
    [first, second, *_] = own.build().records("train")
    first.mask.unlink()
    data = Data(source=own, subset=(first.id, second.id))
    with pytest.raises(ConfigError, match=f"names {first.id}, of which there is no mask"):
        data.labelled()
    assert first.id not in [record.id for record in data.replace(subset=()).labelled()[0]]
    shutil.rmtree(tmp_path / "more" / "masks")
    (tmp_path / "more" / "notes.csv").unlink()
    with pytest.raises(ConfigError, match=f"of {more.root} has no image with a mask"):
        data.replace(subset=(), more=(more.root,)).labelled()


def test_further_folders_mean_the_same_left(tmp_path):
    for name in ("own", "more"):
        folders.Config.tiny(tmp_path / name)
    source = folders.Config(root=str(tmp_path / "own"), side="patient")
    data = Data(source=source, more=(str(tmp_path / "more"),))
    assert {record.side for records in data.labelled() for record in records} == {"patient"}


def test_masks_as_published_are_of_one_class(tmp_path):
    folders.Config.tiny(tmp_path)
    run = fasttextdiff_tiny().replace(model=unet.Config(num_classes=3))
    run = run.replace(data=run.data.replace(root=str(tmp_path), masks="as_published", foreground="ids"))
    with pytest.raises(ConfigError, match="one class of all"):
        run.job()


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


class Confused(nn.Module):
    """Finds every object and gives it the other class."""

    num_classes = 3

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(9.0))

    def forward(self, images, notes, boxes=None):
        light = self.weight * images.mean(dim=1)  # 1, 2 -> -0.5, 1
        return torch.stack([light * 0, light, -light], dim=1)


def test_several_classes_are_validated_as_such(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    labels = np.repeat([[1, 2]], 16, axis=0).repeat(8, axis=1)
    images.write_mask(tmp_path / "masks" / "a.png", labels)
    Image.fromarray(np.where(labels == 1, 40, 200).astype(np.uint8)).save(tmp_path / "images" / "a.png")
    (tmp_path / "notes.csv").write_text("image,split,note\na.png,train,\n")
    data = Data(root=str(tmp_path), foreground="ids", val_split="train", augmentation=augment.Config(crop=8))
    run = Run(model=unet.Config(num_classes=3), data=data, use=use.Config(mode="tiles"))
    model = Confused().eval()
    assert run.job().validate(model) == {"dice": 0.0}
    nn.init.constant_(model.weight, -9.0)
    assert run.job().validate(model) == {"dice": 100.0}


def tiny_run(data, path=None):
    settings = [f"data.root={data}", "model.denoiser.trainable=false", "training.max_steps=2"]
    if path is not None:
        kind = "medtextdiff.diffusion.denoiser"
        settings[1] = f'model.denoiser={{"kind": "{kind}", "path": "{path}", "trainable": false}}'
    return override(fasttextdiff_tiny(), settings)


def test_a_random_denoiser_that_does_not_train_goes_into_the_run(tmp_path):
    folders.Config.tiny(tmp_path / "data")
    api.train(tiny_run(tmp_path / "data"), out=tmp_path / "run", device="cpu")
    first, second = (medtextdiff.load(tmp_path / "run").segmenter.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_frozen_denoiser_from_elsewhere_must_stay_what_it_was(tmp_path):
    folders.Config.tiny(tmp_path / "data")
    path = tmp_path / "denoiser"
    denoiser.Scratch.tiny().build().save_pretrained(path)
    run = tiny_run(tmp_path / "data", path)
    api.train(run, out=tmp_path / "run", device="cpu")
    api.train(run, out=tmp_path / "other", device="cpu")
    api.pack(tmp_path / "run", out=tmp_path / "packed")
    (tmp_path / "other" / "manifest.json").unlink()
    medtextdiff.load(tmp_path / "run")
    shutil.rmtree(path)
    denoiser.Scratch.tiny().build().save_pretrained(path)
    for name in ("run", "packed"):
        with pytest.raises(RunError, match=r"the denoiser of .* is not the one that it was trained beside"):
            medtextdiff.load(tmp_path / name)
    with pytest.raises(RunError, match="the first is 'denoiser'"):
        api.train(override(run, ["training.max_steps=3"]), out=tmp_path / "other", device="cpu")


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


@pytest.mark.parametrize(
    ("ours", "beside"),
    [
        ("fasttextdiff_monuseg", "unet_monuseg"),
        ("fasttextdiff_monuseg_256", "unet_monuseg_256"),
        ("nuclei_small", "unet_nuclei"),
        ("fasttextdiff_kvasir_10", "unet_kvasir_10"),
    ],
)
def test_the_unet_beside_ours_differs_in_the_network_and_its_rate_alone(ours, beside):
    run, unet_run = getattr(segmentation, ours)(), getattr(segmentation, beside)()
    rates = {"learning_rate": run.training.learning_rate, "lr_scale": run.training.lr_scale}
    assert isinstance(unet_run.model, unet.Config)
    assert unet_run.replace(model=run.model, training=unet_run.training.replace(**rates)) == run


def test_the_model_of_256_pixels_learns_from_views_as_large_as_it_is_shown():
    """An image made 256 x 256 and read at 512 is shown at twice its size; the views it learns from are so, too."""
    native, small = segmentation.fasttextdiff_monuseg(), segmentation.fasttextdiff_monuseg_256()
    shown = small.use.working_image(torch.rand(3, small.data.size, small.data.size)).shape[-1] / small.data.size
    assert [scale * shown for scale in small.data.augmentation.scale] == pytest.approx(native.data.augmentation.scale)
    assert small.use.working_image(torch.rand(3, 1000, 1000)).shape[-1] == small.data.size * shown


@pytest.mark.parametrize("num", [1, 5])
def test_few_labels_are_cut_alike_by_ours_and_the_unet(num):
    ours, beside = (getattr(segmentation, f"{name}_monuseg_{num}")() for name in ("fasttextdiff", "unet"))
    assert ours.use == beside.use
    assert ours.use.contrast_shift > 0
    assert len(ours.data.subset) == num
    assert ours.data.subset == beside.data.subset
