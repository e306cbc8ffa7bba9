"""One record for each image and target: which there are, what they ask for, and that mirrored views ask right."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from medtextdiff.data import augment
from medtextdiff.data.dataset import Dataset
from medtextdiff.data.errors import DataError
from medtextdiff.data.sources import targets

ASKED = {"masks_left": ("The left lung.", "Left lung"), "masks_right": ("The right lung.", "Right lung")}


@pytest.fixture
def chest(tmp_path):
    """Three images of two lungs; of the last no right lung was drawn. Left is the patient's: on the picture's right."""
    for name in ("images", *ASKED):
        (tmp_path / name).mkdir()
    rows = ["image,mask,split"]
    for k in range(3):
        left = np.zeros((16, 24), dtype=np.uint8)
        left[4:12, 16:21] = 255
        Image.fromarray(left // 2 + left[:, ::-1] // 2 + 20).save(tmp_path / "images" / f"x{k}.png")
        Image.fromarray(left).save(tmp_path / "masks_left" / f"x{k}.png")
        if k < 2:
            Image.fromarray(left[:, ::-1].copy()).save(tmp_path / "masks_right" / f"x{k}.png")
        rows.append(f"x{k}.png,x{k}.png,{'train' if k else 'val'}")
    (tmp_path / "notes.csv").write_text("\n".join(rows) + "\n")
    return targets.Config(root=str(tmp_path), targets=ASKED, side="patient")


def test_each_drawn_target_is_a_record(chest):
    records = chest.build().records()
    assert [record.id for record in records] == [
        "x0__masks_left",
        "x0__masks_right",
        "x1__masks_left",
        "x1__masks_right",
        "x2__masks_left",
    ]
    assert [record.note for record in records[:2]] == ["The left lung.", "The right lung."]
    assert records[0].other_notes == ("Left lung",)
    assert records[0].mask.parent.name == "masks_left"


def test_records_of_one_image_are_of_one_patient(chest):
    patients = [record.patient for record in chest.build().records()]
    assert patients[0] == patients[1] != patients[2]


def test_a_patient_column_says_whose_image_it_is(chest, tmp_path):
    table = (tmp_path / "notes.csv").read_text().splitlines()
    named = zip(table, ["patient", "ann", "ann", "bob"], strict=True)
    (tmp_path / "notes.csv").write_text("".join(f"{line},{name}\n" for line, name in named))
    patients = {record.patient for record in chest.build().listing().records}
    assert patients == {"ann", "bob"}
    with pytest.raises(DataError, match="1 patients have images in two splits"):
        chest.build().records()


def test_a_mirrored_view_still_asks_for_what_is_marked(chest):
    settings = augment.Config(flips=True, vertical_flips=False)
    dataset = Dataset(chest.build().records(), augmentation=settings, foreground="any")
    seen = set()
    for index in range(len(dataset)):
        for seed in range(12):
            sample = dataset.sample(index, torch.Generator().manual_seed(seed))
            on_the_right = bool(sample.mask[:, 12:].any())
            assert on_the_right == ("left" in sample.note.lower())  # the patient's left, before and after
            seen.add((index, sample.note))
    assert len(seen) >= 5 * 3  # phrasings and sides are drawn


def test_evaluation_takes_the_first_phrasing(chest):
    dataset = Dataset(chest.build().records(), foreground="any")
    assert dataset.sample(1, torch.Generator()).note == "The right lung."


def test_a_folder_that_is_not_there_is_named(chest):
    with pytest.raises(DataError, match=r"no folder 'masks_up' of masks; it has images, masks_left"):
        chest.replace(targets={"masks_up": ("Up.",)}).build().records()


def test_a_set_without_any_mask_is_refused(chest, tmp_path):
    for path in [*(tmp_path / "masks_left").iterdir(), *(tmp_path / "masks_right").iterdir()]:
        path.unlink()
    with pytest.raises(DataError, match="none of masks_left, masks_right holds a mask"):
        chest.build().records()


@pytest.mark.parametrize("asked", [{}, {"a": ()}, {"a": (" ",)}, {"a": ("Lung",), "b": ("Lung",)}])
def test_targets_that_a_note_cannot_tell_apart_are_refused(asked):
    with pytest.raises(ValidationError):
        targets.Config(root="x", targets=asked)


def test_a_root_is_asked_for():
    with pytest.raises(DataError, match=r"--set data\.root=DIR"):
        targets.Config(targets=ASKED).build().records()
