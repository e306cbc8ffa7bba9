"""Made-up endoscopy with MedVQA-GI's prompts: procedure by hue, polyp as a bright disc, a black box in a corner."""

from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

SIZE = 32


def picture(rng, colonoscopy, polyp, box, height=SIZE):
    base = np.array([150, 70, 60]) if colonoscopy else np.array([90, 60, 120])
    light = 20 * np.sin(np.linspace(0, 3, height) + rng.uniform(0, 6))
    pixels = base + rng.normal(0, 12, (height, SIZE, 3)) + light[:, None, None]
    y, x = np.mgrid[:height, :SIZE]
    if polyp:
        row, column = rng.uniform(SIZE * 0.3, SIZE * 0.7, 2)
        pixels[(y - row) ** 2 + (x - column) ** 2 < (SIZE * 0.18) ** 2] += 60
    if box:
        pixels[-SIZE // 4 :, : SIZE // 4] = 0
    return np.clip(pixels, 0, 255).astype(np.uint8)


def prompts(colonoscopy, polyp, box):
    return [
        f"Generate an image from a {'colonoscopy' if colonoscopy else 'gastroscopy'} procedure.",
        f"Generate an image with {'1 polyp' if polyp else 'no polyps'}.",
        f"Generate an image {'' if box else 'not '}containing a green/black box artefact.",
    ]


def write_real(root: Path, train=60, val=24) -> Path:
    (root / "images").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["image,split,note"]
    for k in range(train + val):
        shown = rng.random(3) < 0.5
        Image.fromarray(picture(rng, *shown, height=SIZE + 6)).save(root / "images" / f"r{k:03d}.png")
        rows += [f"r{k:03d}.png,{'train' if k < train else 'val'},{prompt}" for prompt in prompts(*shown)]
    (root / "notes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def write_generated(folder: Path, num=24, obeys=True, seed=1) -> Path:
    """Images marked as synthetic in their text chunks, as `generate` marks them."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(seed), ["file,prompt,seed,model,model_sha256,sampler,steps,guidance"]
    mark = PngImagePlugin.PngInfo()
    mark.add_text("Synthetic", "yes; made by a model, no image of a patient")
    for k in range(num):
        shown = rng.random(3) < 0.5
        said = shown if obeys else rng.random(3) < 0.5
        Image.fromarray(picture(rng, *shown)).save(folder / f"g{k:03d}.png", pnginfo=mark)
        rows.append(f"g{k:03d}.png,{prompts(*said)[k % 3]},{k},toy,00,ddim,25,4")
    (folder / "prompts.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder
