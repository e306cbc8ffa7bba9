"""Every extractor: features of the right shape, the same in any batch, with a name and a hash."""

import pkgutil
from importlib import import_module

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from medtextdiff.config import ConfigError
from medtextdiff.synthesis import extractors
from medtextdiff.synthesis.extraction import Extractor, extract
from medtextdiff.synthesis.extractors import huggingface

FAMILY = sorted(module.name for module in pkgutil.iter_modules(extractors.__path__))
NEEDS_PACKAGES = {"efficientnet_lite0"}


@pytest.fixture(scope="module", params=[name for name in FAMILY if name not in NEEDS_PACKAGES])
def extractor(request, tmp_path_factory):
    part = import_module(f"medtextdiff.synthesis.extractors.{request.param}")
    return part.Config.tiny(tmp_path_factory.mktemp(request.param) / "model").build()


def pictures(num=5, side=40):
    return np.random.default_rng(0).integers(0, 256, (num, side, side, 3), dtype=np.uint8)


def test_it_keeps_the_contract(extractor):
    assert isinstance(extractor, Extractor)
    found = extractor(torch.zeros(2, 3, extractor.size, extractor.size))
    assert found.vectors.ndim == 2
    assert not found.vectors.requires_grad
    assert len(extractor.about["extractor sha256"]) == 64
    assert extractor.about["extractor"]


def test_features_are_the_images_own(extractor):
    """Whatever the batch size and the neighbours."""
    images = pictures()
    whole, single = extract(extractor, images), extract(extractor, images[2:3])
    assert whole.vectors[2] == pytest.approx(single.vectors[0], abs=1e-5)
    few = extract(extractor, images, batch=2)
    assert few.cells == pytest.approx(whole.cells, abs=1e-5)
    assert np.abs(whole.vectors[0] - whole.vectors[1]).max() > 1e-6


def test_cells_know_the_place(extractor):
    """The mirrored image has the same colours elsewhere."""
    images = pictures(1)
    images[:, :, :20] = 0
    plain, mirrored = (extract(extractor, one).cells for one in (images, images[:, :, ::-1].copy()))
    assert np.abs(plain - mirrored).max() > 0.1


def test_a_folder_that_is_none_is_refused(tmp_path):
    from medtextdiff.synthesis.extractors import huggingface, torchscript

    with pytest.raises(ConfigError, match=r"no config\.json"):
        huggingface.Config(path=str(tmp_path)).build()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        huggingface.Config(path=str(tmp_path)).build()
    with pytest.raises(ConfigError, match="does not exist"):
        torchscript.Config(path=str(tmp_path / "no.pt")).build()
    (tmp_path / "bad.pt").write_bytes(b"no")
    with pytest.raises(ConfigError, match="no TorchScript"):
        torchscript.Config(path=str(tmp_path / "bad.pt")).build()


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path):
    """transformers would draw at random what is missing."""
    from safetensors.torch import load_file, save_file

    from medtextdiff.synthesis.extractors import huggingface

    settings = huggingface.Config.tiny(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    name = next(name for name in whole if name.endswith("weight"))
    save_file({key: value for key, value in whole.items() if key != name}, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 1 of the model's tensors"):
        settings.build()
    save_file(whole | {name: torch.full_like(whole[name], torch.nan)}, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="not finite"):
        settings.build()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_classifier_gives_the_features_of_the_network_without_its_head(dtype, tmp_path):
    settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    whole = ViTForImageClassification(ViTConfig(**settings, image_size=32, patch_size=8, num_labels=3)).to(dtype)
    whole.save_pretrained(tmp_path / "classifier")
    whole.vit.save_pretrained(tmp_path / "plain")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    found, plain = (huggingface.Config(path=str(tmp_path / name)).build()(images) for name in ("classifier", "plain"))
    assert found.vectors.dtype == torch.float32
    torch.testing.assert_close(found.vectors, plain.vectors)
    assert found.probs.shape == (2, 3)


def test_every_extractor_can_be_moved_to_a_device(extractor):
    assert isinstance(extractor, torch.nn.Module)
