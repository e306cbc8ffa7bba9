import time

import pytest
import torch

from medtextdiff.bench import measure

CPU = torch.device("cpu")


def test_ways_are_compared_with_the_first():
    rows = measure.side_by_side(
        [measure.Way("slow", lambda: time.sleep(0.03)), measure.Way("fast", lambda: time.sleep(0.003))], 3, CPU
    )
    assert [row.name for row in rows] == ["slow", "fast"]
    assert rows[0].faster == 1
    assert 3 < rows[1].faster <= 11
    assert rows[0].gflop is None


def test_arithmetic_of_a_matmul_is_counted():
    a, b = torch.randn(64, 32), torch.randn(32, 16)
    [row] = measure.side_by_side([measure.Way("matmul", lambda: a @ b)], 1, CPU)
    assert row.gflop == pytest.approx(2 * 64 * 32 * 16 / 1e9)
    assert 0 < row.share < 1


@pytest.mark.parametrize("keep", [None, torch.ones(2, 1, 8, 12, dtype=torch.bool)])
def test_arithmetic_of_fused_attention_is_counted(keep):
    q, k, v = torch.randn(2, 3, 8, 4), torch.randn(2, 3, 12, 4), torch.randn(2, 3, 12, 5)
    attend = torch.nn.functional.scaled_dot_product_attention
    [row] = measure.side_by_side([measure.Way("attention", lambda: attend(q, k, v, attn_mask=keep))], 1, CPU)
    assert row.gflop == pytest.approx(2 * 2 * 3 * 8 * 12 * (4 + 5) / 1e9)


def test_peak_memory_sees_what_is_freed_again():
    """64 MB that nobody keeps."""
    [row] = measure.side_by_side([measure.Way("fill", lambda: torch.ones(16_000_000).sum())], 1, CPU)
    assert row.peak_mb is None or 55 < row.peak_mb < 200


def test_memory_that_earlier_work_freed_counts_again():
    """64 MB in small pieces, which the C library keeps when they are freed."""

    def fill() -> None:
        pieces = [torch.ones(4_000) for _ in range(4_000)]
        kept.append(torch.ones(4_000))  # behind them, so that the heap's end cannot shrink
        pieces.clear()

    kept: list[torch.Tensor] = []
    fill()
    [row] = measure.side_by_side([measure.Way("fill", fill)], 1, CPU)
    assert row.peak_mb is None or 50 < row.peak_mb < 200


def test_error_is_relative_to_the_largest_value():
    expected = [torch.tensor([1.0, -10.0]), torch.tensor([2.0])]
    found = [torch.tensor([1.5, -10.0]), torch.tensor([2.0])]
    assert measure.relative_error(found, expected) == pytest.approx(0.05)


def test_no_run_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        measure.side_by_side([], 1, CPU)
