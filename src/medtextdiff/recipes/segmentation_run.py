"""A segmenter's run: model, data, loss, training, and how it is used afterwards, in one typed config."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import PositiveInt, SerializeAsAny
from torch import nn

from medtextdiff import config
from medtextdiff.config import ConfigError
from medtextdiff.data import augment, notes, transforms
from medtextdiff.data.dataset import Dataset, Mixture, check_scorable, read_labels
from medtextdiff.data.images import content_hash
from medtextdiff.data.records import subset, with_masks
from medtextdiff.data.sources import detect, settled
from medtextdiff.data.tables import join
from medtextdiff.diffusion import denoiser
from medtextdiff.evaluation.segmentation import FOREGROUND, score_image
from medtextdiff.recipes.job import Job
from medtextdiff.recipes.run_folder import locate, locate_model
from medtextdiff.segmentation import consistency as consistency_part
from medtextdiff.segmentation import feature_bank, losses
from medtextdiff.segmentation import use as use_part
from medtextdiff.segmentation.models import unet
from medtextdiff.segmentation.models.fasttextdiff import is_frozen
from medtextdiff.training import engine, weights
from medtextdiff.types import Record


class Data(config.Config):
    """What a segmenter is trained and validated on.

    root: the data set's folder or manifest, its layout found by looking; `source` says more where that is needed: with
        both, `root` is where the source looks.
    subset: ids of the labelled training images; empty means all.
    more: further labelled folders, mixed in evenly. Their layout is found by looking; their notes mean the same left as
        those of `source`.
    size: training images are made size x size; None: their own. Validation images keep their own size, at which `use`
        is what makes them smaller: with a size here, `use` should read images at about the same.
    foreground: "any" merges all classes of the masks to one.
    masks: "as_published" resizes training masks as the published code does, which grows their regions; "area" is right.
    antialias: False makes training images smaller as the published code does; `use.antialias` speaks of all others.
    unlabelled_splits: where consistency finds images; their masks are not read.
    """

    root: str = ""
    source: SerializeAsAny[config.Config] | None = None
    more: tuple[str, ...] = ()
    train_split: str = "train"
    val_split: str | None = "val"
    subset: tuple[str, ...] = ()
    unlabelled_splits: tuple[str, ...] = ("train",)
    size: PositiveInt | None = None
    foreground: Literal["ids", "any"] = "any"
    masks: Literal["area", "as_published"] = "area"
    antialias: bool = True
    augmentation: augment.Config = augment.Config()

    def records(self, split: str) -> list[Record]:
        """The records of a split.

        Raises:
            ConfigError: no root; DataError: no data set there.
        """
        return self._source(self.root).records(split)

    def labelled(self) -> list[list[Record]]:
        """The labelled training records, one list for each folder.

        Raises:
            ConfigError: none has a mask, or one of the `subset` has not; DataError: `subset` names an unknown id.
        """
        first = self.records(self.train_split)
        chosen = subset(first, self.subset) if self.subset else with_masks(first)
        bare = [record.id for record in chosen if record.mask is None]
        if bare:
            raise ConfigError(
                f"data.subset names {join(bare)}, of which there is no mask; name others, or add the masks"
            )
        found = [chosen, *(with_masks(self._source(root).records(self.train_split)) for root in self.more)]
        for root, records in zip((self.root, *self.more), found, strict=True):
            if not records:
                raise ConfigError(f"split '{self.train_split}' of {root} has no image with a mask to train on")
        return found

    def validation(self) -> list[Record]:
        """The records to validate on; none with `val_split` null.

        Raises:
            ConfigError: no such split, or none of its images has a mask.
        """
        if self.val_split is None:
            return []
        records = self._source(self.root).records()
        found = [record for record in records if record.split == self.val_split and record.mask is not None]
        if not found:
            raise ConfigError(
                f"{self.root} has no image with a mask in the split '{self.val_split}' to validate on; fill the column "
                "`split` of its table, or train without: --set data.val_split=null"
            )
        return found

    def _source(self, root: str) -> Any:
        if not root and self.source is None:
            raise ConfigError("no data: name the data set's folder with --set data.root=DIR")
        if self.source is None:
            return detect(root).build()  # type: ignore[attr-defined]
        if root != self.root:
            return detect(root, side=self.source.side).build()  # type: ignore[attr-defined]
        return self.at(root).build() if root else self.source.build()  # type: ignore[attr-defined]

    def at(self, root: str | Path, masks: str | None = None) -> Any:
        """The source that reads the folder or manifest `root` as this run reads its own data; `masks` names another
        folder of masks than the run's.

        Raises:
            DataError: no data set is there, or its layout leaves no choice of `masks`.
        """
        source = detect(root) if self.source is None else self.source.replace(root=str(root))
        return source if masks is None else settled(source, mask_folder=masks)


class Run(config.Config):
    """A segmenter's experiment: everything that decides its weights, and how `segment` uses them.

    bank: where the levels of a frozen denoiser are kept: those of the validation images, and those of the training
    views where these come again (`augment.Config.repeats`). None: nowhere.
    """

    model: SerializeAsAny[config.Config] = unet.Config()
    data: Data = Data()
    loss: losses.Config = losses.Config()
    consistency: consistency_part.Config | None = None
    training: engine.Config = engine.Config()
    use: use_part.Config = use_part.Config()
    bank: feature_bank.Config | None = feature_bank.Config()

    def build_model(self, run_dir: Path | None = None) -> nn.Module:
        """The segmenter with its pre-trained parts loaded; paths within the run are found under `run_dir`.

        Raises:
            ConfigError: `model` is a part of another kind.
        """
        if not hasattr(self.model, "num_classes"):
            raise ConfigError(f"a '{self.model.kind()}' is no segmenter; `model` takes one of segmentation.models")
        return locate_model(self.model, run_dir).build()  # type: ignore[attr-defined]

    def job(self) -> Job:
        """Build it.

        Raises:
            ConfigError, DataError: no data, or data that does not fit the model or cannot be validated on.
        """
        torch.manual_seed(self.training.seed)  # new weights
        labelled = self.data.labelled()
        val = self.data.validation()
        model = self.build_model()
        if self.model.num_classes > 2 and self.data.foreground == "any":  # type: ignore[attr-defined]
            raise ConfigError(
                f"model.num_classes is {self.model.num_classes}, but data.foreground=any makes one class of all; "  # type: ignore[attr-defined]
                "--set data.foreground=ids"
            )
        if self.model.num_classes > 2 and self.data.masks == "as_published":  # type: ignore[attr-defined]
            raise ConfigError("data.masks=as_published makes one class of all, as the published code does; use area")
        data: Any = self._mixed(labelled)
        loss: Any = self.loss.build()
        after_step: Callable[[nn.Module, int], None] | None = None
        also = {f"mask and notes of {name}": _told(record) for name, record in _named(labelled)}
        also |= {f"validation: {record.id}": _whole(record) for record in val}
        if self.consistency is not None:
            pool = [record for split in self.data.unlabelled_splits for record in self.data.records(split)]
            pool = [replace(record, mask=None) for record in pool]
            unlabelled = self._dataset(pool)
            data = consistency_part.Paired(data, unlabelled, repeats=self.data.augmentation.repeats)
            loss = self.consistency.replace(labelled=self.loss).build(model)
            after_step = loss.update_teacher
            also |= {f"without labels: {record.id}": _whole(record) for record in pool}
        hashes = {name: content_hash(record.image) for name, record in _named(labelled) if record.image}
        validate = self._validator(val) if val else None
        frozen = weights.digests_of_frozen(model)
        return Job(
            model,
            loss,
            data,
            validate,
            after_step,
            hashes,
            self._keeper(model, loss),
            # Random weights that do not train go into the run: nobody could find them again.
            kept=tuple(name for name in frozen if isinstance(getattr(self.model, name, None), denoiser.Scratch)),
            also_read=also,
            scores=("dice",),
            frozen=frozen,
        )

    def _keeper(self, model: Any, loss: Any) -> Callable[[Path], None] | None:
        """What gives the model its feature bank once the run folder is known; None where the denoiser is trained."""
        settings, repeats = self.bank, self.data.augmentation.repeats
        if settings is None or not hasattr(model, "keep_levels") or not is_frozen(model.denoiser):
            return None

        def settle(run_dir: Path) -> None:
            bank = locate(settings, run_dir).build()
            model.keep_levels(bank, training=repeats)
            if repeats and hasattr(loss, "teacher"):  # it reads training views, in eval mode
                loss.teacher.keep_levels(bank)

        return settle

    def _mixed(self, groups: Sequence[Sequence[Record]]) -> Any:
        parts = [self._dataset(group) for group in groups]
        return parts[0] if len(parts) == 1 else Mixture([(part, 1.0) for part in parts])

    def _dataset(self, records: Sequence[Record]) -> Dataset:
        return Dataset(
            records,
            size=self.data.size,
            augmentation=self.data.augmentation,
            num_classes=self.model.num_classes,  # type: ignore[attr-defined]
            foreground=self.data.foreground,
            resize_mask=transforms.published_mask if self.data.masks == "as_published" else transforms.resize_mask,
            antialias=self.data.antialias,
        ).check()

    def _validator(self, records: Sequence[Record]) -> Callable[[nn.Module], dict[str, float]]:
        num_classes: int = self.model.num_classes  # type: ignore[attr-defined]
        dataset = Dataset(records, num_classes=num_classes, foreground=self.data.foreground).check()
        for record in records:  # now, not after the last step and before the weights are saved
            labels = read_labels(record, num_classes, self.data.foreground)
            assert labels is not None
            check_scorable(record, labels)

        def validate(model: nn.Module) -> dict[str, float]:
            """Mean Dice in percent over the validation images, as `segment` predicts them and `evaluate` scores
            them: at their own size, whatever `data.size` is. Of the foreground; of several classes their mean."""
            scores, device = [], next(model.parameters()).device
            for index in range(len(dataset)):
                sample = dataset.sample(index, torch.Generator())
                image = sample.image.to(device)
                probs = self.use.probabilities(model, image, sample.note, notes.flip_note)  # type: ignore[arg-type]
                pred = probs.argmax(dim=0).cpu().numpy().astype(np.int64)
                assert sample.mask is not None
                scored = score_image(pred, sample.mask.numpy().astype(np.int64), probs.shape[0], distances=False)
                classes = [region for name, region in scored.items() if name != FOREGROUND]
                regions = classes if num_classes > 2 else [scored[FOREGROUND]]
                scores.append(float(np.mean([region["dice"] for region in regions])))
            return {"dice": 100 * float(np.mean(scores))}

        return validate


def _named(groups: Sequence[Sequence[Record]]) -> list[tuple[str, Record]]:
    """Records by id; those of further folders, where an id may come again, with the folder's number."""
    return [(f"{k}/{r.id}" if k else r.id, r) for k, records in enumerate(groups) for r in records]


def _told(record: Record) -> str:
    """A hash of a record's mask and notes."""
    told = hashlib.sha256("\0".join(record.notes).encode())
    if record.mask is not None:
        told.update(content_hash(record.mask).encode())
    return told.hexdigest()


def _whole(record: Record) -> str:
    """A hash of a record's image, mask and notes."""
    image = "" if record.image is None else content_hash(record.image)
    return hashlib.sha256((image + _told(record)).encode()).hexdigest()
