"""The published weights as one of our runs: its logits are those of the published maths, done the published way."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from medtextdiff.diffusion import adm
from medtextdiff.segmentation import published
from medtextdiff.segmentation.heads import published as published_head
from medtextdiff.text.encoders import tiny
from medtextdiff.types import TextFeatures
from tests.jobs.conftest import call, refused
from tests.reference.fill import fill, fill_module

# ADM's shape where the head reads it; the deepest levels are narrower, to save time.
FLAGS = {
    "image_size": 256,
    "num_channels": 256,
    "num_head_channels": 64,
    "channel_mult": "1,1,2,2,1,1",
    "attention_resolutions": "32",
}
NOTE = "The nuclei density in the upper right is high."
TEXT_WIDTH = 768


def sequential_levels(unet: nn.Module, image: Tensor) -> list[Tensor]:
    """Three whole passes, one after another, with one fixed noise; concatenated block by block."""
    noise = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(40))
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()
    kept: list[list[Tensor]] = [[] for _ in published.TAPS["monuseg"]]
    outputs: dict[int, Tensor] = {}

    def keep(number: int) -> object:
        return lambda module, args, output: outputs.__setitem__(number, output)

    for level, block in enumerate(unet.up_blocks):
        for j in range(3):
            last = block.upsamplers[0] if j == 2 and block.upsamplers else None
            attended = block.attentions[j] if getattr(block, "attentions", None) else block.resnets[j]
            (last or attended).register_forward_hook(keep(3 * level + j))
    for t in (50, 150, 250):
        unet(abar[t].sqrt() * image + (1 - abar[t]).sqrt() * noise, t)
        for k, tap in enumerate(published.TAPS["monuseg"]):
            kept[k].append(outputs[tap])
    return [torch.cat(maps, dim=1) for maps in kept]


@pytest.mark.slow
def test_imported_weights_give_the_published_logits(tmp_path: Path) -> None:
    flags = adm.Flags(**FLAGS)
    (tmp_path / "flags.json").write_text(json.dumps(FLAGS))
    shapes = adm.checkpoint_shapes(flags)
    torch.save(fill(shapes, 0.02), tmp_path / "adm.pt")
    head = fill_module(published_head.Config().build((1536, 1536, 768, 768), (8, 4, 2, 1), TEXT_WIDTH, 2), 0.02).eval()
    torch.save({"model_state_dict": head.state_dict()}, tmp_path / "model_best.pth")
    encoder = tiny.Config(width=TEXT_WIDTH, layers=2, heads=4).build()
    encoder.save_pretrained(str(tmp_path / "text"))
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")

    words = ["import-published", "--adm", tmp_path / "adm.pt", "--head", tmp_path / "model_best.pth"]
    words += ["--text", tmp_path / "text", "--config", "monuseg", "--flags", tmp_path / "flags.json"]
    done = call(*words, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    out = tmp_path / "logits.npy"
    done = call(
        "segment", tmp_path / "image.png", "--note", NOTE, "--model", tmp_path / "run", "--save-logits", out,
        "--precision", "float32", "-o", tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output

    from diffusers import UNet2DModel

    unet = UNet2DModel.from_pretrained(tmp_path / "run" / "denoiser").eval()
    image = torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1  # BGR
    tokens = encoder.tokenizer([NOTE], padding="max_length", truncation=True, max_length=10, return_tensors="pt")
    with torch.no_grad():
        hidden = encoder.model(tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
        text = TextFeatures(hidden, torch.ones(1, 10, dtype=torch.bool), hidden.mean(dim=1))
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        expected = head(sequential_levels(unet, image), text, whole, (256, 256))[0].numpy()
    found = np.load(out)
    assert found.shape == (2, 256, 256)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()

    tiny.Config(width=TEXT_WIDTH, layers=2, heads=4, seed=1).build().save_pretrained(str(tmp_path / "text"))
    words = ["segment", tmp_path / "image.png", "--model", tmp_path / "run", "-o", tmp_path / "other"]
    refused(call(*words), "is not the one that it was trained beside")
