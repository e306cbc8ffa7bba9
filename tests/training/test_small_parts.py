"""Schedule, average, optimizer groups, stream, weights: their arithmetic."""

import itertools
import math
from collections import Counter, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from medtextdiff.config import ConfigError
from medtextdiff.training import means, optimizer, randomness, schedule, stream, weights
from medtextdiff.training.ema import Ema, decay_at
from medtextdiff.training.errors import RunError
from medtextdiff.types import Batch


def factors(shape, steps=(0, 4, 9, 10, 55, 100, 200)):
    return [schedule.factor(s, max_steps=100, warmup_steps=10, shape=shape, min_ratio=0.1) for s in steps]


def test_schedules():
    warm = [0.1, 0.5, 1.0, 1.0]
    assert factors("constant") == pytest.approx([*warm, 1, 1, 1])
    assert factors("linear") == pytest.approx([*warm, 0.55, 0.1, 0.1])
    assert factors("cosine") == pytest.approx([*warm, 0.55, 0.1, 0.1])
    quarter = schedule.factor(25, max_steps=100, warmup_steps=0, shape="cosine", min_ratio=0.0)
    assert quarter == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


@pytest.mark.slow  # importing diffusers takes longer than the rest of this file
def test_the_average_is_that_of_diffusers():
    from diffusers.training_utils import EMAModel

    model = nn.Linear(3, 2)
    ours = Ema(model, 0.95)
    theirs = EMAModel(model.parameters(), decay=0.95, use_ema_warmup=True)
    for step in range(1, 120):
        with torch.no_grad():
            for p in model.parameters():
                p += torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
        ours.update(step)
        theirs.step(model.parameters())
    for name, expected in zip(ours.average, theirs.shadow_params, strict=True):
        torch.testing.assert_close(ours.average[name], expected)


def test_the_average_warms_up_and_steps_aside():
    assert decay_at(1, 0.99) == 0.0
    assert decay_at(8, 0.99) == pytest.approx(0.75)
    assert decay_at(10**6, 0.99) == 0.99
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    ema = Ema(model, 0.9)
    assert set(ema.average) == {"weight"}
    before = model.weight.detach().clone()
    ema.average["weight"] += 1
    with ema.applied():
        torch.testing.assert_close(model.weight.detach(), before + 1)
    assert torch.equal(model.weight, before)


def test_the_longest_prefix_sets_the_rate():
    model = nn.ModuleDict({"head": nn.Linear(1, 1), "head2": nn.Linear(1, 1), "net": nn.Linear(1, 1)})
    scale = {"head": 0.5, "head.bias": 0.1}
    made = optimizer.adamw(model, learning_rate=1.0, weight_decay=0.0, betas=(0.9, 0.99), lr_scale=scale)
    optimizer.set_rate(made, 0.5)
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    got = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert got["head.weight"] == 0.25
    assert got["head.bias"] == pytest.approx(0.05)
    assert got["head2.weight"] == got["net.bias"] == 0.5
    with pytest.raises(ConfigError, match="no trainable component"):
        optimizer.adamw(model, learning_rate=1.0, weight_decay=0.0, betas=(0.9, 0.99), lr_scale={"hea": 1.0})


def test_each_epoch_shows_each_sample_once_in_another_order():
    epochs = [[stream.place(p, 7, seed=3) for p in range(e * 7, e * 7 + 7)] for e in range(3)]
    for number, places in enumerate(epochs):
        assert {epoch for epoch, _ in places} == {number}
        assert Counter(index for _, index in places) == dict.fromkeys(range(7), 1)
    assert epochs[0] != [(0, index) for _, index in epochs[1]]
    assert stream.place(11, 7, seed=3) != stream.place(11, 7, seed=4) or stream.place(12, 7, 3) != stream.place(
        12, 7, 4
    )


@pytest.mark.parametrize(("accumulation", "world"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_ranks_and_micro_batches_cut_the_same_positions(accumulation, world):
    parts = [
        list(stream.positions(5, micro, rank, batch_size=12, accumulation=accumulation, world=world))
        for rank in range(world)
        for micro in range(accumulation)
    ]
    assert list(itertools.chain(*parts)) == list(range(60, 72))


def test_a_sample_is_drawn_anew_each_epoch():
    class Noise:
        def __len__(self):
            return 3

        def sample(self, index, rng):
            return index, float(torch.rand((), generator=rng))

        def collate(self, samples):
            return samples

    once = next(iter(stream.batches(Noise(), [range(6)], seed=0)))
    again = list(stream.batches(Noise(), [range(2), range(2, 6)], seed=0))
    assert once == again[0] + again[1]
    assert len({value for _, value in once}) == 6


def test_tensors_move_whatever_holds_them():
    Pair = namedtuple("Pair", "a b")

    @dataclass(frozen=True)
    class Held:
        name: str
        inner: dict[str, Tensor]

    device = torch.device("meta")
    held = stream.to_device(Held("x", {"a": torch.zeros(1)}), device)
    assert held.name == "x"
    assert held.inner["a"].device == device
    pair = stream.to_device([Pair(torch.zeros(1), "b"), (torch.zeros(2), None)], device)
    assert isinstance(pair[0], Pair)
    assert pair[0].a.device == pair[1][0].device == device
    batch = Batch(["a"], ["note"], torch.rand(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    moved = stream.to_device(batch, torch.device("cpu"), channels_last=True)
    assert moved.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.images, batch.images)
    assert moved.notes == ["note"]


def test_seeds_differ_and_repeat():
    assert randomness.derive(1, "loss", 2) == randomness.derive(1, "loss", 2)
    assert len({randomness.derive(seed, word, n) for seed in range(5) for word in ("a", "b") for n in range(50)}) == 500
    assert all(0 <= randomness.derive(n) < 2**63 for n in range(100))


def test_means_leave_out_steps_that_fp16_skipped():
    window = means.empty(1.0)
    for loss, norm in ((1.0, 4.0), (3.0, math.inf)):
        window = means.add(window, {"loss": loss}, norm)
    assert means.summary(window, 3.0, 8) == {"loss": 2.0, "grad_norm": 4.0, "seconds": 3.0, "samples_per_second": 8.0}


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).requires_grad_(False)
        self.free = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False), nn.BatchNorm1d(2))
        self.register_buffer("noise", torch.ones(3))
        self.register_buffer("scratch", torch.ones(3), persistent=False)


def test_only_what_was_trained_is_kept():
    names = set(weights.trained(Mixed()))
    norm = ("running_mean", "running_var", "num_batches_tracked")
    expected = {"noise", "free.0.weight", "free.0.bias", "free.2.weight", "free.2.bias"}
    assert names == expected | {f"free.{n}.{name}" for n in (1, 2) for name in norm}
    lone = nn.Linear(2, 2).requires_grad_(False)
    assert weights.trained(lone) == {}


def test_filling_is_strict(tmp_path):
    model, other = nn.Linear(2, 2), nn.Linear(2, 3)
    targets = weights.trained(model)
    with pytest.raises(RunError, match="missing bias; unexpected gain"):
        weights.fill(targets, {"weight": torch.zeros(2, 2), "gain": torch.zeros(1)}, tmp_path)
    with pytest.raises(RunError, match=r"'weight' is \(3, 2\) in the file, \(2, 2\)"):
        weights.fill(targets, weights.trained(other), tmp_path)
