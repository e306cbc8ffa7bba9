"""A tiny job: a small convolutional net with dropout learns made-up masks. Also run as a script by the kill tests."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medtextdiff.training import engine


@dataclass(frozen=True)
class Batch:
    ids: list[str]
    images: Tensor
    masks: Tensor


class Squares:
    """Noisy images; the mask is where the clean image is bright."""

    def __init__(self, n: int = 10) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def sample(self, index: int, rng: torch.Generator) -> tuple[str, Tensor, Tensor]:
        clean = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(index))
        noisy = clean + 0.1 * torch.randn(3, 8, 8, generator=rng)
        return str(index), noisy, (clean.mean(0) > 0.5).long()

    def collate(self, samples: list[tuple[str, Tensor, Tensor]]) -> Batch:
        ids, images, masks = zip(*samples, strict=True)
        return Batch(list(ids), torch.stack(images), torch.stack(masks))


class Net(nn.Module):
    def __init__(self, dropout: float = 0.2, norm: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self._build(dropout, norm)

    def _build(self, dropout: float, norm: bool) -> None:
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Dropout(0.5)).requires_grad_(False)
        self.head = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1),
            nn.BatchNorm2d(4) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(4, 2, 1),
        )
        self.bias = nn.Parameter(torch.zeros(2, 1, 1))

    def logits(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images)) + self.bias


def loss(model: Net, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
    images = batch.images + 0.01 * torch.randn(batch.images.shape, generator=rng).to(batch.images.device)
    value = F.cross_entropy(model.logits(images).float(), batch.masks)
    return {"loss": value, "half": value / 2}


def plain_loss(model: Net, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
    return {"loss": F.cross_entropy(model.logits(batch.images).float(), batch.masks)}


def validate(model: Net) -> dict[str, float]:
    data = Squares()
    batch = data.collate([data.sample(index, torch.Generator().manual_seed(1)) for index in range(4)])
    right = model.logits(batch.images).argmax(1) == batch.masks
    torch.rand(3)  # a validation may draw what it likes
    return {"dice": float(right.float().mean()), "other": 1.0}


CONFIG = engine.Config(
    max_steps=24,
    batch_size=4,
    learning_rate=1e-2,
    ema_decay=0.9,
    checkpoint_every=5,
    validate_every=8,
    log_every=3,
    warmup_steps=4,
)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def main(run_dir: Path, kind: str) -> None:
    """Kinds: quick, slow (prints each step, dawdles), hanging (the same, and stays at step 12), distributed."""
    torch.set_num_threads(1)
    config = CONFIG
    if kind == "distributed":
        model, function, data, check = Net(0.0, norm=False), plain_loss, Squares(), None
        config = config.replace(checkpoint_every=100, max_steps=6)
    else:
        model, function, data, check = Net(), loss, Squares(), validate

    def after_step(_: nn.Module, step: int) -> None:
        if kind in ("slow", "hanging"):
            print(step, flush=True)
            time.sleep(300 if kind == "hanging" and step == 12 else 0.1)

    try:
        result = engine.fit(model, function, data, config, run_dir, validate=check, after_step=after_step, device="cpu")
    except engine.Interrupted as stopped:
        print(f"interrupted {stopped.step}: {stopped}", flush=True)
        sys.exit(75)
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    torch.save(weights(model), run_dir / f"final_{rank}.pt")
    print(f"done {result.last_step}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
