import base64
import io

import numpy as np
import pytest
from PIL import Image

from medtextdiff.evaluation import pictures


@pytest.fixture
def grey():
    return np.full((40, 60, 3), 100, dtype=np.uint8)


def test_an_empty_mask_leaves_the_image(grey):
    mask = np.zeros((40, 60), dtype=np.int64)
    mask[:5] = 255
    assert (pictures.overlay(grey, mask) == grey).all()


def test_only_the_mask_is_painted_and_its_outline_is_pure(grey):
    mask = np.zeros((40, 60), dtype=np.int64)
    mask[10:20, 10:20] = 1
    painted = pictures.overlay(grey, mask)
    assert ((painted != grey).any(axis=-1) == (mask == 1)).all()
    assert tuple(painted[10, 15]) == pictures.CLASS_COLOURS[0]
    assert tuple(painted[15, 15]) != pictures.CLASS_COLOURS[0]


def test_each_kind_of_error_has_its_colour(grey):
    truth, pred = np.zeros((2, 40, 60), dtype=np.int64)
    truth[0], pred[0] = 1, 1
    truth[1], pred[2] = 1, 1
    truth[3], pred[3] = 1, 2
    truth[4], pred[4] = 255, 1
    painted = pictures.error_overlay(grey, truth, pred)
    kinds = [tuple(painted[row, 0]) for row in range(6)]
    assert len(set(kinds)) == 6
    assert kinds[4] == (33, 33, 33)  # ignored: dimmed
    assert kinds[5] == (100, 100, 100)


def test_heat_goes_from_dark_to_bright():
    ramp = pictures.heat(np.linspace(0, 1, 50)[None])
    assert (tuple(ramp[0, 0]), tuple(ramp[0, -1])) == (pictures.HEAT[0], pictures.HEAT[-1])
    luminance = ramp[0] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > 0).all()


def test_shrinking_keeps_labels_and_shape():
    mask = np.zeros((40, 60), dtype=np.int64)
    mask[:, 30:] = 2
    small = pictures.shrink_labels(mask, 30)
    assert small.shape == pictures.shrink_image(np.zeros((40, 60, 3), dtype=np.uint8), 30).shape[:2] == (20, 30)
    assert set(np.unique(small)) == {0, 2}
    assert (small[:, :15] == 0).all()
    assert pictures.shrink_labels(mask, 500).shape == (40, 60)
    assert pictures.shrink_labels(np.ones((1, 4000), dtype=np.int64), 100).shape == (1, 100)


def test_png_uri_holds_the_image(grey):
    head, _, data = pictures.png_uri(grey).partition(",")
    assert head == "data:image/png;base64"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) == grey).all()
