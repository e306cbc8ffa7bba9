import pytest
import torch
from torch import nn

from medtextdiff.segmentation import losses
from medtextdiff.types import IGNORE, Batch
from tests.reference.fill import seeded


def pair(num_classes=3):
    logits = seeded(4, num_classes, 12, 10, seed=1)
    return logits, torch.randint(num_classes, (4, 12, 10), generator=torch.Generator().manual_seed(2))


def test_equals_monai():
    from monai.losses import DiceCELoss

    logits, masks = pair()
    expected = DiceCELoss(to_onehot_y=True, softmax=True)(logits, masks[:, None])
    ours = losses.Config(include_background=True).build().of(logits, masks)
    torch.testing.assert_close(ours["loss"], expected)


def test_perfect_and_worst():
    masks = pair()[1]
    right = 50.0 * torch.nn.functional.one_hot(masks, 3).movedim(-1, 1)
    assert losses.Config().build().of(right, masks)["loss"] == pytest.approx(0, abs=1e-5)
    assert losses.Config().build().of(right, (masks + 1) % 3)["dice_loss"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("settings", [losses.Config(label_smoothing=0.1), losses.as_published()])
def test_ignored_pixels_count_nowhere(settings):
    logits, masks = pair()
    ignored, wild = masks.clone(), logits.clone()
    ignored[:, :4] = IGNORE
    wild[:, :, :4] += 7 * seeded(4, 3, 4, 10, seed=3)
    loss = settings.build()
    torch.testing.assert_close(loss.of(wild, ignored), loss.of(logits, ignored))
    torch.testing.assert_close(loss.of(logits, ignored), loss.of(logits[:, :, 4:], masks[:, 4:]))


def test_nothing_to_count_is_finite():
    logits, masks = pair()
    scalars = losses.Config().build().of(logits.requires_grad_(), torch.full_like(masks, IGNORE))
    scalars["loss"].backward()
    assert scalars["ce"] == 0
    assert logits.grad.isfinite().all()


def test_loss_of_a_batch_is_the_mean_of_its_images():
    logits, masks = pair()
    loss = losses.Config().build()
    each = [loss.of(logits[row : row + 1], masks[row : row + 1])["loss"] for row in range(4)]
    torch.testing.assert_close(loss.of(logits, masks)["loss"], torch.stack(each).mean())


class Plain(nn.Module):
    num_classes = 3

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 3, 1)

    def forward(self, images, notes, boxes=None):
        return self.net(images)


def test_engine_form():
    masks = pair()[1]
    batch = Batch(ids=list("abcd"), notes=[""] * 4, images=seeded(4, 3, 12, 10, seed=5).clamp(-1, 1), masks=masks)
    scalars = losses.Config().build()(Plain(), batch, torch.Generator())
    assert set(scalars) == {"loss", "dice_loss", "ce"}
    assert scalars["loss"].requires_grad


def test_misuse_is_refused():
    logits, masks = pair()
    with pytest.raises(ValueError, match=r"mask values \[7\] are no classes.*from 0 to 2"):
        losses.Config().build().of(logits, masks.masked_fill(masks == 1, 7))
    with pytest.raises(ValueError, match="no masks"):
        losses.Config().build()(Plain(), Batch(ids=["a"], notes=[""], images=torch.zeros(1, 3, 4, 4)))
