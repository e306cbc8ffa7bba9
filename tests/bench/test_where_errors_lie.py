import importlib.util
from pathlib import Path

import numpy as np
import pytest

from medtextdiff.types import IGNORE

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "where_errors_lie.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("where_errors_lie", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def truth():
    found = np.zeros((60, 60), dtype=np.int64)
    found[10:20, 10:20] = found[10:20, 40:50] = 1
    return found


def test_the_parts_of_the_error_add_up_to_what_dice_lacks(script, truth):
    probs = np.zeros((60, 60))
    probs[9:21, 9:21] = 0.9  # one pixel too wide: 44 too many
    probs[40:45, 40:50] = 0.9  # made up: 50
    found = script.shares(probs, truth, 3.0)  # and the second object, 100, is missed
    total = 200 + 144 + 50
    assert found["within 3 px"] == pytest.approx(100 * 44 / total)
    assert found["objects made up"] == pytest.approx(100 * 50 / total)
    assert found["objects missed"] == pytest.approx(100 * 100 / total)
    assert found["rest"] == 0
    assert found["Dice"] == pytest.approx(200 * 100 / total)
    parts = ("within 3 px", "objects missed", "objects made up", "rest")
    assert found["Dice"] + sum(found[part] for part in parts) == pytest.approx(100)


def test_the_best_threshold_is_a_bound_and_what_is_ignored_does_not_count(script, truth):
    probs = np.where(truth == 1, 0.3, 0.1)
    probs[50:, :] = 0.9
    truth[50:, :] = IGNORE
    found = script.shares(probs, truth, 3.0)
    assert found["Dice"] == 0
    assert found["at best threshold"] == 100
    assert found["objects made up"] == 0


def test_an_image_without_objects_has_no_outline(script):
    nothing = np.zeros((8, 8), dtype=np.int64)
    assert script.shares(np.zeros((8, 8)), nothing, 3.0)["Dice"] == 100
    found = script.shares(np.ones((8, 8)), nothing, 3.0)
    assert found["objects made up"] == 100
    assert found["within 3 px"] == 0
