"""Agreement against worked examples, computed by hand."""

import math

import pytest

from medtextdiff.evaluation.agreement import krippendorff_alpha, weighted_kappa


def test_cohens_kappa_of_the_textbook():
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed 0.7, expected 0.5, so 0.4."""
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert weighted_kappa(first, second, weights="none") == pytest.approx(0.4)


def test_weighted_kappa_by_hand():
    """Ratings (1,1) (2,2) (3,1) (3,3): see below."""
    first, second = [1, 2, 3, 3], [1, 2, 1, 3]
    # Observed squares 0, 0, 4, 0: mean 1. Expected over all 16 pairs of margins: rows 1: 0 1 0 4; 2: 1 0 1 1;
    # 3 and 3: 4 1 4 0 each: (5 + 3 + 9 + 9) / 16 = 1.625.
    assert weighted_kappa(first, second) == pytest.approx(1 - 1 / 1.625)
    # Linear: observed 0, 0, 2, 0: mean 0.5. Expected: (3 + 3 + 5 + 5) / 16 = 1.
    assert weighted_kappa(first, second, weights="linear") == pytest.approx(0.5)


def test_kappa_is_one_for_equal_and_nan_for_constant_ratings():
    assert weighted_kappa([1, 3, 5], [1, 3, 5]) == 1
    assert math.isnan(weighted_kappa([4, 4], [4, 4]))
    with pytest.raises(ValueError, match="two ratings"):
        weighted_kappa([1], [1, 2])


# Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), example C and D: four observers, twelve units.
UNITS = {
    1: [1, 1, 1], 2: [2, 2, 3, 2], 3: [3, 3, 3, 3], 4: [3, 3, 3, 3], 5: [2, 2, 2, 2], 6: [1, 2, 3, 4],
    7: [4, 4, 4, 4], 8: [1, 1, 2, 1], 9: [2, 2, 2, 2], 10: [5, 5, 5], 11: [1, 1], 12: [3],
}  # fmt: skip


@pytest.mark.parametrize(("scale", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_own_example(scale, alpha):
    assert krippendorff_alpha(UNITS, scale=scale) == pytest.approx(alpha, abs=5e-4)


def test_binary_alpha_by_hand():
    """Krippendorff's example A: two observers, ten units; 4 mismatched, margins 14 zeros and 6 ones.

    Observed 8 / 20 = 0.4; expected 2 * 14 * 6 / (20 * 19) = 0.442; alpha = 0.095.
    """
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    units = dict(enumerate(zip(first, second, strict=True)))
    assert krippendorff_alpha(units, scale="nominal") == pytest.approx(1 - 0.4 / (168 / 380))


def test_alpha_says_nothing_where_nothing_varies():
    assert math.isnan(krippendorff_alpha({1: [3, 3], 2: [3, 3]}))
    assert math.isnan(krippendorff_alpha({1: [3], 2: [4]}))
