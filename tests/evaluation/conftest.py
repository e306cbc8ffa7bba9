"""Made-up scores, masks and pictures."""

import numpy as np
import pytest

from medtextdiff.evaluation.report_page import Example
from medtextdiff.evaluation.segmentation import Row, score_image


def square(top, left, size=10, shape=(64, 48)):
    mask = np.zeros(shape, dtype=np.int64)
    mask[top : top + size, left : left + size] = 1
    return mask


@pytest.fixture
def make_square():
    return square


@pytest.fixture
def example():
    """Pixels of an image by id: the number in the id is how far the prediction is off."""

    def make(name):
        shift = int("".join(filter(str.isdigit, name)))
        image = np.full((64, 48, 3), 120, dtype=np.uint8)
        return Example(image, square(10, 10), square(10, 10 + shift))

    return make


@pytest.fixture
def rows(example):
    names = [f"image_{k}" for k in range(9)]
    return [Row(n, score_image(example(n).pred, example(n).truth, 2), has_note=n != "image_3") for n in names]
