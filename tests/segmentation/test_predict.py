import itertools

import pytest
import torch
from torch import nn

from medtextdiff.segmentation import use
from medtextdiff.segmentation.predict import predict, tile_boxes, tile_size, tile_starts
from medtextdiff.segmentation.views import Encoded


class Pointwise(nn.Module):
    """A toy segmenter that sees one pixel at a time: tiles of an image must give what the whole image gives."""

    num_classes = 4

    def __init__(self, places=False):
        super().__init__()
        self.places, self.calls = places, []
        self.weight = nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, images, notes, boxes=None):
        self.calls.append((len(images), tuple(images.shape[-2:]), list(notes)))
        logits = torch.einsum("kc,bchw->bkhw", self.weight, images)
        if self.places:  # class 0 grows to the right, class 1 downwards, in the whole image
            from medtextdiff.layers import grid_positions

            boxes = torch.tensor([[0.0, 0, 1, 1]] * len(images)) if boxes is None else boxes
            logits[:, :2] = logits[:, :2] + 3 * grid_positions(boxes, *images.shape[-2:])
        return logits


def picture(height=50, width=70):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(3)) * 2 - 1


def whole(segmenter, image):
    with torch.no_grad():
        return segmenter(image[None], [""])[0].softmax(dim=0)


@pytest.mark.parametrize("size", [(50, 70), (20, 70), (9, 5), (32, 32), (1, 1)])
@pytest.mark.parametrize("places", [False, True])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_tiles_are_the_whole(size, places, overlap):
    segmenter, image = Pointwise(places).eval(), picture(*size)
    probs = predict(segmenter, image, "n", mode="tiles", tile=32, overlap=overlap)
    torch.testing.assert_close(probs, whole(segmenter, image), atol=1e-5, rtol=1e-5)


def test_never_more_tiles_at_once_than_asked():
    segmenter = Pointwise().eval()
    predict(segmenter, picture(), "n", tile=16, batch_size=3)
    assert max(num for num, _, _ in segmenter.calls) == 3
    assert {size for _, size, _ in segmenter.calls} == {(16, 16)}


@pytest.mark.parametrize("mode", ["resize", "tiles"])
def test_probabilities_at_native_size(mode):
    probs = predict(Pointwise().eval(), picture(), "n", mode=mode, size=32, tile=32, scale=0.7)
    assert probs.shape == (4, 50, 70)
    torch.testing.assert_close(probs.sum(dim=0), torch.ones(50, 70))
    assert probs.min() >= 0


def test_resize_works_at_its_size():
    segmenter = Pointwise().eval()
    predict(segmenter, picture(), "n", mode="resize", size=24)
    assert segmenter.calls == [(1, (24, 24), ["n"])]


@pytest.mark.parametrize("mode", ["resize", "tiles"])
def test_flips_of_a_pointwise_net_change_nothing_and_mirror_the_note(mode):
    segmenter, image = Pointwise().eval(), picture(32, 32)
    plain = predict(segmenter, image, "up left", mode=mode, size=32, tile=32)
    segmenter.calls.clear()

    def mirror(note, left_right, up_down):
        note = note.replace("left", "right") if left_right else note
        return note.replace("up", "down") if up_down else note

    torch.testing.assert_close(predict(segmenter, image, "up left", mode=mode, size=32, tile=32, flips=mirror), plain)
    assert [notes[0] for _, _, notes in segmenter.calls] == ["up left", "up right", "down left", "down right"]


@pytest.mark.parametrize(
    ("size", "tile", "expected"),
    [
        ((1000, 2000), 512, (512, 512)),
        ((300, 1000), 512, (300, 512)),  # nothing beyond the image is computed
        ((40, 300), 512, (256, 300)),
        ((40, 30), 64, (64, 64)),
    ],
)
def test_a_tile_is_no_larger_than_the_image_but_for_the_least(size, tile, expected):
    assert tile_size(size, tile) == expected


@pytest.mark.parametrize(("length", "tile", "overlap"), [(100, 32, 0.5), (33, 32, 0.0), (32, 32, 0.5), (7, 32, 0.2)])
def test_tiles_cover_the_side(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - tile)
    assert all(after - before <= tile * (1 - overlap) for before, after in itertools.pairwise(starts))


def test_boxes_are_left_top_right_bottom():
    boxes = tile_boxes([(10, 40)], (20, 20), (40, 80))
    torch.testing.assert_close(boxes, torch.tensor([[0.5, 0.25, 0.75, 0.75]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "tile"}, "'resize' or 'tiles'"),
        ({"overlap": 1.0}, "overlap"),
        ({"tile": 0}, "tile must be above 0"),
        ({"scale": -1.0}, "scale must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        predict(Pointwise().eval(), picture(), "n", **changes)
    assert caught.value


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"call \.eval\(\)"):
        predict(Pointwise().train(), picture(), "n")


def test_fasttextdiff_any_size(made):
    model = made()
    for size in [(33, 70), (5, 6)]:
        assert predict(model, picture(*size), "right", tile=32).shape == (2, *size)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("settings", [{"mode": "resize", "size": 32}, {"mode": "tiles", "tile": 32, "scale": 1.6}])
@pytest.mark.parametrize("size", [(20, 13), (50, 70), (20, 70), (32, 32)])
def test_encoded_once_is_as_predicted(made, size, settings, antialias):
    model, image = made(), picture(*size)
    settings = use.Config(antialias=antialias, **settings)
    found = Encoded.of(model, image, settings).probabilities(model, "upper right")
    torch.testing.assert_close(found, settings.probabilities(model, image, "upper right"), atol=1e-6, rtol=1e-6)
