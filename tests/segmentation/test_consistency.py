import math

import pytest
import torch

from medtextdiff.segmentation import consistency
from medtextdiff.types import Batch
from tests.reference.fill import seeded


def test_counts_confident_pixels_only_over_all_pixels():
    teacher = torch.tensor([[4.0, 0.1], [0.0, 0.0]]).reshape(1, 2, 1, 2)  # sure of class 0, unsure
    student = torch.zeros(1, 2, 1, 2)
    assert consistency.consistency(student, teacher, 0.9).item() == pytest.approx(math.log(2) / 2)
    assert consistency.consistency(student, teacher, 0.5).item() == pytest.approx(math.log(2))
    assert consistency.consistency(student, teacher, 1.0).item() == 0


def test_no_gradient_reaches_the_teacher():
    student, teacher = (seeded(2, 3, 4, 4, seed=k).requires_grad_() for k in (1, 2))
    consistency.consistency(student, teacher, 0.0).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0


class Crops:
    def __init__(self, name, num, masks):
        self.name, self.num, self.masks = name, num, masks

    def __len__(self):
        return self.num

    def sample(self, index, rng):
        return index, torch.rand(3, 16, 16, generator=rng) * 2 - 1

    def collate(self, samples):
        images = torch.stack([image for _, image in samples])
        masks = (images[:, 0] > 0).long() if self.masks else None
        ids = [f"{self.name}{index}" for index, _ in samples]
        return Batch(ids=ids, notes=["right"] * len(ids), images=images, masks=masks)


def paired_batch(seed=0):
    data = consistency.Paired(Crops("l", 5, True), Crops("u", 20, False))
    rng = torch.Generator().manual_seed(seed)
    return data.collate([data.sample(index, rng) for index in (1, 4)])


def test_pairs_hold_both_and_follow_from_the_seed():
    batch, again, other = paired_batch(), paired_batch(), paired_batch(1)
    assert batch.labelled.ids == ["l1", "l4"]
    assert batch.weak.ids[0].startswith("u")
    assert batch.weak.images.shape == batch.strong.shape
    assert (batch.weak.images - batch.strong).abs().max() > 0.05
    assert batch.strong.abs().max() <= 1
    torch.testing.assert_close(batch.strong, again.strong, rtol=0, atol=0)
    assert (batch.strong - other.strong).abs().max() > 0.05


def test_a_weak_view_that_comes_again_brings_its_strong_one():
    data = consistency.Paired(Crops("l", 5, True), Crops("u", 20, False), repeats=True)
    sample = data.sample(1, torch.Generator().manual_seed(0))
    first, second = data.collate([sample]), data.collate([(*sample[:2], 12345)])
    assert torch.equal(first.strong, second.strong)
    assert (first.strong - first.weak.images).abs().max() > 0.05


def test_strong_view_moves_no_pixel():
    image = -torch.ones(3, 16, 16)
    image[:, 5, 9] = 1
    view = consistency.strong_view(image, torch.Generator().manual_seed(1))
    assert view.mean(dim=0).flatten().argmax() == 5 * 16 + 9


def test_loss_and_ramp_up(made):
    student = made().train()
    loss = consistency.Config(threshold=0.0, ramp_up=10, weight=2.0).build(student)
    first = loss(student, paired_batch(), torch.Generator())
    torch.testing.assert_close(first["loss"], first["dice_loss"] + first["ce"])
    assert first["confident"] == 1
    loss.update_teacher(student, step=5)
    later = loss(student, paired_batch(), torch.Generator())
    torch.testing.assert_close(later["loss"], later["dice_loss"] + later["ce"] + later["consistency"])
    at_once = consistency.Config(threshold=0.0, ramp_up=0, weight=2.0).build(student)(
        student, paired_batch(), torch.Generator()
    )
    torch.testing.assert_close(at_once["loss"], at_once["dice_loss"] + at_once["ce"] + 2 * at_once["consistency"])
    later["loss"].backward()
    assert all(weight.grad is None for weight in loss.teacher.parameters())
    assert any(weight.grad is not None for weight in student.parameters())


def test_teacher_is_the_running_average_and_shares_what_is_frozen(made):
    student = made().train()
    loss = consistency.Config(decay=0.5).build(student)
    assert loss.teacher.denoiser.unet.conv_in.weight is student.denoiser.unet.conv_in.weight
    assert not loss.teacher.training
    before = loss.teacher.head.classify.weight.clone()
    with torch.no_grad():
        student.head.classify.weight += 1
    loss.update_teacher(student, step=1000)
    torch.testing.assert_close(loss.teacher.head.classify.weight, before + 0.5)
    assert student.head.classify.weight.requires_grad


def test_resumed_teacher_is_the_same(made):
    student = made()
    loss, resumed = (consistency.Config().build(student) for _ in range(2))
    with torch.no_grad():
        student.head.classify.weight += 1
    loss.update_teacher(student, step=7)
    resumed.load_state_dict(loss.state_dict())
    assert resumed.step == 7
    torch.testing.assert_close(resumed.teacher.state_dict(), loss.teacher.state_dict(), rtol=0, atol=0)


def test_misuse_is_refused(made):
    with pytest.raises(ValueError, match="unlabelled data set is empty"):
        consistency.Paired(Crops("l", 5, True), Crops("u", 0, False))
    batch = paired_batch()
    crooked = consistency.PairedBatch(batch.labelled, batch.weak, batch.strong[:, :, :8])
    student = made()
    with pytest.raises(ValueError, match="same crop size"):
        consistency.Config().build(student)(student, crooked)
