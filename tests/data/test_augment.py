"""Views: image, mask, note and box stay one."""

import pytest
import torch
from pydantic import ValidationError

from medtextdiff.data.augment import Config
from medtextdiff.types import IGNORE

COLOURS = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.4, "hue": 0.1}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def coordinates(rows=60, columns=80):
    """An image whose red is its column and whose green is its row, within [-1, 1]."""
    row = torch.linspace(-1, 1, rows + 1)[:-1] + 1 / rows
    column = torch.linspace(-1, 1, columns + 1)[:-1] + 1 / columns
    return torch.stack([column.expand(rows, -1), row[:, None].expand(-1, columns), torch.zeros(rows, columns)])


def test_defaults_change_nothing():
    image, mask = coordinates(), torch.randint(0, 3, (60, 80))
    view = Config().build()(image, mask, "in the left", rng())
    assert torch.equal(view.image, image)
    assert torch.equal(view.mask, mask)
    assert view.note == "in the left"
    assert view.box.tolist() == [0, 0, 1, 1]


def test_what_is_given_is_never_changed():
    image, mask = coordinates(), torch.randint(0, 3, (60, 80))
    kept = image.clone()
    settings = Config(crop=32, flips=True, rot90=True, noise=0.1, **COLOURS)
    for seed in range(5):
        view = settings.build()(image, mask, "", rng(seed))
        view.image.zero_()
    assert torch.equal(image, kept)
    Config().build()(image, mask, "", rng()).image.zero_()
    assert torch.equal(image, kept)


def test_the_same_seed_gives_the_same_view():
    settings = Config(crop=32, scale=(0.5, 2), flips=True, rot90=True, blur=1, noise=0.1, note_dropout=0.5, **COLOURS)
    image, mask = torch.rand(3, 60, 80) * 2 - 1, torch.randint(0, 3, (60, 80))
    one, two, other = (settings.build()(image, mask, ["a", "b"], rng(seed)) for seed in (4, 4, 5))
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.mask, two.mask)
    assert one.note == two.note
    assert torch.equal(one.box, two.box)
    assert not torch.equal(one.image, other.image)


@pytest.mark.parametrize("seed", range(12))
def test_crop_box_mask_and_note_agree(seed):
    """The four places of a picture, told by the pixels, by the mask and by the box."""
    image = coordinates(64, 64)
    mask = (image[0] > 0).long() + 2 * (image[1] > 0).long()  # 0 upper left, 1 upper right, 2 lower left, 3 lower right
    settings = Config(crop=24, scale=(0.6, 1.5), flips=True, rot90=True)
    view = settings.build()(image, mask, "0 upper left", rng(seed))
    # The old corner 0 now lies where the note says.
    old_left, old_top = view.image[0], view.image[1]
    here = (((old_left > 0).long() + 2 * (old_top > 0).long()) == view.mask).double().mean()
    assert here > 0.9  # but for pixels on the border of two places
    left, top, right, bottom = view.box.tolist()
    at_row = top + (bottom - top) * (torch.arange(24) + 0.5) / 24
    at_column = left + (right - left) * (torch.arange(24) + 0.5) / 24
    upper, lefts = "upper" in view.note, "left" in view.note
    in_place = ((at_row < 0.5) == upper)[:, None] & ((at_column < 0.5) == lefts)[None]
    assert ((view.mask == 0) == in_place).double().mean() > 0.85


def test_every_view_of_the_square_is_drawn():
    image = coordinates(16, 16)
    settings = Config(flips=True, rot90=True)
    views = {settings.build()(image, None, "upper right", rng(seed)).image.numpy().tobytes() for seed in range(100)}
    assert len(views) == 8


def test_no_quarter_turn_where_the_note_cannot_follow_or_the_image_is_oblong():
    settings = Config(rot90=True)
    for seed in range(10):
        assert torch.equal(
            settings.build()(coordinates(16, 16), None, "left lung", rng(seed)).image, coordinates(16, 16)
        )
        assert settings.build()(coordinates(), None, "upper right", rng(seed)).image.shape == (3, 60, 80)


@pytest.mark.parametrize("seed", range(12))
def test_a_view_follows_whose_left_the_note_means(seed):
    image = coordinates(64, 64)
    mask = (image[0] > 0).long() + 2 * (image[1] > 0).long()  # the patient's upper left is the viewer's upper right
    view = Config(flips=True, rot90=True).build()(image, mask, "upper left", rng(seed), side="patient")
    place = (view.mask == 1).nonzero().double().mean(0) < 32
    assert place.tolist() == ["upper" in view.note, "left" not in view.note]


def test_upright_images_can_stay_upright():
    settings = Config(flips=True, vertical_flips=False)
    rows = {settings.build()(coordinates(), None, "", rng(seed)).image[1, 0, 0].item() < 0 for seed in range(20)}
    assert rows == {True}


@pytest.mark.parametrize("shape", [(10, 12), (10, 100), (64, 9), (1, 1)])
def test_a_crop_larger_than_the_image_mirrors_it_and_counts_nothing_there(shape):
    image = coordinates(*shape)
    for seed in range(5):
        view = Config(crop=64, flips=True).build()(image, torch.ones(shape, dtype=torch.long), "", rng(seed))
        assert view.image.shape == (3, 64, 64)
        assert (view.mask != IGNORE).sum() == min(shape[0], 64) * min(shape[1], 64)
        assert (view.mask[view.mask != IGNORE] == 1).all()
        width = (view.box[2] - view.box[0]).item()
        assert width == pytest.approx(64 / shape[1], rel=1e-4)


def test_zoom_stays_within_a_large_enough_image_and_keeps_its_range():
    settings = Config(crop=32, scale=(0.5, 4))
    widths = []
    for seed in range(60):
        view = settings.build()(coordinates(), torch.zeros(60, 80, dtype=torch.long), "", rng(seed))
        assert view.box.min() >= 0
        assert view.box.max() <= 1
        assert not (view.mask == IGNORE).any()
        widths.append((view.box[2] - view.box[0]).item() * 80 / 32)
    assert min(widths) < 0.7
    assert 1.5 < max(widths) <= 60 / 32 + 0.02


def test_views_reach_every_edge():
    boxes = torch.stack([Config(crop=8).build()(coordinates(10, 10), None, "", rng(seed)).box for seed in range(60)])
    assert boxes[:, :2].min() == 0
    assert boxes[:, 2:].max() == 1


def test_grey_stays_grey_and_colour_moves():
    grey = (torch.rand(1, 32, 32) * 2 - 1).expand(3, -1, -1)
    settings = Config(blur=1, noise=0.1, **COLOURS)
    for seed in range(4):
        view = settings.build()(grey, None, "", rng(seed)).image
        assert torch.equal(view[0], view[1])
        assert torch.equal(view[1], view[2])
        assert not torch.equal(view[0], grey[0])
        assert view.abs().max() <= 1


def test_a_turn_of_hue_keeps_the_grey_value_and_half_turns_undo():
    from medtextdiff.data.augment import _turn_colours

    image = torch.rand(3, 8, 8) * 0.4 - 0.2
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    turned = _turn_colours(image, 1.0, 0.5)
    torch.testing.assert_close((turned * weights).sum(0), (image * weights).sum(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(_turn_colours(turned, 1.0, 0.5), image, atol=1e-4, rtol=0)
    grey = _turn_colours(image, 0.0, 0.2)
    torch.testing.assert_close(grey[0], grey[2], atol=1e-3, rtol=0)


def test_uint8_and_float_give_the_same_view():
    levels = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    settings = Config(crop=24, flips=True, rot90=True, **COLOURS)
    for seed in range(4):
        small = settings.build()(levels, None, "", rng(seed)).image
        large = settings.build()(levels.float() * (2 / 255) - 1, None, "", rng(seed)).image
        torch.testing.assert_close(small, large, atol=1e-5, rtol=0)


def test_notes_are_drawn_and_dropped():
    told = [Config(note_dropout=0.25).build()(coordinates(), None, ["a", "b", ""], rng(s)).note for s in range(400)]
    assert 60 < told.count("") < 140
    assert 110 < told.count("a") < 190
    assert {Config(note_choice=False).build()(coordinates(), None, ["a", "b"], rng(s)).note for s in range(9)} == {"a"}
    assert {Config(note_dropout=1).build()(coordinates(), None, "a", rng(s)).note for s in range(9)} == {""}
    assert Config().build()(coordinates(), None, [], rng()).note == ""


@pytest.mark.parametrize("bad", [{"scale": (2, 1)}, {"scale": (0, 1)}, {"crop": 0}, {"hue": 0.9}, {"note_dropout": 2}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        Config(**bad)


def test_stain_changes_tissue_and_leaves_white_and_grey_alone():
    tissue = torch.rand(3, 40, 40, generator=rng()) * torch.tensor([0.6, 1.2, 0.4])[:, None, None] - 0.5
    view = Config(stain=0.3).build()(tissue, None, "", rng(1))
    assert (view.image - tissue).abs().mean() > 0.02
    assert view.image.min() >= -1
    assert view.image.max() <= 1
    white = torch.ones(3, 8, 8)
    white[2, 0, 0] = 0.99  # not grey
    assert Config(stain=0.3).build()(white, None, "", rng(1)).image.min() > 0.85
    grey = torch.rand(1, 8, 8, generator=rng()).expand(3, -1, -1)
    assert torch.equal(Config(stain=0.3).build()(grey, None, "", rng(1)).image, grey)


def test_stain_keeps_each_stain_apart():
    """More haematoxylin takes light as haematoxylin does: the change is along the three stains' densities."""
    from medtextdiff.data import augment

    pure = torch.exp(-augment._STAINS[0])[:, None, None].expand(3, 4, 4) * 2 - 1
    restained = augment._restained(pure, 0.0, rng())
    torch.testing.assert_close(restained, pure, atol=1e-5, rtol=0)


VARIED = Config(crop=24, scale=(0.6, 1.5), flips=True, rot90=True, stain=0.2, blur=1, noise=0.1, **COLOURS)


def test_a_number_of_views_comes_again_bit_for_bit():
    image, mask = coordinates(), torch.randint(0, 3, (60, 80), generator=rng())
    settings = VARIED.replace(num_views=3, note_dropout=0.5)
    notes = ["a upper left", "b lower"]
    drawn = [settings.build()(image, mask, notes, rng(seed), "case 1") for seed in range(60)]
    views = {v.image.numpy().tobytes() + v.mask.numpy().tobytes() + v.box.numpy().tobytes() for v in drawn}
    assert len(views) == 3
    assert len({v.image.numpy().tobytes() for v in drawn}) == 3
    for pixels in {v.image.numpy().tobytes() for v in drawn}:  # a view's note is drawn anew, and told in its frame
        told = {v.note for v in drawn if v.image.numpy().tobytes() == pixels}
        assert len(told) == 3
        assert "" in told
    other = {settings.build()(image, mask, notes, rng(seed), "case 2").image.numpy().tobytes() for seed in range(20)}
    assert len(other) == 3
    assert not other & {v.image.numpy().tobytes() for v in drawn}


@pytest.mark.parametrize("name", [f"case {k}" for k in range(10)])
def test_such_views_are_no_more_than_asked_for_whatever_their_flips_do_to_a_note(name):
    settings = Config(flips=True, rot90=True, num_views=2, note_dropout=0.5)  # only the upper one of these can turn
    drawn = [settings.build()(coordinates(16, 16), None, "the lesion is upper right", rng(k), name) for k in range(40)]
    assert len({view.image.numpy().tobytes() for view in drawn}) <= 2


@pytest.mark.parametrize("seed", range(6))
def test_such_a_view_agrees_with_its_note(seed):
    image = coordinates(64, 64)
    mask = (image[0] > 0).long() + 2 * (image[1] > 0).long()
    view = Config(flips=True, rot90=True, num_views=20).build()(image, mask, "upper left", rng(seed), "a")
    place = (view.mask == 0).nonzero().double().mean(0) < 32
    assert place.tolist() == ["upper" in view.note, "left" in view.note]


def test_such_a_view_is_never_turned_where_one_of_the_notes_cannot_follow():
    settings = Config(rot90=True, num_views=8, note_dropout=0.5)
    for seed in range(20):
        view = settings.build()(coordinates(16, 16), None, ["upper", "left lung"], rng(seed), "a")
        assert torch.equal(view.image, coordinates(16, 16))


@pytest.mark.parametrize(
    ("settings", "repeats"),
    [
        (Config(), True),
        (Config(flips=True, rot90=True, note_dropout=0.3), True),
        (Config(crop=32), False),
        (Config(scale=(0.9, 1.1)), False),
        (Config(stain=0.1), False),
        (VARIED, False),
        (VARIED.replace(num_views=4), True),
    ],
)
def test_it_is_known_whether_views_come_again(settings, repeats):
    assert settings.repeats == repeats
