"""The published FastTextDiff and TextDiff: their settings as configs, and their checkpoint as our head's weights."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from medtextdiff import config
from medtextdiff.segmentation import features
from medtextdiff.segmentation.heads import published as head
from medtextdiff.segmentation.models import fasttextdiff

Name = Literal["monuseg", "qata", "mosmed"]

MAX_TOKENS = 10  # every note is cut or padded to this, [CLS] and [SEP] included
IMAGE_SIZE = 256
TAPS: dict[str, tuple[int, ...]] = {"monuseg": (6, 8, 12, 16), "qata": (4, 6, 8, 12), "mosmed": (4, 6, 8, 12)}

_NORMS = [f"{name}.{part}" for name in ("norm1", "norm2", "norm3") for part in ("weight", "bias")]
_ATTENTION = ["to_q.weight", "to_k.weight", "to_v.weight"] + [
    f"to_out.{layer}.{part}" for layer in (0, 1) for part in ("weight", "bias")
]
_BATCH_NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
HEAD_KEYS = frozenset(
    [f"decodes.{layer}.{part}" for layer in (0, 3, 6) for part in ("weight", "bias")]
    + [f"decodes.{layer}.{part}" for layer in (1, 4) for part in _BATCH_NORM]
    + [f"cross1.{attention}.{part}" for attention in ("attn1", "attn2") for part in _ATTENTION]
    + [f"cross1.{part}" for part in [*_NORMS, "ff.net.2.weight", "ff.net.2.bias"]]
    + [f"{down}.{part}" for down in ("down1", "down2") for part in ("weight", "bias")]
)


class CheckpointError(ValueError):
    """A file that is not the published head's checkpoint; the message says what is missing or left over."""


def model_config(name: str, denoiser: config.Config, text: config.Config) -> fasttextdiff.Config:
    """The published segmenter for one of its data sets, quirks included.

    `denoiser` is the 256 px ADM; `text` must give every note as `MAX_TOKENS` tokens, padding included
    and marked as real words (`text.encoders.fixed_length`), since the published code attends its padding.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in TAPS:
        raise config.ConfigError(f"no published settings are called '{name}'; {config.nearest(name, TAPS)}")
    return fasttextdiff.Config(
        denoiser=denoiser,
        text=text,
        features=features.Config(taps=TAPS[name], timesteps=(50, 150, 250), noise="shared", channel_order="bgr"),
        head=head.Config(),
        num_classes=2,
    )


def convert_head(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The published checkpoint ({"model_state_dict": ...}, or that dict itself) as a state dict of `heads.published`.

    Load it with `strict=True`, which also checks the shapes.

    Raises:
        CheckpointError: names are missing or left over, or a value is no tensor.
    """
    inner = state.get("model_state_dict", state)
    if not isinstance(inner, Mapping):
        raise CheckpointError(f"'model_state_dict' holds a {type(inner).__name__}; it must hold names and tensors")
    weights = {re.sub(r"^module\.", "", str(key)): value for key, value in inner.items()}  # saved from DataParallel
    missing, unexpected = sorted(HEAD_KEYS - weights.keys()), sorted(weights.keys() - HEAD_KEYS)
    if missing or unexpected:
        raise CheckpointError(
            f"not the published head: {len(missing)} names missing {_some(missing)}, {len(unexpected)} unexpected "
            f"{_some(unexpected)}; give model_best.pth of FastTextDiff or TextDiff"
        )
    wrong = [key for key, value in weights.items() if not isinstance(value, Tensor)]
    if wrong:
        raise CheckpointError(f"these names hold no tensors: {_some(wrong)}; the file is damaged or not a checkpoint")
    return weights


def head_channels(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Channels of the first and of the second level that converted weights expect: (1536, 1536) for MoNuSeg."""
    return state["down1.weight"].shape[1], state["down2.weight"].shape[1]


def load_head(module: nn.Module, weights: Mapping[str, Tensor], name: Name) -> None:
    """Fill a published head with `convert_head`'s weights.

    Raises:
        CheckpointError: shapes that do not fit, e.g. a QaTa checkpoint for the MoNuSeg settings.
    """
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    wrong = [key for key, value in weights.items() if tuple(value.shape) != expected[key]]
    if wrong:
        raise CheckpointError(
            f"the head does not fit the settings '{name}': {_some(sorted(wrong))} have other shapes; "
            f"was it trained on another data set ({', '.join(TAPS)})?"
        )
    module.load_state_dict(dict(weights), strict=True)


def _some(names: list[str]) -> str:
    return f"({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})" if names else "(none)"
