"""The run of an autoencoder: which images speak for all."""

from itertools import pairwise

import pytest

from medtextdiff.recipes import autoencoder_run
from medtextdiff.recipes.synthesis_data import Data
from medtextdiff.types import Record


@pytest.mark.parametrize(("num", "kept"), [(1, 1), (512, 512), (513, 512), (1023, 512), (5000, 512)])
def test_an_even_choice_reaches_the_last_images(num, kept):
    records = [Record(str(k), "") for k in range(num)]
    chosen = [int(record.id) for record in autoencoder_run.Heldout(records, Data())._records]
    steps = [b - a for a, b in pairwise(chosen)]
    assert (len(chosen), len(set(chosen))) == (kept, kept)
    assert chosen[-1] >= num - 1 - num // kept
    assert not steps or max(steps) - min(steps) <= 1
