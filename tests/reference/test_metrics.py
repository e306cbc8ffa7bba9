"""The published code's IoU and Dice, on its own numbers."""

import json
from pathlib import Path

import pytest
import torch

from medtextdiff.evaluation.segmentation import score_as_published, score_as_published_pooled

GOLDEN = json.loads((Path(__file__).parent / "goldens" / "loss_and_metrics.json").read_text())


def seeded(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_pooled_iou_and_dice():
    logits = seeded(2, 2, 32, 32, seed=40).numpy()
    target = (seeded(2, 32, 32, seed=41) > 0.5).long().numpy()
    scores = score_as_published_pooled(logits, target)
    assert scores["iou"] == pytest.approx(GOLDEN["iou_pooled"], abs=1e-6)
    assert scores["dice"] == pytest.approx(GOLDEN["dice_pooled"], abs=1e-6)
    assert score_as_published_pooled(logits.argmax(axis=1), target) == scores
    assert score_as_published(logits[0], target[0]) == score_as_published_pooled(logits[:1], target[:1])
