"""A tiny MSDM with real classes, and made-up latents."""

import numpy as np
import pytest
import torch

from medtextdiff.diffusion import autoencoder, latent_denoiser, objective
from medtextdiff.synthesis import conditioning
from medtextdiff.synthesis.models import msdm
from medtextdiff.text.encoders import tiny
from medtextdiff.types import Record


def tiny_config(**changes) -> msdm.Config:
    return msdm.Config(
        autoencoder=autoencoder.Scratch.tiny().replace(trainable=False),
        text=tiny.Config(),
        conditioning=conditioning.Config(width=16, heads=2),
        denoiser=latent_denoiser.Scratch.tiny(),
        objective=objective.Config(target="flow", schedule="straight"),
    ).replace(**changes)


@pytest.fixture
def model() -> msdm.MSDM:
    """Its output layer is not zero, so that prompts and words can be told apart."""
    torch.manual_seed(0)
    built = tiny_config().build()
    torch.nn.init.normal_(built.denoiser.unet.conv_out.weight, std=0.1)
    return built.eval()


@pytest.fixture
def records() -> list[Record]:
    notes = ["a polyp in the upper-left", "no polyp", "red, at the lower right"]
    return [Record(f"case{k}", note, other_notes=("a finding",)) for k, note in enumerate(notes)]


def moments(num: int, views: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(num, views, 4, 8, 8)).astype(np.float16)
    return mean, np.full_like(mean, 0.1)
