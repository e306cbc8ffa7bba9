import pytest
import torch

from medtextdiff.config import ConfigError
from medtextdiff.layers import grid_positions
from medtextdiff.segmentation import features, losses
from medtextdiff.segmentation.fusion import none
from medtextdiff.segmentation.heads import published, pyramid
from medtextdiff.text.encoders import tiny
from medtextdiff.types import Batch
from tests.segmentation.conftest import Words

NOTES = ["many nuclei upper right", "", "few"]
PUBLISHED = published.Config(width=24, hidden=(8, 4))


@torch.no_grad()
def test_padded_note_gives_the_same_logits(made, images):
    longer = made(text=Words(pad_to=9))
    torch.testing.assert_close(longer(images, NOTES), made()(images, NOTES), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("as_bert", [False, True])
def test_a_long_note_beside_it_changes_nothing(made, images, as_bert):
    """FastTextDiff (ModernBERT) and TextDiff (BERT) on notes of other lengths in the same batch."""
    model = made(text=tiny.Config(width=16, layers=2, as_bert=as_bert, exact=False))
    notes = ["few nuclei, upper left", "a far longer note on " + "nuclei " * 9, ""]
    together = model(images, notes)
    for row, note in enumerate(notes):
        torch.testing.assert_close(together[row : row + 1], model(images[row : row + 1], [note]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("head", [pyramid.Config(width=16), PUBLISHED])
def test_batch_is_its_singles(made, images, head):
    model = made(head=head)
    together = model(images, NOTES)
    for row, note in enumerate(NOTES):
        torch.testing.assert_close(together[row : row + 1], model(images[row : row + 1], [note]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 48), (30, 45), (3, 5)])
def test_encode_and_decode_are_forward(made, images, size):
    model, cut = made(), images[..., : size[0], : size[1]]
    levels = model.encode(cut)
    kept = [level.clone() for level in levels]  # as a cache would give them back
    for notes in (NOTES, ["a", "b", "c"]):
        torch.testing.assert_close(model.decode(kept, notes, size=size), model(cut, notes))
    torch.testing.assert_close(levels, kept)


@torch.no_grad()
def test_half_precision_cache_is_close(made, images):
    model = made()
    levels = [level.half().float() for level in model.encode(images)]
    torch.testing.assert_close(model.decode(levels, NOTES), model(images, NOTES), rtol=1e-2, atol=1e-2)


def test_absent_note_is_the_learned_state(made, images):
    model = made()
    model(images, ["", "", ""]).square().mean().backward()
    assert model.head.null_note.token.grad.abs().max() > 0
    with torch.no_grad():
        before = model(images, NOTES)
        model.head.null_note.token.copy_(torch.linspace(-1, 1, len(model.head.null_note.token)))
        after = model(images, NOTES)
    assert (after[1] - before[1]).abs().max() > 1e-4
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]])


@torch.no_grad()
def test_the_note_matters_and_none_of_it_without_fusion(made, images):
    model, blind = made(), made(head=pyramid.Config(width=16, fusion=none.Config()))
    other = ["quite another note", "here too", "and here"]
    assert (model(images, NOTES) - model(images, other)).abs().max() > 1e-4
    torch.testing.assert_close(blind(images, NOTES), blind(images, other), rtol=0, atol=0)
    assert blind.head.null_note is None


@torch.no_grad()
def test_a_crop_knows_where_it_lies(made, images):
    model = made()
    right, left = (torch.tensor([[x, 0.0, x + 0.5, 1.0]]).expand(3, 4) for x in (0.5, 0.0))
    assert (model(images, NOTES, right) - model(images, NOTES, left)).abs().max() > 1e-4


@torch.no_grad()
def test_padding_moves_no_position(made):
    """A cell of a padded image has the position it has in the unpadded one."""
    model = made()
    seen = []
    model.head.fusions[0].position.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    model(torch.zeros(1, 3, 32, 48), ["a"])
    model(torch.zeros(1, 3, 30, 46), ["a"], torch.tensor([[0.0, 0.0, 46 / 48, 30 / 32]]))
    torch.testing.assert_close(seen[0], seen[1])


@pytest.mark.parametrize("text", [Words(), None])
def test_without_text_notes_are_ignored(made, images, text):
    model = made(text=text)
    assert [name for name, _ in model.named_children()] == ["denoiser", *(["text"] if text else []), "head"]
    assert model(images, NOTES).shape == (3, 2, 32, 48)


def test_what_is_trained_is_the_head_or_the_denoiser_too(made, images):
    frozen = made().train()
    assert not frozen.denoiser.training
    assert not frozen.text.training
    assert frozen.head.training
    assert all(name.startswith("head.") for name, weight in frozen.named_parameters() if weight.requires_grad)
    whole = made(denoiser=frozen_config().replace(trainable=True)).train()
    whole(images, NOTES).square().mean().backward()
    assert whole.denoiser.training
    assert any(weight.grad is not None and weight.grad.abs().max() > 0 for weight in whole.denoiser.parameters())


def frozen_config():
    from medtextdiff.diffusion import denoiser

    return denoiser.Scratch.tiny().replace(trainable=False)


@pytest.mark.parametrize("taps", [(0,), (2,), (0, 2, 3), (-1, 0, 3)])
def test_any_taps_and_any_classes(made, images, taps):
    model = made(features=features.Config(taps=taps, timesteps=(10,), image=True), num_classes=5)
    assert model(images, NOTES).shape == (3, 5, 32, 48)


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 48), (30, 45)])
@pytest.mark.parametrize("shuffle_up_to", [4, 1])
def test_the_detail_branch_reads_the_image_itself(made, images, size, shuffle_up_to):
    head = pyramid.Config(width=16, detail=8, shuffle_up_to=shuffle_up_to)
    with_image = features.Config(taps=(0, 2, 3), timesteps=(10,), image=True)
    model, cut, seen = made(features=with_image, head=head), images[..., : size[0], : size[1]], []
    model.head.detail.register_forward_hook(lambda module, given, out: seen.append(given))
    together = model(cut, NOTES)
    maps, pixels = seen[0]
    assert maps.shape[1] == 8
    assert torch.equal(pixels[..., : size[0], : size[1]], cut)
    assert together.shape == (3, 2, *size)
    for row, note in enumerate(NOTES):
        torch.testing.assert_close(together[row : row + 1], model(cut[row : row + 1], [note]), rtol=1e-4, atol=1e-5)


def test_misuse_is_refused(made, images):
    with pytest.raises(ConfigError, match=r"set model\.features\.image=true"):
        made(head=pyramid.Config(detail=8))
    model = made()
    with pytest.raises(ValueError, match="3 images and 1 notes"):
        model(images, ["one"])
    with pytest.raises(ValueError, match="larger than"):
        model.decode(model.encode(images), NOTES, size=(64, 64))
    with pytest.raises(ValueError, match="coarse to fine"):
        made(features=features.Config(taps=(2, 0)))


@pytest.mark.slow
def test_learns_where_the_note_says_even_in_crops(made):
    """Images are noise; the mask is the half of the *whole* image that the note names, of which a crop shows a part."""
    model, rng = made().train(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=3e-3)
    for _ in range(200):
        batch = halves(8, rng)
        losses.Config().build()(model, batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    batch = halves(32, rng)
    with torch.no_grad():
        found = model.eval()(batch.images, batch.notes, batch.boxes).argmax(dim=1)
    assert (found == batch.masks).float().mean() > 0.98


def halves(num, rng):
    images = torch.rand(num, 3, 32, 32, generator=rng) * 2 - 1
    left = torch.rand(num, generator=rng) * 0.5
    boxes = torch.stack([left, torch.zeros(num), left + 0.5, torch.ones(num)], dim=1)
    is_right = grid_positions(boxes, 32, 32)[:, 0] > 0.5
    named = torch.randint(2, (num,), generator=rng).bool()
    notes = [f"on the {'right' if right else 'left'}" for right in named]
    masks = (is_right == named[:, None, None]).long()
    return Batch(ids=[""] * num, notes=notes, images=images, masks=masks, boxes=boxes)
