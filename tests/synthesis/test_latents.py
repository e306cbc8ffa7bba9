import numpy as np
import torch

from medtextdiff.diffusion import autoencoder
from medtextdiff.synthesis import latents
from medtextdiff.synthesis.latents import VIEWS, Latents, rewritten
from tests.synthesis.conftest import moments


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny():
    torch.manual_seed(0)
    return autoencoder.Scratch.tiny().replace(trainable=False).build()


def images(num=3):
    return torch.rand(num, 3, 16, 24, generator=rng()) * 2 - 1


def test_prompts_follow_their_view():
    prompt = "An abnormality in the upper-left and lower-rigth, red."
    assert rewritten(prompt, 0) == prompt
    assert rewritten(prompt, 1) == "An abnormality in the upper-right and lower-left, red."
    assert rewritten(prompt, 2) == "An abnormality in the lower-left and upper-rigth, red."
    for view in range(len(VIEWS)):
        twice = rewritten(rewritten(prompt, view), view)
        assert twice.replace("rigth", "right") == prompt.replace("rigth", "right")


def test_views_are_mirror_images_encoded():
    model, given = tiny(), images()
    mean, std = latents.encode(model, given, 4)
    assert mean.shape == std.shape == (3, 4, 4, 4, 6)
    assert mean.dtype == np.float16
    for view, (left_right, top_bottom) in enumerate(VIEWS):
        axes = [axis for axis, on in ((-1, left_right), (-2, top_bottom)) if on]
        expected = model.encode(given.flip(axes) if axes else given)
        np.testing.assert_allclose(mean[:, view], expected.mean.numpy(), atol=5e-3)
        np.testing.assert_allclose(std[:, view], expected.std.numpy(), rtol=5e-3, atol=1e-3)


def test_note_and_view_go_together(records):
    data = Latents(records, moments(3))
    seen = set()
    for seed in range(60):
        sample = data.sample(0, rng(seed))
        notes = [rewritten(note, sample.mirrored) for note in ("a polyp in the upper-left", "a finding")]
        assert sample.note in notes
        np.testing.assert_array_equal(sample.mean.numpy(), data.moments[0][0, sample.mirrored].astype(np.float32))
        seen.add((sample.mirrored, notes.index(sample.note)))
    assert len(seen) == 8  # every view with every note


def test_some_prompts_may_be_told_at_once(records):
    data = Latents(records, moments(3, views=2), at_once=2)
    seen = {(sample.note, sample.mirrored) for sample in (data.sample(0, rng(seed)) for seed in range(60))}
    one, other = "a polyp in the upper-left", "a finding"
    told = [one, other, f"{one} {other}", f"{other} {one}"]
    assert {note for note, view in seen if view == 0} == set(told)  # each at most once
    assert {note for note, view in seen if view == 1} == {rewritten(note, 1) for note in told}


def test_a_batch_draws_afresh(records):
    data = Latents(records, moments(3, views=1))
    batch = data.collate([data.sample(index, rng(index)) for index in (2, 0)])
    assert batch.ids == ["case2", "case0"]
    assert batch.mirrored.tolist() == [0, 0]
    first, second = (batch.moments().draw(rng(seed)) for seed in (1, 2))
    assert 0.1 < float((first - second).std()) < 0.2


def test_the_cache_is_made_once_and_mapped(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return moments(2)

    for _ in range(2):
        mean, std = latents.kept(tmp_path / "cache", "key", make)
    assert len(calls) == 1
    assert isinstance(mean, np.memmap)
    np.testing.assert_array_equal(std, moments(2)[1])


def test_the_key_names_all_that_decides():
    model = tiny()
    keys = {
        latents.cache_key(model, ["a", "b"], 32, 1),
        latents.cache_key(model, ["b", "a"], 32, 1),
        latents.cache_key(model, ["a", "b"], 64, 1),
        latents.cache_key(model, ["a", "b"], 32, 2),
    }
    assert latents.cache_key(tiny(), ["a", "b"], 32, 1) in keys
    model.normalise([images()])
    keys.add(latents.cache_key(model, ["a", "b"], 32, 1))
    with torch.no_grad():
        next(model.parameters()).add_(1)
    keys.add(latents.cache_key(model, ["a", "b"], 32, 1))
    assert len(keys) == 6
