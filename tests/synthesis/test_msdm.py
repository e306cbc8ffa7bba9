import pytest
import torch
from pydantic import ValidationError

from medtextdiff.config import ConfigError, from_json, to_json
from medtextdiff.diffusion import autoencoder, objective, sampling
from medtextdiff.recipes import synthesis
from medtextdiff.synthesis import conditioning
from medtextdiff.synthesis.latents import Latents
from medtextdiff.text.encoders import clip, tiny
from medtextdiff.types import TextFeatures
from tests.synthesis.conftest import moments, tiny_config

SIZE = (32, 32)
PROMPTS = ["a polyp", "no polyp at all, and a longer prompt", "a polyp"]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def settings(**changes):
    return sampling.Config(**({"steps": 3, "guidance": 2.0} | changes))


def batch(records, seed=0):
    data = Latents(records, moments(len(records)))
    return data.collate([data.sample(index, rng(seed + index)) for index in range(len(data))])


def test_config_goes_to_json_and_back():
    assert from_json(to_json(tiny_config())) == tiny_config()


@pytest.mark.parametrize(("target", "min_snr"), [("eps", None), ("v", 5.0), ("x0", None), ("flow", 5.0)])
def test_every_objective_learns(records, target, min_snr):
    about = {"target": target, "min_snr": min_snr} | ({"schedule": "straight"} if target == "flow" else {})
    torch.manual_seed(0)
    model = tiny_config(objective=objective.Config(**about)).build()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    values = []
    for _ in range(12):  # always the same noise: a step that does not fall is a bug
        found = model.loss(batch(records), rng(1))["loss"]
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        values.append(float(found.detach()))
    assert values[-1] < 0.95 * values[0]


def test_only_denoiser_and_conditioning_are_trained(model, records):
    model.train()
    model.loss(batch(records), rng())["loss"].backward()
    assert not model.autoencoder.training
    assert not model.text.training
    got = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert got == {"denoiser", "conditioning"}


def test_one_seed_one_image_whatever_the_batch(model):
    together = model.sample(PROMPTS, [7, 8, 9], SIZE, settings())
    assert together.shape == (3, 3, *SIZE)
    assert 0 <= float(together.min()) <= float(together.max()) <= 1
    for k, prompt in enumerate(PROMPTS):
        alone = model.sample([prompt], [7 + k], SIZE, settings())
        torch.testing.assert_close(together[k : k + 1], alone, atol=1e-5, rtol=0)
    assert not torch.equal(together[0], together[2])  # the same prompt, another seed


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.0001])
def test_guidance_1_and_0_take_one_pass_and_fit_between(model, scale):
    """Published code stops at scale 1; ours is continuous there."""
    found = model.sample(["a polyp"], [1], SIZE, settings(guidance=scale))
    near = model.sample(["a polyp"], [1], SIZE, settings(guidance=scale + 1e-4))
    torch.testing.assert_close(found, near, atol=1e-3, rtol=0)


def test_guidance_0_does_not_read_the_prompt(model):
    first, second = (model.sample([prompt], [1], SIZE, settings(guidance=0.0)) for prompt in PROMPTS[:2])
    assert torch.equal(first, second)
    first, second = (model.sample([prompt], [1], SIZE, settings()) for prompt in PROMPTS[:2])
    assert not torch.equal(first, second)


def test_a_padded_word_changes_nothing(model):
    alone = model.read(["a polyp"])
    beside = model.read(["a polyp", "a much longer prompt than the first one"])
    torch.testing.assert_close(beside.pooled[:1], alone.pooled, atol=1e-6, rtol=1e-5)
    x, t = torch.randn(1, 4, 8, 8, generator=rng()), torch.tensor([500])
    padded = TextFeatures(beside.tokens[:1], beside.mask[:1], beside.pooled[:1])
    torch.testing.assert_close(model.denoiser(x, t, padded)[0], model.denoiser(x, t, alone)[0], atol=1e-5, rtol=1e-4)


def test_an_absent_prompt_is_a_learned_word(model):
    read = model.read(["", "  "])
    assert read.mask.sum(1).tolist() == [1, 1]
    before = read.pooled.clone()
    with torch.no_grad():
        model.conditioning.null.token.normal_(generator=rng())
    assert not torch.allclose(model.read([""]).pooled, before[:1])


def test_mirrors_are_told_and_untold(model):
    with torch.no_grad():
        model.conditioning.mirrored.weight.normal_(generator=rng())
    plain = model.read(["a polyp"])
    turned = model.read(["a polyp"], torch.tensor([1]))
    assert not torch.allclose(plain.pooled, turned.pooled)
    torch.testing.assert_close(model.read(["a polyp"], torch.tensor([0])).pooled, plain.pooled)
    built = conditioning.Config(width=8, heads=2, mirrors=False).build(8)
    text = TextFeatures(torch.randn(1, 2, 8), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 8))
    torch.testing.assert_close(built(text, torch.tensor([3])).pooled, built(text).pooled)


def test_the_prompt_is_dropped_as_often_as_said(model, records):
    asked = []
    read, model.read = model.read, lambda prompts, mirrored=None: asked.extend(prompts) or read(prompts, mirrored)
    model.prompt_dropout = 0.5
    for seed in range(60):
        model.loss(batch(records), rng(seed))
    assert 0.35 < asked.count("") / len(asked) < 0.65


def test_what_cannot_be_sampled(model):
    with pytest.raises(ValueError, match="one seed for each prompt"):
        model.sample(["a"], [1, 2], SIZE, settings())
    with pytest.raises(ValueError, match="multiples of 8"):
        model.sample(["a"], [1], (36, 32), settings())
    with pytest.raises(ValueError, match="from 1 to 1000"):
        model.sample(["a"], [1], SIZE, settings(steps=2000))


def test_a_trainable_autoencoder_is_refused():
    with pytest.raises(ConfigError, match="frozen"):
        tiny_config(autoencoder=autoencoder.Scratch.tiny()).build()


def test_objectives_that_cannot_be():
    for wrong in ({"target": "flow"}, {"schedule": "straight"}, {"target": "eps", "zero_terminal_snr": True}):
        with pytest.raises(ValidationError):
            objective.Config(**wrong)


def test_published_numbers(tmp_path):
    """326,508,296 in the published network; diffusers' U-Net of the same widths has 98.1 M more (docs/synthesis.md)."""
    run = synthesis.msdm_as_published()
    text_width = 768  # of CLIP ViT-L/14
    with torch.device("meta"):
        denoiser = run.model.denoiser.build(8, run.model.conditioning.width)
        between = run.model.conditioning.build(text_width)
    count = sum(p.numel() for part in (denoiser, between) for p in part.parameters())
    assert count == PUBLISHED + DIFFERENCE
    built = run.model.objective.build()
    assert float(built.alphas_cumprod[-1]) == pytest.approx(7.5e-5, rel=0.01)
    assert (run.use.guidance, run.use.steps, run.use.eta) == (4.5, 150, 1.0)
    assert run.model.text == clip.Config(max_tokens=64)
    assert not run.training.ema_decay


PUBLISHED = 326_508_296
DIFFERENCE = 98_134_528


@pytest.mark.slow
def test_the_published_network_steps(records):
    """At its full width, on the CPU: forwards, backwards and an update, with tiny text and latents."""
    run = synthesis.msdm_as_published()
    small = tiny_config().replace(
        autoencoder=autoencoder.Scratch.tiny().replace(latent_channels=8, trainable=False),
        conditioning=run.model.conditioning,
        denoiser=run.model.denoiser,
        objective=run.model.objective,
    )
    model = small.build()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    data = Latents(records[:1], tuple(part.repeat(2, axis=2)[:1] for part in moments(1)))
    values = []
    for _ in range(2):
        found = model.loss(data.collate([data.sample(0, rng())]), rng())["loss"]
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        values.append(float(found.detach()))
    assert values[1] < values[0]


def test_clip_reads_prompts_as_in_the_published_setting(tmp_path, records):
    model = tiny_config(text=clip.Config.tiny(tmp_path).replace(max_tokens=64)).build()
    assert torch.isfinite(model.loss(batch(records), rng())["loss"])
    model.read(["word " * 200])
    assert model.text.cuts.notes == 1


def test_an_encoder_that_is_trained_gets_gradients(records):
    model = tiny_config(text=tiny.Config(trainable=True)).build()
    torch.nn.init.normal_(model.denoiser.unet.conv_out.weight, std=0.1)
    model.train().loss(batch(records), rng())["loss"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.text.parameters())


def nearly_alike():
    """Prompts of a template: they share nearly all words and differ in one."""
    return [
        f"Generate an image {kind}containing {what}." for kind in ("", "not ") for what in ("text", "a box", "a tube")
    ]


def test_whitened_by_the_training_prompts_they_lie_apart_and_without_a_common_part():
    model, prompts = tiny_config().build(), nearly_alike()
    plain = model.text(prompts).pooled
    assert torch.cdist(plain, plain).max() < 0.7 * plain.norm(dim=1).mean()
    model.conditioning.measure(model.text, prompts)
    white = model.conditioning.whole(plain)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros_like(white[0]), atol=1e-4, rtol=0)
    apart = torch.cdist(white, white) + 100 * torch.eye(len(white))
    assert apart.min() > 0.5 * white.norm(dim=1).mean()
    words = model.conditioning.words(torch.cat([model.text([prompt]).tokens[0] for prompt in prompts]))
    torch.testing.assert_close(words.mean(dim=0), torch.zeros_like(words[0]), atol=1e-4, rtol=0)
    assert (words.T @ words / len(words)).diagonal().max() < 1.01


def test_what_was_measured_is_part_of_the_saved_state():
    model, again = tiny_config().build(), tiny_config().build()
    model.conditioning.measure(model.text, nearly_alike())
    again.conditioning.load_state_dict(model.conditioning.state_dict())
    first, second = (one.read(PROMPTS[:2]) for one in (model, again))
    torch.testing.assert_close(first.pooled, second.pooled)
    torch.testing.assert_close(first.tokens[first.mask], second.tokens[second.mask])


@pytest.mark.parametrize("kind", ["none", "words"])
def test_without_whitening_nothing_is_measured(kind):
    model = tiny_config(conditioning=conditioning.Config(width=16, normalise=kind)).build()
    before = {name: value.clone() for name, value in model.conditioning.state_dict().items()}
    model.conditioning.measure(model.text, nearly_alike())
    after = model.conditioning.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_one_prompt_or_none_can_be_measured():
    """There is nothing that tells it from others: it is not blown up."""
    model = tiny_config().build()
    before = model.read(PROMPTS).pooled
    model.conditioning.measure(model.text, ["", " "])
    torch.testing.assert_close(model.read(PROMPTS).pooled, before)
    model.conditioning.measure(model.text, ["a polyp"])
    assert torch.equal(model.conditioning.whole.map, torch.eye(len(model.conditioning.whole.map)))
    assert model.read(PROMPTS).pooled.abs().max() < 10


def test_many_prompts_are_measured_in_parts():
    model, prompts = tiny_config().build(), [f"{n} polyps" for n in range(150)]
    model.conditioning.measure(model.text, prompts)
    found = model.conditioning.whole(model.text(prompts).pooled)
    assert found.mean(dim=0).abs().max() < 1e-3
    torch.testing.assert_close(model.conditioning.whole.mean, model.text(prompts).pooled.mean(dim=0))
