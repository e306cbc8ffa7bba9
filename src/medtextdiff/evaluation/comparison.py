"""Is this run better than that one: paired, image by image."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from medtextdiff.evaluation.segmentation import LOWER_IS_BETTER, Row, check_rows, groups_of, metrics_of
from medtextdiff.evaluation.statistics import NUM_RESAMPLES, holm, paired_test


def compare(
    rows: Sequence[Row],
    against: Mapping[str, Sequence[Row]],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """One plain dict for each region, metric and run of `against` (name -> its rows), in that order.

    Fields: against, region, metric, this, other (means), difference (this - other: mean, low, high), p_value,
    p_holm (corrected for the number of runs in `against`), num_pairs, and verdict: "better" or "worse" only when the
    interval leaves out zero *and* p_holm is below 1 - level; otherwise "not shown".

    Raises:
        ValueError: rows of the two runs are not of the same images, or were scored with other regions or metrics.
    """
    check_rows(rows)
    others = {name: _in_order(name, rows, other) for name, other in against.items()}
    found = []
    for region in rows[0].scores:
        for metric in metrics_of(rows[0], region):
            lines = [
                _compare(rows, other, region, metric, seed=seed, num_resamples=num_resamples, level=level)
                for other in others.values()
            ]
            for name, line, p_holm in zip(others, lines, holm([line["p_value"] for line in lines]), strict=True):
                verdict = _verdict(line["difference"], p_holm, metric, level)
                found.append({"against": name, **line, "p_holm": p_holm, "verdict": verdict})
    return found


def _in_order(name: str, rows: Sequence[Row], other: Sequence[Row]) -> list[Row]:
    check_rows(other)
    by_id = {row.id: row for row in other}
    alone = sorted({row.id for row in rows} ^ by_id.keys())
    if alone:
        raise ValueError(
            f"'{name}' was not scored on the same images: {len(alone)} are in one run only, first '{alone[0]}'; "
            "evaluate both runs on the same data and split"
        )
    if {region: set(scores) for region, scores in rows[0].scores.items()} != {
        region: set(scores) for region, scores in other[0].scores.items()
    }:
        raise ValueError(f"'{name}' was scored with other regions or metrics; score both runs alike")
    return [by_id[row.id] for row in rows]


def _compare(rows: Sequence[Row], other: Sequence[Row], region: str, metric: str, **resampling: Any) -> dict[str, Any]:
    a = [row.scores[region][metric] for row in rows]
    b = [row.scores[region][metric] for row in other]
    test = paired_test(a, b, groups=groups_of(rows), **resampling)
    return {
        "region": region,
        "metric": metric,
        "this": sum(a) / len(a),
        "other": sum(b) / len(b),
        **asdict(test),
        "difference": test.difference._asdict(),
    }


def _verdict(difference: Mapping[str, float], p_value: float, metric: str, level: float) -> str:
    if difference["low"] <= 0 <= difference["high"] or p_value >= 1 - level:
        return "not shown"
    higher = difference["mean"] > 0
    return "better" if higher != (metric in LOWER_IS_BETTER) else "worse"
