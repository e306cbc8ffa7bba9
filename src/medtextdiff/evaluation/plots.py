"""Charts as inline SVG, drawn with the colours of the page around them (CSS variables)."""

import math
from collections import Counter
from collections.abc import Sequence
from html import escape

from medtextdiff.evaluation.statistics import Interval

_WIDTH, _LEFT, _RIGHT = 640, 46, 14
_MAX_POINTS = 400
_MAX_STACK = 14  # a higher pile of dots becomes a histogram


def score_plot(values: Sequence[float], ids: Sequence[str], interval: Interval, *, name: str) -> str:
    """Every image's score in [0, 1] as a dot (a histogram when there are many), with the mean and its interval."""
    low = math.floor(min(min(values), 0.9) * 10 + 1e-9) / 10  # zoomed, but always up to 1
    x = _Axis(low, 1.0, _LEFT, _WIDTH - _RIGHT)
    num_bins = 60
    bins = [min(num_bins - 1, int((value - low) / (1 - low) * num_bins)) for value in values]
    tallest = max(Counter(bins).values())
    base = 30 + 9 * max(6, min(tallest, _MAX_STACK))
    marks = _bars(bins, num_bins, tallest, base, x, low) if tallest > _MAX_STACK else _dots(values, ids, bins, base, x)
    at = f"{x(interval.mean):.1f}"
    band = (
        f'<rect class="band" x="{x(interval.low):.1f}" y="14" '
        f'width="{max(1.0, x(interval.high) - x(interval.low)):.1f}" height="{base - 14}"/>'
        f'<line class="mean" x1="{at}" x2="{at}" y1="14" y2="{base}"/>'
        f'<text class="tick" x="{at}" y="10" text-anchor="middle">mean {100 * interval.mean:.1f}</text>'
    )
    ticks = "".join(
        f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{base}" y2="{base + 4}"/>'
        f'<text class="tick" x="{x(t):.1f}" y="{base + 17}" text-anchor="middle">{100 * t:.0f}</text>'
        for t in [round(low + step / 10, 1) for step in range(round((1 - low) * 10) + 1)]
    )
    axis = f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
    label = (
        f'<text class="tick" x="{(_LEFT + _WIDTH) / 2:.0f}" y="{base + 34}" text-anchor="middle">{escape(name)}</text>'
    )
    return _svg(_WIDTH, base + 40, f"{name} of {len(values)} images", band + ticks + axis + marks + label)


def line_chart(points: Sequence[tuple[float, float]], *, name: str, x_name: str = "step") -> str:
    """One curve over x; more than 400 points are averaged in neighbours. All values must be finite."""
    points = _thin(points)
    width, height, left, bottom = 400, 190, 52, 30
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    x = _Axis(min(xs), max(xs), left, width - _RIGHT)
    y = _Axis(min(ys), max(ys), height - bottom, 12)
    grid = "".join(
        f'<line class="grid" x1="{left}" x2="{width - _RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text class="tick" x="{left - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{_number(t)}</text>'
        for t in _ticks(min(ys), max(ys))
    )
    grid += "".join(
        f'<text class="tick" x="{x(t):.1f}" y="{height - bottom + 16}" text-anchor="middle">{_number(t)}</text>'
        for t in _ticks(min(xs), max(xs))
    )
    line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    mark = f'<polyline class="line" points="{line}"/>'
    if len(points) == 1:
        mark = f'<circle class="dot" cx="{x(xs[0]):.1f}" cy="{y(ys[0]):.1f}" r="3"/>'
    return _svg(width, height, f"{name} over {x_name}, last value {_number(ys[-1])}", grid + mark)


def interval_plot(rows: Sequence[tuple[str, Interval]], *, name: str, line: float | None = None) -> str:
    """One row for each (label, mean and ends), in percent, below each other; `line` is where to draw a reference."""
    ends = [end for _, interval in rows for end in interval] + ([] if line is None else [line])
    ticks = _ticks(100 * min(ends), 100 * max(ends))
    left, step, top = 210, 24, 12
    low, high = min(100 * min(ends), ticks[0]), max(100 * max(ends), ticks[-1])
    x, base = _Axis(low, high, left, _WIDTH - _RIGHT), top + step * len(rows)
    marks = "".join(
        f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{top}" y2="{base}"/>'
        f'<text class="tick" x="{x(t):.1f}" y="{base + 16}" text-anchor="middle">{_number(t)}</text>'
        for t in ticks
    )
    if line is not None:
        marks += f'<line class="axis" x1="{x(100 * line):.1f}" x2="{x(100 * line):.1f}" y1="{top}" y2="{base}"/>'
    for number, (label, interval) in enumerate(rows):
        y = top + step * (number + 0.5)
        start, middle, end = (x(100 * value) for value in (interval.low, interval.mean, interval.high))
        marks += (
            f'<text class="tick" x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'
            f'<line class="line" x1="{start:.1f}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<circle class="dot" cx="{middle:.1f}" cy="{y:.1f}" r="4"><title>{escape(label)}: '
            f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]</title></circle>"
        )
    middle_x = (left + _WIDTH - _RIGHT) / 2
    marks += f'<text class="tick" x="{middle_x:.0f}" y="{base + 32}" text-anchor="middle">{escape(name)}</text>'
    return _svg(_WIDTH, base + 38, f"{name} of {len(rows)} rows", marks)


class _Axis:
    """A straight map from data to pixels; a range of width zero lies in the middle."""

    def __init__(self, low: float, high: float, start: float | int, end: float | int) -> None:
        self.low, self.span, self.start, self.end = low, high - low, start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / self.span if self.span else 0.5
        return self.start + share * (self.end - self.start)


def _dots(values: Sequence[float], ids: Sequence[str], bins: Sequence[int], base: int, x: _Axis) -> str:
    piled: Counter[int] = Counter()
    marks = []
    for value, name, place in sorted(zip(values, ids, bins, strict=True)):
        piled[place] += 1
        marks.append(
            f'<circle class="dot" cx="{x(value):.1f}" cy="{base + 3 - 9 * piled[place]:.1f}" r="4">'
            f"<title>{escape(name)}: {100 * value:.1f}</title></circle>"
        )
    return "".join(marks)


def _bars(bins: Sequence[int], num_bins: int, tallest: int, base: int, x: _Axis, low: float) -> str:
    step = (1 - low) / num_bins
    wide = x(low + step) - x(low) - 1
    return "".join(
        f'<rect class="bar" x="{x(low + place * step):.1f}" y="{base - (base - 26) * count / tallest:.1f}" '
        f'width="{wide:.1f}" height="{(base - 26) * count / tallest:.1f}">'
        f"<title>{100 * (low + place * step):.1f} to {100 * (low + (place + 1) * step):.1f}: {count} images</title>"
        "</rect>"
        for place, count in sorted(Counter(bins).items())
    )


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = math.ceil(len(points) / _MAX_POINTS)
    pieces = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(p[0] for p in piece) / len(piece), sum(p[1] for p in piece) / len(piece)) for piece in pieces]


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers within the range."""
    if high - low < 1e-9:
        return [low]
    raw = (high - low) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    return [float(k * step) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _svg(width: int, height: int, label: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{body}</svg>"
    )
