import numpy as np
import pytest

from medtextdiff.evaluation.calibration import Calibration, confidence, expected_calibration_error


def two_class(foreground):
    return np.stack([1 - foreground, foreground])


def test_a_sure_and_right_model_has_no_error():
    truth = np.array([[0, 1], [1, 0]])
    assert expected_calibration_error(two_class(truth.astype(np.float64)), truth) == 0


def test_a_sure_and_wrong_model_has_error_one():
    truth = np.array([[0, 1], [1, 0]])
    assert expected_calibration_error(two_class(1.0 - truth), truth) == 1


def test_known_gap():
    probs = two_class(np.full((10, 10), 0.8))
    truth = np.zeros((10, 10), dtype=np.int64)
    truth[:6] = 1  # right for 60 %, confident of 80 %
    assert expected_calibration_error(probs, truth) == pytest.approx(0.2)


def test_a_calibrated_model_has_little_error():
    rng = np.random.default_rng(0)
    p = rng.random((300, 300))
    truth = (rng.random((300, 300)) < p).astype(np.int64)
    assert expected_calibration_error(two_class(p), truth) < 0.01


def test_adding_images_is_as_one_large_image():
    rng = np.random.default_rng(1)
    p = rng.random((20, 30))
    truth = (rng.random((20, 30)) < 0.5).astype(np.int64)
    parts = Calibration()
    parts.add(two_class(p[:7]), truth[:7])
    parts.add(two_class(p[7:]), truth[7:])
    assert parts.error() == pytest.approx(expected_calibration_error(two_class(p), truth))


def test_ignored_pixels_do_not_count():
    p = np.full((4, 4), 0.8)
    truth = np.ones((4, 4), dtype=np.int64)
    truth[2:] = 255
    assert expected_calibration_error(two_class(p), truth) == pytest.approx(0.2)


def test_confidence_is_that_of_the_predicted_foreground():
    p = np.full((4, 4), 0.1)
    p[0, 0], p[0, 1] = 0.9, 0.7
    assert confidence(two_class(p)) == pytest.approx(0.8)


def test_confidence_without_foreground_is_over_all_pixels():
    assert confidence(two_class(np.full((4, 4), 0.25))) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: confidence(np.full((2, 3, 3), 4.0)), "softmax"),
        (lambda: confidence(np.full((2, 3, 3), np.nan)), "softmax"),
        (lambda: expected_calibration_error(np.zeros((2, 3, 3)), np.zeros((4, 4), dtype=np.int64)), "to one size"),
        (lambda: expected_calibration_error(np.zeros((2, 3, 3)), np.full((3, 3), 255)), "no pixel"),
        (lambda: Calibration(0), "at least 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
