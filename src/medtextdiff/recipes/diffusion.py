"""Recipes that pre-train a denoiser on images without labels."""

from typing import Any

from pydantic import Field, PositiveFloat, SerializeAsAny

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.data import augment
from medtextdiff.data.dataset import Dataset, Mixture
from medtextdiff.data.images import content_hash
from medtextdiff.data.records import unlabelled
from medtextdiff.data.sources import detect
from medtextdiff.diffusion import denoiser, objective, pretrain
from medtextdiff.recipes.job import Job, Wrapped, on_component
from medtextdiff.recipes.run_folder import locate
from medtextdiff.training import engine
from medtextdiff.types import Record


class Run(config.Config):
    """The pre-training of a denoiser.

    model: a denoiser from random weights, or one that goes on from where another run left it.
    roots: folders of images -> how often each is drawn. split: only its images; "" takes every image there is.
    """

    model: SerializeAsAny[config.Config] = denoiser.Scratch()
    roots: dict[str, PositiveFloat] = Field(default_factory=dict)
    split: str = "train"
    augmentation: augment.Config = augment.Config(crop=128, scale=(0.8, 4.0), flips=True, rot90=True, note_dropout=1.0)
    loss: pretrain.Config = pretrain.Config()
    training: engine.Config = engine.Config()

    def job(self) -> Job:
        """Build it.

        Raises:
            ConfigError: no folders; DataError: no data set there; ImageError: an image that cannot be read.
        """
        import torch

        if not self.roots:
            raise ConfigError("no images: name folders and their weights, --set 'roots={\"DIR\": 1.0}'")
        torch.manual_seed(self.training.seed)  # new weights
        groups = {root: _images(root, self.split) for root in self.roots}
        parts = [
            (Dataset(records, augmentation=self.augmentation).check(), self.roots[root])
            for root, records in groups.items()
        ]
        hashes = {  # an id may come again in a further folder
            f"{k}/{r.id}" if k else r.id: content_hash(r.image)
            for k, records in enumerate(groups.values())
            for r in records
            if r.image
        }
        return Job(
            Wrapped(denoiser=locate(self.model, None).build()),  # type: ignore[attr-defined]
            on_component("denoiser", self.loss.build()),
            Mixture(parts),
            data_hashes=hashes,
        )


def ddpm_small() -> Run:
    """Pre-train the small denoiser that ships as `ddpm-small` on unlabelled images.

    Source: the noise-prediction loss of arXiv 2006.11239, with more of the small timesteps (t = 1000 u^2), since
    segmentation reads those. 13.0 M parameters, 2 x 2 pixels to a cell, no attention.
    Command: medtextdiff train diffusion.ddpm_small --set 'roots={"DIR": 1.0, ...}' -o RUN
    Shipped weights: see pretrained/ddpm-small/MODEL_CARD.md for data, steps and hours.
    """
    return Run(
        loss=pretrain.Config(objective=objective.Config(timestep_power=2.0)),
        training=engine.Config(
            max_steps=4000,
            batch_size=8,
            learning_rate=4e-4,
            betas=(0.9, 0.99),
            warmup_steps=200,
            schedule="constant",
            precision="bf16",
            ema_decay=0.999,
            checkpoint_every=250,
            log_every=25,
        ),
    )


def ddpm_histology() -> Run:
    """Go on pre-training `ddpm-small` on unlabelled histology alone, shown at the sizes a segmenter reads.

    Command: medtextdiff train diffusion.ddpm_histology --set 'roots={"MONUSEG": 0.7, "DSB2018": 0.3}' -o RUN
    """
    run = ddpm_small()
    return run.replace(
        model=denoiser.Config(path="builtin:ddpm-small/denoiser", trainable=True),
        augmentation=run.augmentation.replace(scale=(0.6, 1.6)),
        training=run.training.replace(max_steps=2400, learning_rate=3e-4, warmup_steps=50, schedule="cosine"),
    )


def _images(root: str, split: str) -> list[Record]:
    """The images of a folder, whatever is wrong with its masks: they are not read."""
    settings: Any = detect(root)
    if "mask_folder" in type(settings).model_fields:
        settings = settings.replace(mask_folder=None)
    return unlabelled(settings.build().records(split or None))
