"""A blinded study with people: which images are shown in which order, and what their answers say.

Half of the images are real. A tenth come twice, far apart, to see whether a rater agrees with himself.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medtextdiff.evaluation.agreement import krippendorff_alpha, weighted_kappa
from medtextdiff.evaluation.resampling import share_interval
from medtextdiff.evaluation.statistics import Interval, bootstrap_interval

REAL = "real"
REPEATED = 0.1
SCALES = ("confidence", "realism", "adherence")  # answered 1 to 5
ANSWERS = ("real", *SCALES, "usable")  # real and usable: 1 yes, 0 no
_OF_IMAGES = ("realism", "adherence", "usable")


@dataclass(frozen=True)
class Item:
    """One page of the study: which image (of `system`) is shown; `repeats` is the item that showed it first."""

    number: int
    image: str
    system: str
    repeats: int | None = None


@dataclass(frozen=True)
class Rating:
    """A rater's answers to one item; what was not asked or not answered is absent."""

    rater: str
    item: int
    answers: Mapping[str, int]


def draw(pools: Mapping[str, Sequence[str]], num: int, *, seed: int) -> list[Item]:
    """`num` images, half of them real and the others shared evenly by the systems; a tenth of them again at the end.

    Args:
        pools: names of the images by system; `REAL` is one of them.

    Raises:
        ValueError: no real images or no system, fewer than one image a system, or a pool with too few.
    """
    systems = [name for name in pools if name != REAL]
    if REAL not in pools or not systems:
        raise ValueError("a study needs real images and at least one system's images")
    if num < 2 * len(systems):
        raise ValueError(f"-n {num} is too few for {len(systems)} systems and real images; give {2 * len(systems)}")
    rng = np.random.default_rng(seed)
    wanted = {REAL: num // 2}
    for k, name in enumerate(systems):
        wanted[name] = (num - num // 2) // len(systems) + (k < (num - num // 2) % len(systems))
    chosen: list[tuple[str, str]] = []
    for name, count in wanted.items():
        if len(pools[name]) < count:
            raise ValueError(f"'{name}' has {len(pools[name])} images, but {count} are wanted; give a smaller -n")
        chosen += [(pools[name][int(at)], name) for at in rng.permutation(len(pools[name]))[:count]]
    order = [chosen[int(at)] for at in rng.permutation(len(chosen))]
    return _with_repeats(order, rng)


def score(items: Sequence[Item], ratings: Sequence[Rating], *, seed: int) -> dict[str, object]:
    """What the answers say, as JSON values: recognition, ratings by system, agreement within and between raters.

    Repeats count for agreement within a rater only. Intervals: Wilson's for one rater's shares; over several raters and
    for means a bootstrap of images, since answers on one image are not independent.
    """
    place = {item.number: item for item in items}
    first = [rating for rating in ratings if place[rating.item].repeats is None]
    raters = sorted({rating.rater for rating in ratings})
    return {
        "raters": {
            rater: {
                "answered": sum(rating.rater == rater for rating in ratings),
                "of": len(items),
                "recognised": _recognised(place, [one for one in first if one.rater == rater]),
                "agreement with oneself": _within(place, [one for one in ratings if one.rater == rater]),
            }
            for rater in raters
        },
        "recognised": _over_images(place, first, seed),
        "systems": {name: _system(place, first, name, seed) for name in dict.fromkeys(item.system for item in items)},
        "agreement between raters": _between(first, raters),
    }


def _with_repeats(order: list[tuple[str, str]], rng: np.random.Generator) -> list[Item]:
    """A tenth of the first half's images come again, mixed into the last third."""
    items = [Item(k + 1, image, system) for k, (image, system) in enumerate(order)]
    num = max(1, round(REPEATED * len(items)))
    again = [items[int(at)] for at in rng.permutation(max(num, len(items) // 2))[:num]]
    begin = len(items) - len(items) // 3
    line: list[tuple[Item, bool]] = [(item, False) for item in items]
    for item in again:
        line.insert(int(rng.integers(begin, len(line) + 1)), (item, True))
    number_of = {item.number: k + 1 for k, (item, repeat) in enumerate(line) if not repeat}
    return [
        Item(k + 1, item.image, item.system, number_of[item.number] if repeat else None)
        for k, (item, repeat) in enumerate(line)
    ]


def _right(place: Mapping[int, Item], rating: Rating) -> bool:
    return bool(rating.answers["real"]) == (place[rating.item].system == REAL)


def _recognised(place: Mapping[int, Item], ratings: Sequence[Rating]) -> dict[str, object]:
    told = [rating for rating in ratings if "real" in rating.answers]
    found: dict[str, object] = {}
    for name, real in (("all", None), ("real images", True), ("synthetic images", False)):
        some = [one for one in told if real is None or (place[one.item].system == REAL) == real]
        if some:
            found[name] = share_interval(sum(_right(place, one) for one in some), len(some))._asdict()
    return found


def _over_images(place: Mapping[int, Item], ratings: Sequence[Rating], seed: int) -> dict[str, object]:
    """The share of right answers over all raters, with an interval over images; and by how sure they were."""
    told = [rating for rating in ratings if "real" in rating.answers]
    if not told:
        return {}
    groups = [str(rating.item) for rating in told]
    right = [float(_right(place, rating)) for rating in told]
    sure: dict[str, dict[str, float]] = {}
    for level in range(1, 6):
        some = [hit for hit, rating in zip(right, told, strict=True) if rating.answers.get("confidence") == level]
        if some:
            sure[str(level)] = {"answers": len(some), "right": float(np.mean(some))}
    return {
        "share": bootstrap_interval(right, seed=seed, groups=groups)._asdict(),
        "by confidence": sure,
        "answers": len(told),
    }


def _system(place: Mapping[int, Item], ratings: Sequence[Rating], name: str, seed: int) -> dict[str, object]:
    own = [rating for rating in ratings if place[rating.item].system == name]
    found: dict[str, object] = {"images": len({place[one.item].image for one in own}), "answers": len(own)}
    for answer in ("real", *_OF_IMAGES):
        some = [rating for rating in own if answer in rating.answers]
        if some:
            values = [float(rating.answers[answer]) for rating in some]
            interval = bootstrap_interval(values, seed=seed, groups=[str(rating.item) for rating in some])
            found["taken for real" if answer == "real" else answer] = interval._asdict()
    return found


def _within(place: Mapping[int, Item], ratings: Sequence[Rating]) -> dict[str, object]:
    """Quadratic weighted kappa of first and second answer (plain kappa for yes or no), and the share that is equal."""
    own = {rating.item: rating for rating in ratings}
    found: dict[str, object] = {}
    for answer in ("real", *_OF_IMAGES):
        pairs = []
        for number, item in place.items():
            twice = (own.get(number), own.get(item.repeats) if item.repeats else None)
            if twice[0] and twice[1] and all(one and answer in one.answers for one in twice):
                pairs.append((twice[1].answers[answer], twice[0].answers[answer]))
        if pairs:
            first, second = zip(*pairs, strict=True)
            kappa = weighted_kappa(first, second, weights="quadratic" if answer in SCALES else "none")
            equal = float(np.mean([a == b for a, b in pairs]))
            found[answer] = {"pairs": len(pairs), "kappa": _plain(kappa), "equal": equal}
    return found


def _between(ratings: Sequence[Rating], raters: Sequence[str]) -> dict[str, object]:
    """Krippendorff's alpha, and the mean of the weighted kappas of all pairs of raters."""
    if len(raters) < 2:
        return {}
    found: dict[str, object] = {}
    for answer in ("real", *_OF_IMAGES):
        by_item: dict[int, dict[str, int]] = defaultdict(dict)
        for rating in ratings:
            if answer in rating.answers:
                by_item[rating.item][rating.rater] = rating.answers[answer]
        shared = [values for values in by_item.values() if len(values) > 1]
        if not shared:
            continue
        ordered = answer in SCALES
        alpha = krippendorff_alpha(
            {item: list(values.values()) for item, values in by_item.items()},
            scale="ordinal" if ordered else "nominal",
        )
        kappas = []
        for a, one in enumerate(raters):
            for other in raters[a + 1 :]:
                both = [(values[one], values[other]) for values in shared if one in values and other in values]
                if both:
                    kappas.append(weighted_kappa(*zip(*both, strict=True), weights="quadratic" if ordered else "none"))
        kappas = [kappa for kappa in kappas if math.isfinite(kappa)]
        found[answer] = {
            "images": len(shared),
            "alpha": _plain(alpha),
            "mean kappa": float(np.mean(kappas)) if kappas else None,
        }
    return found


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def as_interval(found: Mapping[str, float]) -> Interval:
    """Back from JSON."""
    return Interval(found["mean"], found["low"], found["high"])
