"""Recipes that make images from prompts. Each needs `--set data.root=DIR`; figures are in docs/synthesis.md."""

from medtextdiff.data import augment
from medtextdiff.diffusion import autoencoder, latent_denoiser, objective, reconstruction, sampling
from medtextdiff.recipes import autoencoder_run, msdm_run
from medtextdiff.recipes.synthesis_data import Data
from medtextdiff.synthesis import conditioning
from medtextdiff.synthesis.models import msdm
from medtextdiff.text.encoders import clip, tiny
from medtextdiff.training import engine

_AT_THE_END = 100_000  # validate only then: nothing is chosen on the images that are reported


def autoencoder_gi() -> autoencoder_run.Run:
    """Train the small autoencoder for endoscopy at 128 px: 8 latent channels on a 16 x 16 grid.

    Source: ours, as small as one core can train: the published one (Medfusion's, arXiv 2212.07501) has 13.4 M
    parameters and its latents are not normalised. 5.8 M parameters; 6.2 GFLOP an image forwards, about 150 GFLOP a
    step of 8, about 2 s on one CPU core (AVX512-BF16). At its end the latents are measured and
    `autoencoder/reconstruction.json` and `reconstructions.png` are written; `synthesis.msdm_small` asks for the first.
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
            validate_every=_AT_THE_END,
            log_every=25,
            monitor="psnr",
        )
    )


def msdm_small() -> msdm_run.Run:
    """Train a small MSDM on endoscopy prompts at 128 px: 11.6 M parameters on 16 x 16 latents, straight paths.

    Source: ours. A denoiser of 2.4 GFLOP a pass that attends to itself and to the prompt at both levels; flow target at
    logit-normal times; the average of the weights; mirror images with rewritten prompts, and a learned word that says
    so, since overlays and boxes are never mirrored in truth. Needs the autoencoder of `synthesis.autoencoder_gi`. About
    2 s a step of 32 on one CPU core (AVX512-BF16).
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
            learning_rate=6e-4,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            warmup_steps=200,
            schedule="cosine",
            min_lr_ratio=0.05,
            precision="bf16",
            ema_decay=0.9995,
            checkpoint_every=250,
            validate_every=_AT_THE_END,
            log_every=25,
            monitor="heldout_loss",
            monitor_mode="min",
        ),
    )


def autoencoder_as_published() -> autoencoder_run.Run:
    """Train MSDM's autoencoder as far as diffusers has it: four widths, 8 latent channels, an eighth as wide, 256 px.

    Source: the authors' code (train_msdm_vae.py). Departs in a block in the middle and in residual blocks with the
    normalisation first (diffusers'), in that LPIPS is left out (its weights need a download) and that there is one
    output, not two. The KL weight 1e-6 is for sums over pixels and latents; ours are means, so it is multiplied by
    latents / pixel values, 8 * 32 * 32 / (3 * 256 * 256).
    Command: medtextdiff train synthesis.autoencoder_as_published --set data.root=DIR -o RUN
    """
    return autoencoder_run.Run(
        model=autoencoder.Scratch(patch=1, block_out_channels=(64, 128, 256, 512), norm_num_groups=8),
        data=Data(size=256),
        zoom=1.0,
        augmentation=augment.Config(),
        loss=reconstruction.Config(l1=0.0, mse=1.0, ssim=1.0, spectrum=0.0, kl=4.2e-8),
        training=engine.Config(
            max_steps=20_000,
            batch_size=64,
            learning_rate=1e-4,
            weight_decay=0.0,
            schedule="constant",
            clip_norm=None,
            checkpoint_every=500,
            validate_every=_AT_THE_END,
            monitor="psnr",
        ),
    )


def msdm_as_published() -> msdm_run.Run:
    """Train MSDM in its published numbers: CLIP-L/14 prompts, 256 px, eps with L1, DDIM with noise, w = 3.5.

    Source: the authors' code (arXiv 2505.05573 gives none of these numbers). Departs where diffusers' U-Net does: it
    attends to itself, too, normalises first and has a gated feed-forward; parameters in docs/synthesis.md. CLIP is read
    from the hub or a folder, --set model.text.path=DIR. The prompt is left out for a fifth of the images.
    Command: medtextdiff train synthesis.msdm_as_published --set data.root=DIR --set model.autoencoder.path=RUN -o RUN
    """
    return msdm_run.Run(
        model=msdm.Config(
            text=clip.Config(),
            conditioning=conditioning.Config(width=1024, heads=16, normalise=False, mirrors=False),
            denoiser=latent_denoiser.Scratch(
                block_out_channels=(256, 512, 1024),
                layers_per_block=2,
                num_heads=8,
                norm_num_groups=32,
                time_embedding_dim=None,
                dropout=0.1,
            ),
            objective=objective.Config(
                target="eps", loss="l1", schedule="scaled_linear", beta_start=0.002, beta_end=0.02
            ),
            prompt_dropout=0.2,
        ),
        data=Data(size=256),
        use=sampling.Config(sampler="ddim", eta=1.0, steps=150, guidance=4.5, spacing="linspace"),
        training=engine.Config(
            max_steps=20_000,
            batch_size=64,
            learning_rate=1e-4,
            weight_decay=0.0,
            schedule="constant",
            checkpoint_every=500,
            validate_every=_AT_THE_END,
            monitor="heldout_loss",
            monitor_mode="min",
        ),
    )


def autoencoder_tiny() -> autoencoder_run.Run:
    """Train a toy autoencoder in seconds, to try the commands; its images say nothing.

    Command: medtextdiff train synthesis.autoencoder_tiny --set data.root=DIR -o RUN
    """
    run = autoencoder_gi()
    return run.replace(
        model=autoencoder.Scratch.tiny(),
        data=Data(size=32),
        training=run.training.replace(max_steps=20, batch_size=4, warmup_steps=2, precision="float32", log_every=5),
    )


def msdm_tiny() -> msdm_run.Run:
    """Train a toy MSDM in seconds, to try the commands; its images say nothing.

    Command: medtextdiff train synthesis.msdm_tiny --set data.root=DIR --set model.autoencoder.path=RUN -o RUN
    """
    run = msdm_small()
    return run.replace(
        model=run.model.replace(
            text=tiny.Config(),
            conditioning=conditioning.Config(width=16),
            denoiser=latent_denoiser.Scratch.tiny(),
        ),
        data=Data(size=32),
        use=run.use.replace(steps=4),
        training=run.training.replace(max_steps=20, batch_size=4, warmup_steps=2, precision="float32", log_every=5),
    )
