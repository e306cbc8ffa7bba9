"""One HTML page without any other file: style, tables, figures. Every text that comes in is escaped here."""

import os
import secrets
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1b2430; --soft: #5b6776; --line: #dde2e8;
  --accent: #0b6e99; --band: #0b6e9926; }
@media (prefers-color-scheme: dark) { :root { --page: #12161b; --card: #1a2027; --ink: #e6eaef; --soft: #9aa7b5;
  --line: #303a45; --accent: #5cb8e0; --band: #5cb8e030; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 56px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 12px; }
h3 { font-size: 0.95rem; margin: 0 0 8px; overflow-wrap: anywhere; }
p { margin: 0 0 12px; max-width: 75ch; } .soft { color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 20px;
  margin-top: 20px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin-top: 20px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px; }
.card b { display: block; font-size: 1.75rem; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: 8px; }
div + p { margin-top: 14px; } section > :last-child { margin-bottom: 0; }
th, td { text-align: left; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; font-size: 0.86rem; white-space: nowrap; }
tbody th { font-weight: 500; }
tbody tr:last-child > * { border-bottom: 0; } .number { text-align: right; white-space: nowrap; }
.facts { table-layout: fixed; } .facts th { width: 15rem; color: var(--soft); } .facts td { overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 12px; }
.pair + h3, .facts + h3 { margin-top: 24px; } figure { margin: 0; }
figure img { width: 100%; display: block; border-radius: 6px; background: #000; }
figcaption { color: var(--soft); font-size: 0.86rem; margin-top: 4px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; color: var(--soft); font-size: 0.86rem;
  margin: 0 0 14px; padding: 0; }
.legend li { list-style: none; } .legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px;
  margin-right: 6px; vertical-align: -1px; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 11px; }
.wide { max-width: 780px; } .axis { stroke: var(--soft); } .grid { stroke: var(--line); } .band { fill: var(--band); }
.mean { stroke: var(--accent); stroke-width: 1.5; } .dot { fill: var(--accent); fill-opacity: 0.75; }
.bar { fill: var(--accent); fill-opacity: 0.75; } .line { fill: none; stroke: var(--accent); stroke-width: 1.75; }
.ramp { height: 10px; border-radius: 5px; margin-top: 6px; } .ends { display: flex; justify-content: space-between; }
footer { color: var(--soft); font-size: 0.86rem; margin-top: 24px; }
@media print { body { background: #fff; } section, .card, .pair { break-inside: avoid; } }
"""


class Cell(NamedTuple):
    """A table cell; `strong` sets it in bold."""

    text: str
    strong: bool = False


def document(title: str, subtitle: str, sections: Sequence[str]) -> str:
    """The whole page. `sections` is HTML; title and subtitle are text."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p></header>\n'
        + "\n".join(sections)
        + "\n<footer>Made by medtextdiff. For research; not a medical device.</footer>\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, *body: str) -> str:
    """A box with a heading (text) and what is in it (HTML)."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n" + "\n".join(body) + "\n</section>"


def cards(figures: Sequence[tuple[str, str, str]]) -> str:
    """Large figures: (name, value, small print)."""
    boxes = (
        f'<div class="card"><span class="soft">{escape(name)}</span><b>{escape(value)}</b>'
        f'<span class="soft">{escape(small)}</span></div>'
        for name, value, small in figures
    )
    return f'<div class="cards">{"".join(boxes)}</div>'


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str | Cell]], *, num_names: int = 1) -> str:
    """A table; the first column heads its row, columns after the first `num_names` are numbers."""

    def css(column: int) -> str:
        return "" if column < num_names else ' class="number"'

    names = "".join(f'<th scope="col"{css(column)}>{escape(name)}</th>' for column, name in enumerate(head))
    body = ""
    for row in rows:
        cells = [Cell(cell) if isinstance(cell, str) else cell for cell in row]
        texts = [f"<strong>{escape(c.text)}</strong>" if c.strong else escape(c.text) for c in cells]
        body += f'<tr><th scope="row">{texts[0]}</th>'
        body += "".join(f"<td{css(column)}>{text}</td>" for column, text in enumerate(texts[1:], 1)) + "</tr>\n"
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>\n<thead><tr>{names}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A two-column table of names and values."""
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n' for name, value in pairs)
    return f'<table class="facts">\n<tbody>{rows}</tbody></table>'


def figure(png: str, description: str, caption: str, extra: str = "") -> str:
    """A picture given as a `data:` address; `description` is for who cannot see it, `extra` is HTML."""
    return (
        f'<figure><img src="{escape(png)}" alt="{escape(description)}">'
        f"<figcaption>{escape(caption)}{extra}</figcaption></figure>"
    )


def legend(colours: Sequence[tuple[tuple[int, int, int], str]]) -> str:
    """What each colour of an overlay means."""
    items = (f'<li><i style="background:{css_colour(rgb)}"></i>{escape(name)}</li>' for rgb, name in colours)
    return f'<ul class="legend">{"".join(items)}</ul>'


def css_colour(rgb: tuple[int, int, int]) -> str:
    """The colour as `#rrggbb`."""
    return "#" + "".join(f"{channel:02x}" for channel in rgb)


def write_page(path: Path, page: str) -> None:
    """Write the page whole or not at all: a full disk leaves what was there."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        part.write_text(page, encoding="utf-8", errors="backslashreplace")  # a file name may be no UTF-8
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
