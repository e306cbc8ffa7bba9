"""Recipes that make images from prompts. Each needs `--set data.root=DIR`; figures are in docs/synthesis.md."""

from medtextdiff.diffusion import autoencoder, latent_denoiser, objective, reconstruction, sampling
from medtextdiff.recipes import autoencoder_run, msdm_run
from medtextdiff.synthesis import conditioning
from medtextdiff.synthesis.models import msdm
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


def msdm_small() -> msdm_run.Run:
    """Train a small MSDM on endoscopy prompts at 128 px: 11 M parameters on 16 x 16 latents, straight paths.

    Source: ours. A denoiser of 2.4 GFLOP a pass that attends to itself and to the prompt at both levels; flow target at
    logit-normal times; the average of the weights; mirror images with rewritten prompts, and a learned word that says
    so, since overlays and boxes are never mirrored in truth. Needs the autoencoder of `synthesis.autoencoder_gi`.
    Command: medtextdiff train synthesis.msdm_small --set data.root=DIR --set model.autoencoder.path=RUN/autoencoder
        -o RUN
    """
    return msdm_run.Run(
        model=msdm.Config(
            objective=objective.Config(target="flow", schedule="straight", timesteps="logit_normal"),
            prompt_dropout=0.1,
        ),
        views=4,
        use=sampling.Config(sampler="dpm++", steps=25, guidance=2.0),
        training=engine.Config(
            max_steps=8000,
            batch_size=32,
            learning_rate=8e-4,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            warmup_steps=200,
            schedule="cosine",
            min_lr_ratio=0.05,
            precision="bf16",
            ema_decay=0.9995,
            checkpoint_every=250,
            validate_every=100_000,  # only at the end: nothing is chosen on held-out images
            log_every=25,
            monitor="heldout_loss",
            monitor_mode="min",
        ),
    )
