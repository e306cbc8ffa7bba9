"""Recipes that make images from prompts. Each needs `--set data.root=DIR`; figures are in docs/synthesis.md."""

from typing import Any

from medtextdiff.data import augment
from medtextdiff.diffusion import autoencoder, latent_denoiser, objective, reconstruction, sampling
from medtextdiff.recipes import autoencoder_run, lora_run, msdm_run
from medtextdiff.recipes.synthesis_data import Data
from medtextdiff.synthesis import conditioning, lora, tuned
from medtextdiff.synthesis.models import flux, kandinsky3, kandinsky22, msdm
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
        prompts_at_once=3,
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
            conditioning=conditioning.Config(width=1024, heads=16, normalise="none", mirrors=False),
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


def flux_lora() -> lora_run.Run:
    """Train a LoRA of FLUX.1-dev: rank 4 on attention and feed-forward of both streams, 512 px.

    Source: the defaults of diffusers' LoRA training for FLUX, since the published project (arXiv 2505.05573) gives no
    number for it and no trainer: lr 1e-4, weight decay 1e-4, batch 4, guidance 3.5, target noise - latents. 11.2 M
    parameters. Words and latents are made once, so that neither T5 nor the autoencoder is in memory while it trains.
    The base is a gated model of the hub with a licence of its own; or a folder: --set model.base=DIR.
    Needs about 30 GB of memory in bf16 (23.8 GB are weights); it says how much before it starts.
    Command: medtextdiff train synthesis.flux_lora --set data.root=DIR --set model.base=DIR -o RUN
    """
    return lora_run.Run(
        model=flux.Config(),
        data=Data(size=512),
        training=_lora_training(max_steps=2000, batch_size=4, weight_decay=1e-4),
        use=tuned.Use(sampler="euler", steps=28, guidance=3.5),
    )


def kandinsky22_prior_lora() -> lora_run.Run:
    """Train a LoRA of Kandinsky 2.2's prior, from prompts to CLIP's embeddings of images: rank 8, alpha 8.

    Source: the published code's numbers (to_q, to_k, to_v, to_out.0; lr 1e-4; 40 passes over MEDVQA-GI at batch 256;
    2,621,440 parameters). Ours otherwise: the noise is squaredcos_cap_v2 and the prediction the embedding itself, as in
    use (published: the decoder's linear noise, defect 7); min-SNR, where it is on (--set model.min_snr=5), has the
    weights of a predicted sample, min(snr, 5) (published: those of predicted noise, defect 8); the gradient is clipped
    (published: the list of layers was used up before, defect 6). Images come from the base's decoder.
    Command: medtextdiff train synthesis.kandinsky22_prior_lora --set data.root=DIR -o RUN
    """
    return lora_run.Run(
        model=kandinsky22.Config(trains="prior", prior=lora.Config(), decoder=None),
        data=Data(size=256),
        training=_lora_training(max_steps=2850, batch_size=256, accumulation=8),
        use=tuned.Use(steps=150, guidance=4.0, prior_steps=25),
    )


def kandinsky22_decoder_lora() -> lora_run.Run:
    """Train a LoRA of Kandinsky 2.2's decoder, from CLIP's embeddings of images to the images: rank 8, alpha 8, 256 px.

    Source: as synthesis.kandinsky22_prior_lora. Ours otherwise: add_k_proj and add_v_proj have adapters, too, the only
    layers in which attention reads the embedding (published: 88 of 132 layers and 1,646,592 parameters,
    here 2,328,576; defect 9); the clip norm works (defect
    6); images are squashed to squares, never cropped. The prior is the base's own; for one trained before, in Python:
    `run.replace(model=run.model.replace(prior=lora.Config(path="RUN/prior")))`.
    Command: medtextdiff train synthesis.kandinsky22_decoder_lora --set data.root=DIR -o RUN
    """
    return lora_run.Run(
        model=kandinsky22.Config(),
        data=Data(size=256),
        training=_lora_training(max_steps=2850, batch_size=256, accumulation=32),
        use=tuned.Use(steps=150, guidance=4.0, prior_steps=25),
    )


def kandinsky3_lora() -> lora_run.Run:
    """Train a LoRA of Kandinsky 3: rank 8, alpha 8, 256 px.

    Source: the published code's numbers (to_q, to_k, to_v, to_out.0 of 100 layers, 3,342,336 parameters; lr 1e-4; 150
    steps in use, guidance 3 in the pipeline's own count, 4 in ours). Ours otherwise: T5 gets its mask in training as in
    use, and 128 tokens in both (published: no mask in training; 64 in use, which the pipeline did not heed: defect 10);
    the clip norm works (defect 6); guidance works below 2, too.
    Command: medtextdiff train synthesis.kandinsky3_lora --set data.root=DIR -o RUN
    """
    return lora_run.Run(
        model=kandinsky3.Config(),
        data=Data(size=256),
        training=_lora_training(max_steps=2850, batch_size=256, accumulation=64),
        use=tuned.Use(steps=150, guidance=4.0),
    )


def _lora_training(**changes: Any) -> engine.Config:
    """What the published adapters have in common: AdamW at 1e-4, constant, no decay, gradients clipped at 1."""
    return engine.Config(
        learning_rate=1e-4,
        weight_decay=0.0,
        schedule="constant",
        clip_norm=1.0,
        precision="float32",  # the base computes in model.dtype
        checkpoint_every=250,
        validate_every=_AT_THE_END,
        log_every=25,
        monitor="heldout_loss",
        monitor_mode="min",
        channels_last=False,
    ).replace(**changes)
