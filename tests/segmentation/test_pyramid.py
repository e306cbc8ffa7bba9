import subprocess
import sys

import torch

from medtextdiff.segmentation.heads import pyramid
from tests.reference.fill import seeded

BOX = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def test_a_frozen_level_trains_the_head_as_a_trained_one_does():
    torch.manual_seed(0)
    head = pyramid.Config(width=16).build((32, 16), (8, 4), None, 2)
    gradients = []
    for trained in (False, True):
        levels = [seeded(1, 32, 8, 8, seed=1), seeded(1, 16, 16, 16, seed=2)]
        levels = [level.requires_grad_(trained) for level in levels]
        head.zero_grad()
        (head(levels, None, BOX, (64, 64)) * seeded(1, 2, 64, 64, seed=3)).sum().backward()
        gradients.append([weight.grad.clone() for weight in head.parameters()])
    for frozen, trained in zip(*gradients, strict=True):
        torch.testing.assert_close(frozen, trained, rtol=1e-4, atol=1e-5)


def test_a_wide_frozen_channels_last_level_does_not_end_the_process():
    """torch 2.13's own GroupNorm does, on a CPU: so this runs in a process of its own."""
    program = """
import torch
from medtextdiff.segmentation.heads import pyramid
torch.set_num_threads(1)
head = pyramid.Config(width=16).build((192,), (8,), None, 2)
level = torch.randn(1, 192, 32, 32).to(memory_format=torch.channels_last)
head([level], None, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), (256, 256)).sum().backward()
print(all(weight.grad.isfinite().all() for weight in head.parameters()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
