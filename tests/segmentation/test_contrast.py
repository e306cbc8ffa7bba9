import numpy as np
import pytest
import torch

from medtextdiff.segmentation import consistency, contrast, use
from medtextdiff.segmentation.views import Encoded


def log_odds(probs):
    return torch.log(probs) - torch.log(1 - probs)


def stained(height=40, width=60, seed=0):
    """A picture with a dark square, and a foreground probability that follows it, too low all over."""
    rng = torch.Generator().manual_seed(seed)
    truth = torch.zeros(height, width, dtype=torch.bool)
    truth[10:30, 10:30] = True
    image = torch.where(truth, torch.tensor([[[-0.4]], [[-0.6]], [[0.0]]]), torch.tensor([[[0.6]], [[0.2]], [[0.5]]]))
    image = (image + 0.1 * torch.randn(image.shape, generator=rng)).clamp(-1, 1)
    probs = torch.where(truth, 0.3, 0.1) + 0.05 * (torch.rand(height, width, generator=rng) - 0.5)
    return image, probs, truth


def fisher(image, mask):
    """Fisher's criterion by numpy, from the definition."""
    density = -np.log(np.clip((image.double().numpy() + 1) / 2, 2 / 255, 1)).reshape(3, -1)
    inside, outside = density[:, mask.ravel()], density[:, ~mask.ravel()]
    scatter = sum(side.shape[1] * np.cov(side, bias=True) for side in (inside, outside))
    apart = inside.mean(axis=1) - outside.mean(axis=1)
    return inside.shape[1] * outside.shape[1] * apart @ np.linalg.inv(scatter) @ apart


def test_the_cut_is_where_the_colours_differ():
    image, probs, truth = stained()
    assert -1.95 < contrast.best_cut(image, log_odds(probs)) < -0.9
    assert not (probs > 0.5).any()
    shifted = contrast.shift(image, torch.stack([1 - probs, probs]), 1.0)
    assert torch.equal(shifted[1] > 0.5, truth)


@pytest.mark.parametrize("chunk", [1 << 20, 97])
def test_fishers_criterion_as_defined(chunk, monkeypatch):
    monkeypatch.setattr(contrast, "_CHUNK", chunk)
    rng = torch.Generator().manual_seed(5)
    image = torch.rand(3, 40, 30, generator=rng) * 2 - 1
    odds = 3 * image[0] - 2 * image[2] + torch.randn(40, 30, generator=rng)
    cuts = np.arange(-3, 3.01, 0.25)
    scores = [fisher(image, (odds > cut).numpy()) for cut in cuts]
    assert contrast.best_cut(image, odds) == cuts[int(np.argmax(scores))]


def test_no_cut_without_two_sides():
    image, _, _ = stained()
    assert contrast.best_cut(image, torch.full((40, 60), 0.1)) == 0
    few = torch.full((40, 60), -9.0)
    few[0, :40] = 2.0
    assert contrast.best_cut(image, few) == 0


def test_of_cuts_that_give_one_mask_the_nearest_to_the_models_own_is_taken():
    image, _, truth = stained()
    assert contrast.best_cut(image, torch.where(truth, 5.0, -3.5)) == 0
    assert contrast.best_cut(image, torch.where(truth, 5.0, 0.6)) == 0.75
    assert contrast.best_cut(image, torch.where(truth, -1.1, -5.0)) == -1.25


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.9, 1.0])
def test_a_picture_of_one_colour_keeps_its_threshold(value):
    odds = 1.5 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) - 3
    assert contrast.best_cut(torch.full((3, 64, 64), value), odds) == 0


@pytest.mark.parametrize("parts", [(1.0,), (0.5, 0.5), (0.4, 0.3, 0.2, 0.1)])
def test_the_mask_is_what_the_cut_chose_however_many_classes(parts):
    image, probs, truth = stained()
    split = torch.stack([1 - probs, *(part * probs for part in parts)])
    shifted = contrast.shift(image, split, 1.0)
    assert torch.equal(shifted.argmax(dim=0) > 0, truth)


def test_a_grey_picture_has_a_cut():
    image, probs, truth = stained()
    grey = image.mean(dim=0, keepdim=True).expand(3, -1, -1)
    assert torch.equal(contrast.shift(grey, torch.stack([1 - probs, probs]), 1.0)[1] > 0.5, truth)


def test_shifted_probabilities_sum_to_one_and_keep_the_ratios_of_the_foreground():
    image, probs, _ = stained()
    three = torch.stack([1 - probs, 0.75 * probs, 0.25 * probs])
    shifted = contrast.shift(image, three, 0.5)
    torch.testing.assert_close(shifted.sum(dim=0), torch.ones(40, 60))
    torch.testing.assert_close(shifted[1] / shifted[2], torch.full((40, 60), 3.0))
    half = log_odds(1 - shifted[0]) - log_odds(probs)
    cut = contrast.best_cut(image, torch.log(0.75 * probs) - torch.log(1 - probs))
    torch.testing.assert_close(half, torch.full((40, 60), -0.5 * cut))


def test_one_class_stays_certain():
    image, _, _ = stained()  # a bank is filled by a model of one class
    torch.testing.assert_close(contrast.shift(image, torch.ones(1, 40, 60), 1.0), torch.ones(1, 40, 60))


def test_certain_probabilities_stay_finite():
    image, _, truth = stained()
    sure = torch.stack([(~truth).float(), truth.float()])
    shifted = contrast.shift(image, sure, 1.0)
    assert torch.isfinite(shifted).all()
    assert torch.equal(shifted[1] > 0.5, truth)


class Unsure(torch.nn.Module):
    """Gives the probabilities of `stained` from the picture's red channel; encodes and decodes."""

    num_classes = 2

    def encode(self, images):
        return [images]

    def decode(self, levels, notes, boxes=None, size=None):
        odds = torch.where(levels[0][:, 0] < 0.1, -0.8, -2.2)
        return torch.stack([torch.zeros_like(odds), odds], dim=1)

    def forward(self, images, notes, boxes=None):
        return self.decode(self.encode(images), notes)


def test_a_run_may_ask_for_it_and_decoding_agrees():
    image, _, truth = stained()
    plain, fitted = use.Config(), use.Config(contrast_shift=1.0)
    model = Unsure().eval()
    assert not (plain.probabilities(model, image, "")[1] > 0.5).any()
    probs = fitted.probabilities(model, image, "")
    assert torch.equal(probs[1] > 0.5, truth)
    torch.testing.assert_close(Encoded.of(model, image, fitted).probabilities(model, ""), probs)


def test_a_teacher_may_be_fitted_to_each_crop():
    image, probs, truth = stained()
    images = torch.stack([image, -image])
    logits = torch.stack([torch.zeros(2, 40, 60), log_odds(probs).expand(2, -1, -1)], dim=1)
    loss = consistency.Config(contrast_shift=1.0).build(Unsure())
    fitted = loss._fitted(logits, images).softmax(dim=1)
    assert torch.equal(fitted[0, 1] > 0.5, truth)
    assert torch.equal(consistency.Config().build(Unsure())._fitted(logits, images), logits)
