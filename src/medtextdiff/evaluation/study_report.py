"""What a study with people found, as a page."""

from collections.abc import Mapping
from typing import Any

from medtextdiff.evaluation import pages
from medtextdiff.evaluation.study import as_interval

_NAMES = {"real": "Real or synthetic", "realism": "Realism", "adherence": "Adherence", "usable": "Usable"}


def page(title: str, found: Mapping[str, Any], meta: Mapping[str, str]) -> str:
    """The page for what `study.score` gave."""
    sections = [pages.cards(_cards(found)), pages.section("Images by system", _systems(found["systems"]))]
    sections.append(pages.section("Raters", _raters(found["raters"]), _confidence(found["recognised"])))
    if found["agreement between raters"]:
        sections.append(pages.section("Agreement between raters", _between(found["agreement between raters"])))
    sections.append(pages.section("How this was obtained", pages.facts(list(meta.items()))))
    return pages.document(title, "A blinded study; half of the images are real", sections)


def _cards(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    figures = [("Raters", str(len(found["raters"])), "")]
    if found["recognised"]:
        share = as_interval(found["recognised"]["share"])
        small = f"{100 * share.low:.0f} to {100 * share.high:.0f} %; 50 is guessing"
        figures.insert(0, ("Recognised", f"{100 * share.mean:.0f} %", small))
    return figures


def _systems(systems: Mapping[str, Any]) -> str:
    columns = ("taken for real", "realism", "adherence", "usable")
    used = [name for name in columns if any(name in one for one in systems.values())]
    rows = []
    for name, one in systems.items():
        cells = [_value(column, one.get(column)) for column in used]
        rows.append([name, str(one["images"]), str(one["answers"]), *cells])
    caption = "Means [95 % interval over images]. Taken for real and usable in percent, the others from 1 to 5."
    return pages.table(caption, ["System", "Images", "Answers", *(name.capitalize() for name in used)], rows)


def _value(column: str, interval: Mapping[str, float] | None) -> str:
    if interval is None:
        return "–"
    factor, digits = (100, 0) if column in ("taken for real", "usable") else (1, 2)
    mean, low, high = (factor * value for value in as_interval(interval))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _raters(raters: Mapping[str, Any]) -> str:
    rows = []
    for name, one in raters.items():
        shares = [one["recognised"].get(key) for key in ("all", "real images", "synthetic images")]
        cells = [_value("usable", share) for share in shares]
        within = "; ".join(
            f"{_NAMES[answer]} {_kappa(told['kappa'])} ({told['pairs']})"
            for answer, told in one["agreement with oneself"].items()
        )
        rows.append([name, f"{one['answered']} of {one['of']}", *cells, within or "–"])
    head = ["Rater", "Answered", "Right (%)", "Of real (%)", "Of synthetic (%)", "Kappa with oneself (pairs)"]
    return pages.table("Share recognised [95 % interval], and agreement on images that came twice.", head, rows)


def _confidence(recognised: Mapping[str, Any]) -> str:
    if not recognised.get("by confidence"):
        return ""
    rows = [
        [level, str(told["answers"]), f"{100 * told['right']:.0f}"]
        for level, told in recognised["by confidence"].items()
    ]
    return pages.table("By how sure raters were (1 guessing, 5 certain).", ["Sure", "Answers", "Right (%)"], rows)


def _between(found: Mapping[str, Any]) -> str:
    rows = [
        [_NAMES[answer], str(told["images"]), _kappa(told["alpha"]), _kappa(told["mean kappa"])]
        for answer, told in found.items()
    ]
    caption = (
        "1 is perfect, 0 is chance. Alpha is ordinal for ratings and nominal for yes or no; kappa has quadratic "
        "weights for ratings. – where all answers are equal."
    )
    return pages.table(caption, ["Answer", "Images", "Krippendorff's alpha", "Mean kappa of pairs"], rows)


def _kappa(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
