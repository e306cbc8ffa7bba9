import pytest
import torch

from medtextdiff.config import ConfigError
from medtextdiff.diffusion import denoiser
from medtextdiff.segmentation import published
from medtextdiff.segmentation.heads import published as head
from tests.segmentation.conftest import Words


@pytest.fixture(scope="module")
def state():
    module = head.Config(width=24, hidden=(8, 4)).build((48, 36, 36, 24), (16, 8, 4, 2), 12, 2)
    return module.state_dict()


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_published_checkpoint_loads_strictly(state, prefix, wrapped):
    saved = {prefix + key: value for key, value in state.items()}
    converted = published.convert_head({"model_state_dict": saved} if wrapped else saved)
    assert published.head_channels(converted) == (48, 36)
    fresh = head.Config(width=24, hidden=(8, 4)).build((48, 36, 36, 24), (16, 8, 4, 2), 12, 2)
    fresh.load_state_dict(converted, strict=True)
    torch.testing.assert_close(dict(fresh.state_dict()), dict(state))


def test_what_does_not_match_is_listed(state):
    broken = {key: value for key, value in state.items() if key != "down2.bias"} | {"extra.weight": torch.zeros(1)}
    with pytest.raises(
        published.CheckpointError, match=r"1 names missing \(down2.bias\), 1 unexpected \(extra.weight\)"
    ):
        published.convert_head(broken)
    with pytest.raises(published.CheckpointError, match="holds a list"):
        published.convert_head({"model_state_dict": []})
    with pytest.raises(published.CheckpointError, match="no tensors"):
        published.convert_head(dict(state) | {"down1.bias": 3})


@pytest.mark.parametrize(
    ("name", "taps"), [("monuseg", (6, 8, 12, 16)), ("qata", (4, 6, 8, 12)), ("mosmed", (4, 6, 8, 12))]
)
def test_published_settings(name, taps):
    settings = published.model_config(name, denoiser.Scratch(), Words())
    assert settings.features.taps == taps
    assert settings.features.timesteps == (50, 150, 250)
    assert settings.features.channel_order == "bgr"


def test_unknown_name_offers_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'monuseg'"):
        published.model_config("monusegg", denoiser.Scratch(), Words())
