import pytest
import torch

from medtextdiff.config import ConfigError
from medtextdiff.segmentation.models import unet


def test_has_the_documented_count():
    assert sum(weight.numel() for weight in unet.Config().build().parameters()) == 4_904_321
    assert "4,904,321" in unet.Config.__doc__


@torch.no_grad()
def test_notes_are_not_read(images):
    model = unet.Config(channels=(8, 16)).build().eval()
    torch.testing.assert_close(model(images, ["a", "b", "c"]), model(images, ["", "", ""]), rtol=0, atol=0)


def test_one_resolution_is_refused():
    with pytest.raises(ConfigError, match="at least two resolutions"):
        unet.Config(channels=(8,)).build()
