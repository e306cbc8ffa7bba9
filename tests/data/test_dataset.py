"""Records to samples to batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from medtextdiff.data import augment, images, transforms
from medtextdiff.data.dataset import Dataset, Mixture, collate
from medtextdiff.data.errors import DataError, ImageError
from medtextdiff.data.records import unlabelled
from medtextdiff.types import IGNORE


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_whole_image_is_what_the_readers_give(disc_records):
    sample = Dataset(disc_records).sample(3, rng())
    record = disc_records[3]
    assert (sample.id, sample.note) == (record.id, record.note)
    assert torch.equal(sample.image, transforms.to_tensor(images.read(record.image)))
    np.testing.assert_array_equal(sample.mask.numpy(), images.read_mask(record.mask))
    assert sample.mask.dtype == torch.int64
    assert sample.box.tolist() == [0, 0, 1, 1]


def test_batches_keep_order_and_shapes(disc_records):
    data = Dataset(disc_records, size=(16, 24))
    batch = collate([data.sample(index, rng()) for index in (5, 2, 2)])
    assert batch.ids == ["disc_05", "disc_02", "disc_02"]
    assert batch.images.shape == (3, 3, 16, 24)
    assert batch.masks.shape == (3, 16, 24)
    assert batch.boxes.tolist() == [[0, 0, 1, 1]] * 3


@pytest.mark.parametrize("options", [{}, {"size": 24}, {"augmentation": augment.Config(crop=16, flips=True)}])
def test_the_cache_changes_nothing_and_cannot_be_changed(disc_records, options):
    cached, fresh, full = (
        Dataset(disc_records, **options, **extra) for extra in ({}, {"cache": False}, {"cache_bytes": 5000})
    )
    for _ in range(2):
        for index in range(len(disc_records)):
            samples = [data.sample(index, rng(index)) for data in (cached, fresh, full)]
            for other in samples[1:]:
                assert torch.equal(samples[0].image, other.image)
                assert torch.equal(samples[0].mask, other.mask)
            samples[0].image.zero_()
            samples[0].mask.zero_()


def test_deep_images_keep_their_depth_in_the_cache(disc_records, tmp_path):
    deep = (np.random.default_rng(0).random((32, 32)) * 900).astype(np.uint16)  # 12-bit data in 16 bits: nearly black
    Image.fromarray(deep).save(tmp_path / "deep.png")
    data = Dataset([replace(disc_records[0], image=tmp_path / "deep.png")], augmentation=augment.Config())
    for _ in range(2):
        image = data.sample(0, rng()).image
        assert len(torch.unique(image)) > 300
        image.zero_()
    torch.testing.assert_close(data.sample(0, rng()).image[0], torch.from_numpy(deep / 32767.5 - 1).float())


def test_a_mask_of_another_size_names_the_record(disc_records):
    images.write_mask(disc_records[1].mask, np.ones((8, 9), np.int64), overwrite=True)
    with pytest.raises(DataError, match=r"'disc_01': the mask is 9 x 8, its image 32 x 32"):
        Dataset(disc_records).sample(1, rng())


def test_classes_are_counted(disc_records):
    mask = np.zeros((32, 32), np.int64)
    mask[:4], mask[4:8], mask[8:9] = 1, 3, IGNORE
    images.write_mask(disc_records[0].mask, mask, overwrite=True)
    with pytest.raises(DataError, match=r"'disc_00'.*class 3, but there are 2 classes.*foreground=any"):
        Dataset(disc_records).sample(0, rng())
    assert Dataset(disc_records, num_classes=4).sample(0, rng()).mask.unique().tolist() == [0, 1, 3, IGNORE]
    merged = Dataset(disc_records, foreground="any").sample(0, rng()).mask
    assert merged.unique().tolist() == [0, 1, IGNORE]
    assert (merged == 1).sum() == 8 * 32


def test_turned_views_follow_the_side_of_their_source(disc_config):
    turns = augment.Config(rot90=True)
    for side, place in (("viewer", "lower left"), ("patient", "upper right")):
        record = disc_config.replace(side=side).build().records()[0]  # "upper left"
        samples = [Dataset([record], augmentation=turns).sample(0, rng(seed)) for seed in range(8)]
        assert {sample.note for sample in samples} == {record.note, f"A bright disc in the {place}."}


def test_masks_that_number_their_objects_have_a_255th(disc_records):
    mask = np.zeros((32, 32), np.int64)
    mask[:2], mask[2:3] = IGNORE, 256
    images.write_mask(disc_records[0].mask, mask, overwrite=True)
    assert (Dataset(disc_records, foreground="any").sample(0, rng()).mask == 1).sum() == 3 * 32


def test_masks_that_only_leave_pixels_open_are_refused_unless_one_marks_something(disc_records):
    for record in disc_records[1:]:
        images.write_mask(record.mask, np.eye(32, dtype=np.int64) * IGNORE, overwrite=True)
    Dataset(disc_records).check()
    with pytest.raises(DataError, match=r"none of 7 masks marks anything .*255 among label ids is not counted"):
        Dataset(disc_records[1:]).check()


def test_unlabelled_images_have_no_masks_and_mixed_batches_ignore(disc_records):
    bare = Dataset(unlabelled(disc_records), augmentation=augment.Config(crop=16))
    assert collate([bare.sample(0, rng())]).masks is None
    mixed = collate([bare.sample(0, rng()), Dataset(disc_records, size=16).sample(0, rng())])
    assert (mixed.masks[0] == IGNORE).all()
    assert not (mixed.masks[1] == IGNORE).any()


def test_sizes_that_differ_cannot_share_a_batch(disc_records):
    data = Dataset(disc_records), Dataset(disc_records, size=16)
    with pytest.raises(DataError, match="set `crop`, or `size`"):
        collate([part.sample(0, rng()) for part in data])


def test_nothing_to_learn_from(disc_records):
    with pytest.raises(DataError, match="at least one record"):
        Dataset([])
    with pytest.raises(DataError, match="'disc_00'"):
        Dataset([replace(disc_records[0], image=None)])
    disc_records[0].image.write_bytes(b"")
    with pytest.raises(ImageError, match="empty"):
        Dataset(disc_records).sample(0, rng())


def test_mixture_draws_by_weight_and_only_from_the_generator(disc_records):
    mixture = Mixture([(Dataset(disc_records[:2]), 3.0), (Dataset(disc_records[2:]), 1.0)])
    assert len(mixture) == 8
    drawn = [mixture.sample(seed % 8, rng(seed)).id for seed in range(300)]
    first = sum(name in ("disc_00", "disc_01") for name in drawn) / 300
    assert 0.67 < first < 0.83
    assert len(set(drawn)) == 8
    assert mixture.sample(0, rng(7)).id == mixture.sample(5, rng(7)).id
    with pytest.raises(DataError, match="weight above 0"):
        Mixture([(Dataset(disc_records), 0.0)])


@pytest.mark.parametrize("augmentation", [None, augment.Config()])
def test_images_and_masks_are_made_smaller_as_asked(disc_records, augmentation):
    record = disc_records[0]
    image = transforms.to_tensor(images.read(record.image))
    mask = torch.from_numpy(images.read_mask(record.mask))
    for antialias, resize_mask in ((True, transforms.resize_mask), (False, transforms.published_mask)):
        data = Dataset(disc_records, size=20, augmentation=augmentation, antialias=antialias, resize_mask=resize_mask)
        sample = data.sample(0, rng())
        expected = F.interpolate(image[None], (20, 20), mode="bilinear", antialias=antialias)[0]
        torch.testing.assert_close(sample.image, expected, atol=1.01 / 255, rtol=0)  # 8 bits, where views are drawn
        assert torch.equal(sample.mask, resize_mask(mask, 20))
        assert sample.mask.dtype == torch.int64
    assert transforms.published_mask(mask, 20).sum() > transforms.resize_mask(mask, 20).sum()
