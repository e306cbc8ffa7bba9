"""A file much larger than the memory that reading it takes. With 5 GB: `python measure_memory.py FOLDER 5`."""

import pytest

from . import measure_memory


@pytest.mark.slow
def test_reading_takes_bounded_memory(tmp_path):
    small, large = (measure_memory.measure(tmp_path, gigabytes) for gigabytes in (0.1, 0.5))
    assert sum(large["documents"].values()) > 4 * sum(small["documents"].values())
    assert large["left_out"] == {}
    assert large["peak_mb"] < 200
    assert large["peak_mb"] - small["peak_mb"] < 50
