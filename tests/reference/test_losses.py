"""The published loss: the published code's numbers, to 1e-6."""

import json
from pathlib import Path

import pytest

from medtextdiff.segmentation import losses
from tests.reference.fill import seeded

GOLDEN = json.loads((Path(__file__).parent / "goldens" / "loss_and_metrics.json").read_text())


@pytest.fixture(scope="module")
def pair():
    return seeded(2, 2, 32, 32, seed=40), (seeded(2, 32, 32, seed=41) > 0.5).long()


def test_parts(pair):
    logits, masks = pair
    assert losses.cross_entropy(logits, masks).item() == pytest.approx(GOLDEN["cross_entropy"], abs=1e-6)
    on_logits = losses.published_dice_loss(logits, masks).item()
    assert on_logits == pytest.approx(GOLDEN["dice_loss_on_logits"], abs=1e-6)
    on_softmax = losses.published_dice_loss(logits.softmax(dim=1), masks).item()
    assert on_softmax == pytest.approx(GOLDEN["dice_loss_on_softmax"], abs=1e-6)


def test_loss_as_published(pair):
    loss = losses.as_published().build().of(*pair)["loss"].item()
    assert loss == pytest.approx(GOLDEN["loss_as_published"], abs=1e-6)
