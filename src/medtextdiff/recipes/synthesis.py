"""Recipes that make images from prompts. Each needs `--set data.root=DIR`; figures are in docs/synthesis.md."""

from medtextdiff.recipes import autoencoder_run
from medtextdiff.training import engine


def autoencoder_gi() -> autoencoder_run.Run:
    """Train the small autoencoder for endoscopy at 128 px: 8 latent channels on a 16 x 16 grid.

    Source: ours, as small as one core can train: the published one (Medfusion's, arXiv 2212.07501) has 13.4 M
    parameters and its latents are not normalised. 5.8 M parameters; 6.2 GFLOP an image forwards, about 150 GFLOP a
    step of 8. At its end the latents are measured and `autoencoder/reconstruction.json` and `reconstructions.png` are
    written, which `synthesis.msdm_small` asks for.
    Command: medtextdiff train synthesis.autoencoder_gi --set data.root=DIR -o RUN
    """
    return autoencoder_run.Run(
        training=engine.Config(
            max_steps=3000,
            batch_size=8,
            learning_rate=5e-4,
            betas=(0.9, 0.99),
            warmup_steps=100,
            schedule="cosine",
            min_lr_ratio=0.02,
            precision="bf16",
            ema_decay=0.995,
            checkpoint_every=250,
            validate_every=100_000,  # only at the end: nothing is chosen on the images that are reported
            log_every=25,
            monitor="psnr",
        )
    )
