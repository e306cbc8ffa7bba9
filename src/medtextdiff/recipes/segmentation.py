"""Recipes that train a segmenter. Each needs `--set data.root=DIR`; figures are in docs/results.md."""

from typing import Any

from medtextdiff.data import augment
from medtextdiff.data.sources import targets
from medtextdiff.diffusion import denoiser, latent_backbone, objective
from medtextdiff.recipes.segmentation_run import Data, Run
from medtextdiff.recipes.subsets import CHEST_TARGETS, KVASIR, MONUSEG
from medtextdiff.segmentation import consistency, features, losses, published, use
from medtextdiff.segmentation.fusion import cross_attention
from medtextdiff.segmentation.heads import pyramid
from medtextdiff.segmentation.models import fasttextdiff, unet
from medtextdiff.text.encoders import fixed_length, huggingface, tiny
from medtextdiff.training import engine

_NATIVE = augment.Config(
    crop=192,
    scale=(0.75, 1.33),
    flips=True,
    rot90=True,
    brightness=0.2,
    contrast=0.25,
    saturation=0.3,
    hue=0.04,
    stain=0.25,
    note_dropout=0.3,
)
_BUDGET = engine.Config(
    max_steps=600,
    batch_size=4,
    learning_rate=5e-4,
    warmup_steps=30,
    precision="bf16",
    ema_decay=0.99,
    checkpoint_every=100,
    validate_every=100_000,  # only at the end: nothing is chosen on the images that are reported
    log_every=20,
)
_SHIFT = 0.75  # of `contrast_shift` with few labels; docs/results.md says how it was chosen


def fasttextdiff_monuseg() -> Run:
    """FastTextDiff, ours, on MoNuSeg's 24 labelled images, at their own size.

    Source: arXiv 2512.00084, with the departures of docs/method.md: a small denoiser pre-trained by
    `diffusion.ddpm_small` and fine-tuned, a feature-pyramid head, masked and optional notes.
    Command: medtextdiff train segmentation.fasttextdiff_monuseg --set data.root=DIR -o RUN
    Hardware: 2 CPU cores, some 75 minutes on one of them; --set training.max_steps=600 for a first look.
    """
    run = _gated(_brief())
    wide = run.data.augmentation.replace(scale=(0.6, 1.8))
    return run.replace(data=run.data.replace(augmentation=wide), training=run.training.replace(max_steps=4800))


def unet_monuseg() -> Run:
    """The U-Net beside it: same data, loss, number of steps and scoring; its own learning rate.

    Command: medtextdiff train segmentation.unet_monuseg --set data.root=DIR -o RUN
    """
    return _unet(fasttextdiff_monuseg())


def fasttextdiff_monuseg_256() -> Run:
    """The same on images made 256 x 256, as the papers score; the model reads each at 512 x 512, the whole of it.

    Command: medtextdiff train segmentation.fasttextdiff_monuseg_256 --set data.root=DIR -o RUN
             medtextdiff evaluate RUN --data DIR --at 256 -o REPORT
    Hardware: as `fasttextdiff_monuseg`.
    """
    return _at_256(fasttextdiff_monuseg())


def unet_monuseg_256() -> Run:
    """The U-Net beside it: same data, loss, number of steps and scoring; its own learning rate.

    Command: medtextdiff train segmentation.unet_monuseg_256 --set data.root=DIR -o RUN
    """
    return _at_256(unet_monuseg())


def nuclei_small() -> Run:
    """The model that ships as `nuclei-small`: nuclei in H&E histology, from MoNuSeg's and DSB2018's training images.

    Command: medtextdiff train diffusion.ddpm_histology --set training.max_steps=2800
                 --set 'roots={"MONUSEG": 0.7, "DSB2018": 0.3}' -o HISTOLOGY
             medtextdiff train segmentation.nuclei_small --set data.root=MONUSEG --set data.more=DSB2018
                 --set model.denoiser.path=HISTOLOGY/denoiser -o RUN
             medtextdiff pack RUN -o src/medtextdiff/pretrained/nuclei-small
    Figures, time and licences: its MODEL_CARD.md.
    """
    run = fasttextdiff_monuseg()
    return run.replace(training=run.training.replace(max_steps=2400))


def unet_nuclei() -> Run:
    """The U-Net beside `nuclei_small`: same images, views, loss and number of steps; its own learning rate.

    Command: medtextdiff train segmentation.unet_nuclei --set data.root=MONUSEG --set data.more=DSB2018 -o RUN
    """
    return _unet(nuclei_small())


def fasttextdiff_monuseg_5() -> Run:
    """Five labelled images (subset 0) and the other training images without labels.

    The note comes in through a gate that starts shut; a branch sees single pixels; what a teacher says of the images
    without labels is fitted to each crop's colours before the student learns it (docs/results.md).
    Other subsets: --set data.subset=ID,ID,... with the ids of recipes/subsets.py. A denoiser that saw more histology:
    --set model.denoiser.path=RUN_OF_diffusion.ddpm_histology/denoiser.
    Command: medtextdiff train segmentation.fasttextdiff_monuseg_5 --set data.root=DIR -o RUN
    """
    return _few(_detailed(_seldom_noted(_gated(_brief()))), 5)


def fasttextdiff_monuseg_1() -> Run:
    """One labelled image (subset 0) and the other training images without labels.

    What a teacher says of those is fitted to each crop's colours before the student learns it (docs/results.md).
    Command: medtextdiff train segmentation.fasttextdiff_monuseg_1 --set data.root=DIR -o RUN
    """
    return _few(_seldom_noted(_gated(_brief())), 1)


def unet_monuseg_5() -> Run:
    """The U-Net with five labelled images (subset 0), the same budget.

    Command: medtextdiff train segmentation.unet_monuseg_5 --set data.root=DIR -o RUN
    """
    return _few(_unet(_brief()), 5, consistent=False)


def unet_monuseg_1() -> Run:
    """The U-Net with one labelled image (subset 0), the same budget.

    Command: medtextdiff train segmentation.unet_monuseg_1 --set data.root=DIR -o RUN
    """
    return _few(_unet(_brief()), 1, consistent=False)


def fasttextdiff_targets() -> Run:
    """One model for five targets of a chest X-ray; the note alone says which: left lung, right lung, lesions.

    Left is the patient's. See docs/text-worth.md.
    Command: medtextdiff train segmentation.fasttextdiff_targets --set data.root=cxr_covid_lesions -o RUN
             medtextdiff sensitivity RUN --data cxr_covid_lesions -o REPORT
    Hardware: 2 CPU cores, 4 views of 192 px a step.
    """
    run = _brief()
    views = augment.Config(
        crop=192, scale=(0.9, 1.17), flips=True, vertical_flips=False, brightness=0.2, contrast=0.25, note_dropout=0.05
    )
    return run.replace(
        data=Data(source=targets.Config(targets=CHEST_TARGETS, side="patient"), size=224, augmentation=views),
        training=run.training.replace(max_steps=1200),
        use=use.Config(mode="resize", size=192),
    )


def fasttextdiff_lungs() -> Run:
    """The two-target test: asking for the left lung must give the left lung, asking for the right the right.

    Aimed at: Dice of each lung at least 90 on val, swapped less than once in 50.
    Command: medtextdiff train segmentation.fasttextdiff_lungs --set data.root=cxr_covid_lesions -o RUN
             medtextdiff sensitivity RUN --data cxr_covid_lesions -o REPORT
    Hardware: 2 CPU cores, 4 views of 192 px a step, 26 minutes on one of them.
    """
    run = fasttextdiff_targets()
    source: Any = run.data.source
    lungs = {folder: CHEST_TARGETS[folder] for folder in ("masks_left_lung", "masks_right_lung")}
    return run.replace(data=run.data.replace(source=source.replace(targets=lungs)))


def fasttextdiff_compared() -> Run:
    """What `medtextdiff compare` trains for every text encoder: a frozen denoiser, its levels in a bank, a small head.

    Command: medtextdiff compare --encoder none --encoder modernbert-small --data DIR -o OUT
    Four views of each image come again and again, so that all encoders stand on the same kept levels.
    """
    run = _brief()
    views = augment.Config(crop=224, scale=(0.9, 1.14), flips=True, vertical_flips=False, note_dropout=0.1, num_views=4)
    return run.replace(
        model=run.model.replace(denoiser=denoiser.Config(path="builtin:ddpm-small/denoiser")),
        data=Data(size=256, augmentation=views),
        training=_BUDGET.replace(max_steps=400, batch_size=4, learning_rate=1e-3),
        use=use.Config(mode="resize", size=256),
    )


def fasttextdiff_kvasir_10() -> Run:
    """Polyps in colonoscopy from ten labelled images (draw 0): the frozen denoiser that ships, and a small head.

    Other draws: --set data.subset=ID,ID,... with the ids of recipes/subsets.py. Synthetic pairs beside them (made by
    `medtextdiff generate` and `medtextdiff pseudo-label`): --set data.more=PAIRS.
    Command: medtextdiff train segmentation.fasttextdiff_kvasir_10 --set data.root=KVASIR_SEG -o RUN
    """
    run = _brief()
    views = augment.Config(
        crop=224,
        scale=(0.8, 1.25),
        flips=True,
        brightness=0.15,
        contrast=0.2,
        saturation=0.2,
        note_dropout=0.3,
    )
    return run.replace(
        model=run.model.replace(denoiser=denoiser.Config(path="builtin:ddpm-small/denoiser")),
        data=Data(subset=KVASIR[0], augmentation=views),
        training=_BUDGET.replace(learning_rate=1e-3),
        use=use.Config(mode="resize", size=256),
    )


def fasttextdiff_kvasir_10_latent() -> Run:
    """The same on the denoiser of the generator that ships: its latents and levels, trained for synthesis.

    Another generator of this shape: --set model.denoiser.path=RUN_OF_synthesis.msdm_small. The one that ships saw twins
    of some of Kvasir-SEG's images, without masks: leave them out of what is scored (docs/results.md).
    Command: medtextdiff train segmentation.fasttextdiff_kvasir_10_latent --set data.root=KVASIR_SEG -o RUN
    """
    run = fasttextdiff_kvasir_10()
    straight = objective.Config(target="flow", schedule="straight")  # as the generator was trained
    reads = features.Config(taps=(0, 3), timesteps=(100,), noise="none", image=True, schedule=straight)
    generator = latent_backbone.Config(path="builtin:msdm-gi-small")
    return run.replace(model=run.model.replace(denoiser=generator, features=reads))


def unet_kvasir_10() -> Run:
    """The U-Net beside them: same images, views, loss and number of steps.

    Command: medtextdiff train segmentation.unet_kvasir_10 --set data.root=KVASIR_SEG -o RUN
    """
    return fasttextdiff_kvasir_10().replace(model=unet.Config())


def fasttextdiff_kvasir_10_synthetic() -> Run:
    """The first of them with synthetic pairs of image and mask: half of each batch is real, half is theirs.

    Command: medtextdiff train segmentation.fasttextdiff_kvasir_10 --set data.root=KVASIR_SEG -o FIRST
             medtextdiff generate --prompts PROMPTS.csv --model msdm-gi-small -o MADE
             medtextdiff pseudo-label MADE --model FIRST --no-notes -o PAIRS
             medtextdiff train segmentation.fasttextdiff_kvasir_10_synthetic --set data.root=KVASIR_SEG
                 --set data.more=PAIRS -o RUN
    """
    return _with_pairs(fasttextdiff_kvasir_10())


def unet_kvasir_10_synthetic() -> Run:
    """The U-Net with synthetic pairs, which it labels itself; see fasttextdiff_kvasir_10_synthetic.

    Command: medtextdiff train segmentation.unet_kvasir_10_synthetic --set data.root=KVASIR_SEG
        --set data.more=PAIRS -o RUN
    """
    return _with_pairs(unet_kvasir_10())


def _with_pairs(run: Run) -> Run:
    return run.replace(data=run.data.replace(more=("set data.more=PAIRS",)))


def fasttextdiff_tiny() -> Run:
    """FastTextDiff at toy size from random weights: shows in seconds that an installation and a data set work.

    Command: medtextdiff train segmentation.fasttextdiff_tiny --set data.root=DIR -o RUN
    """
    return Run(
        model=fasttextdiff.Config(
            denoiser=denoiser.Scratch.tiny(),
            text=tiny.Config(),
            features=features.Config(taps=(1, 3), timesteps=(50,), noise="none"),
            head=pyramid.Config(width=16),
        ),
        data=Data(augmentation=augment.Config(crop=32, flips=True, note_dropout=0.3)),
        training=engine.Config(max_steps=4, batch_size=2, ema_decay=0.9, log_every=1, validate_every=2),
        use=use.Config(tile=64),
    )


def fasttextdiff_monuseg_as_published() -> Run:
    """The published FastTextDiff, quirks included: BGR, grown masks, 10 tokens, Dice on raw logits, one image a step.

    Source: arXiv 2512.00084 and its code (docs/method.md lists the quirks). Needs the converted ADM checkpoint and a
    ModernBERT: --set model.denoiser.path=DIR --set model.text.path=DIR.
    Hardware: one GPU with 24 GB; the paper reports 78.72 Dice on the validation images it selects on.
    """
    return _published("monuseg", max_steps=50 * 24)


def textdiff_monuseg_as_published() -> Run:
    """The published TextDiff: the same network with a BERT; --set model.text.path= a Clinical BioBERT's folder.

    Source: arXiv 2407.05323, which reports 78.67 Dice. Otherwise as `fasttextdiff_monuseg_as_published`.
    """
    return _published("monuseg", max_steps=50 * 24)


def fasttextdiff_qata_as_published() -> Run:
    """The published FastTextDiff on QaTa-COV19; see `fasttextdiff_monuseg_as_published`."""
    return _published("qata", max_steps=50 * 5716)


def fasttextdiff_mosmed_as_published() -> Run:
    """The published FastTextDiff on MosMedData+; see `fasttextdiff_monuseg_as_published`."""
    return _published("mosmed", max_steps=100 * 2183)


def _brief() -> Run:
    """Ours at native size for 600 steps, the note not gated; what the recipes here have in common."""
    return Run(
        model=fasttextdiff.Config(
            denoiser=denoiser.Config(path="builtin:ddpm-small/denoiser", trainable=True),
            text=huggingface.Config(path="builtin:modernbert-small/text"),
            features=features.Config(taps=(1, 3, 5, 7), timesteps=(30,), noise="none"),
            head=pyramid.Config(width=64, fusion=cross_attention.Config(), fuse_levels=2),
        ),
        data=Data(augmentation=_NATIVE),
        training=_BUDGET.replace(lr_scale={"denoiser": 0.5}),
        use=use.Config(mode="tiles", tile=512, overlap=0.25),
    )


def _unet(run: Run) -> Run:
    """The same with a U-Net for the model, and its own learning rate."""
    return run.replace(model=unet.Config(), training=run.training.replace(learning_rate=1e-3, lr_scale={}))


def _at_256(run: Run) -> Run:
    """Images made 256 x 256 and read at 512 x 512, with views as large as `run` sees at native size."""
    data: Any = run.data
    halved = tuple(scale / 2 for scale in data.augmentation.scale)
    views = data.augmentation.replace(scale=halved)
    return run.replace(data=data.replace(size=256, augmentation=views), use=use.Config(mode="resize", size=512))


def _few(run: Run, num: int, consistent: bool = True) -> Run:
    """`num` labels, each image cut at its own threshold. Of 24 labels a model knows better where to cut, and loses by
    it (docs/results.md)."""
    teacher = consistency.Config(weight=1.0, ramp_up=100, contrast_shift=_SHIFT) if consistent else None
    data = run.data.replace(subset=MONUSEG[num, 0])
    return run.replace(data=data, consistency=teacher, use=run.use.replace(contrast_shift=_SHIFT))


def _detailed(run: Run) -> Run:
    """With a branch that sees single pixels, of which `ddpm-small` reads 2 x 2 at once."""
    model: Any = run.model
    head, reads = model.head.replace(detail=32), model.features.replace(image=True)
    return run.replace(model=model.replace(head=head, features=reads))


def _gated(run: Run) -> Run:
    """The note comes in through a gate that starts shut."""
    model: Any = run.model
    return run.replace(model=model.replace(head=model.head.replace(fusion=cross_attention.Config(gate=True))))


def _seldom_noted(run: Run) -> Run:
    """Half of the notes left out. With few labels open, frequent notes made the model worse on other images than none.

    With this and the gate they cost nothing there (docs/results.md).
    """
    return run.replace(data=run.data.replace(augmentation=run.data.augmentation.replace(note_dropout=0.5)))


def _published(name: published.Name, max_steps: int) -> Run:
    model = published.model_config(
        name,
        denoiser=denoiser.Config(path="set model.denoiser.path", dtype="float32"),
        text=fixed_length.Config(path="set model.text.path", num_tokens=published.MAX_TOKENS),
    )
    return Run(
        model=model,
        data=Data(
            size=published.IMAGE_SIZE, masks="as_published", antialias=False, augmentation=augment.Config(flips=True)
        ),
        loss=losses.as_published(),
        training=engine.Config(
            max_steps=max_steps, batch_size=1, learning_rate=1e-4, weight_decay=0.0, clip_norm=None, schedule="constant"
        ),
        use=use.Config(mode="resize", size=published.IMAGE_SIZE, antialias=False),
    )
