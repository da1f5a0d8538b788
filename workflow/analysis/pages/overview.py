"""Write the report's first page: what was found, in counts, a picture and an interval per claim."""

from __future__ import annotations

import base64
import html
import math
from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from trainer.files.atomic import atomic, reading

WIDTH, HEIGHT = 320, 22  # of an interval's drawing
# Marks differ in shape, so that they are told apart without colour.
MARKS = {
    "supported": '<circle cx="{x}" cy="11" r="4" fill="#14507a"/>',
    "contradicted": '<path d="M{x} 5.5 l5.5 5.5 l-5.5 5.5 l-5.5 -5.5 z" fill="#a33b00"/>',
    "no effect": '<path d="M{x} 7 m-4 0 h8 v8 h-8 z" fill="#555"/>',
    "inconclusive": '<circle cx="{x}" cy="11" r="3.5" fill="#fff" stroke="#333" stroke-width="2"/>',
}
VERDICTS = (*MARKS, "not judged")
# The report of Snakemake puts this page beside the graph of its rules, in a narrow column. There
# and in a file of its own, the page's rules hold for what carries its class.
STYLE = """
.found { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 0 auto;
         padding: 1rem; box-sizing: border-box }
.found h1, .found h2, .found b, .found th { font-weight: 700 }
.found h1 { font-size: 1.5rem; margin: 0 0 .5rem }
.found h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem }
.found p { max-width: 60em; margin: .5rem 0 }
.found a { color: #14507a; text-decoration: underline }
.found .counts { display: flex; flex-wrap: wrap; gap: .6rem; padding: 0; margin: 1rem 0 }
.found .counts li { list-style: none; border: 1px solid #888; padding: .3rem .9rem; margin: 0 }
.found .counts b { display: block; font-size: 1.6rem; line-height: 1.2 }
.found img { max-width: 100%; max-height: 32rem; height: auto }
.found table { border-collapse: collapse; width: 100% }
.found th, .found td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: left;
         vertical-align: middle }
.found tr.primary { font-weight: 600 } .found tr.panels td:first-child { padding-left: 1.4rem }
.found svg { display: block; width: 320px; height: auto }
.found svg text { font: 10px system-ui, sans-serif; fill: #444; text-anchor: middle }
.found .numbers { font-variant-numeric: tabular-nums }
div:has(> .prose .found), div:has(> div > .prose .found) { display: block; align-self: flex-start;
         width: 100% }
.prose:has(.found) { max-width: none } #app:has(.found) #rulegraph { display: none }
@media (max-width: 60rem) {
  .found table, .found tbody, .found thead, .found tr, .found td { display: block }
  .found th { display: none } .found th.axis { display: block; border: 0; font-weight: 400 }
  .found tr { border-bottom: 1px solid #ddd; padding: .5rem 0 }
  .found td, .found tr.panels td:first-child { border: 0; padding: .1rem 0 }
  .found td:nth-child(n+4) { display: inline-block; margin-right: 1rem }
  .found svg { max-width: 100% }
  #app:has(.found) > div { display: block; height: auto }
  #app:has(.found) nav { width: 100%; height: auto }
}
"""


def write_overview(
    claims: pd.DataFrame,
    figures: Mapping[str, str],
    image: Path,
    caption: str,
    out: Path,
    *,
    links_runs: bool,
) -> None:
    """Write ``out`` beside claims.html, pages/<figure>.html and runs.html, which it links to.

    Given tables come without runs.html. ``figures`` maps experiments to the figure that shows
    them. Raises UserError without ``image``.
    """
    with reading(image, "make the figure again"):
        png = base64.b64encode(image.read_bytes()).decode("ascii")
    figure = image.stem
    rows = claims.to_dict("records")
    limit = axis_limit(rows)
    title = f"What was found at the scale {out.parent.name}"
    counts = Counter(str(row["verdict"]) for row in rows)
    tiles = "".join(f"<li><b>{counts[v]}</b>{v}</li>" for v in VERDICTS if counts[v])
    settings = _link("settings, versions and times of all runs", "runs.html", out.parent)
    lines = "".join(_row(row, figures, limit, out.parent) for row in rows)
    body = f"""<style>{STYLE}</style><div class="found not-prose">
<h1>{html.escape(title)}</h1>
<p>“Why (and When) does Local SGD Generalize Better than SGD?” (Gu, Lyu, Huang, Arora, ICLR 2023,
<a href="https://arxiv.org/abs/2303.01215">arXiv 2303.01215</a>), reproduced. The verdicts on
{len(rows)} claims:</p>
<ul class="counts">{tiles}</ul>
<p><img alt="{html.escape(caption)}" src="data:image/png;base64,{png}"></p>
<p>{html.escape(caption)} {_link("The figure", f"pages/{figure}.html", out.parent)} ·
{_link("all numbers of the claims, and the rule", "claims.html", out.parent)}
{f"· {settings}" * links_runs}</p>
<h2>Claim by claim</h2>
<p>Each interval holds with the corrected confidence that decides the verdict, and is drawn in units
of its claim's own smallest effect of interest, so that all rows share one axis: within the shaded
band, from −1 to 1, an effect is too small to matter; the axis is linear there and logarithmic
further out. An interval within the band means no effect; else a gain is supported right of 0. No
gain is supported left of the band's right edge, an equivalence within the band. Main claims are
bold, their parts indented. ● supported, ◆ contradicted, ■ no effect, ○ inconclusive.</p>
<table><thead><tr><th>claim</th><th class="axis">{_axis(limit)}</th><th>effect [interval]</th>
<th>verdict</th><th>figure</th></tr></thead><tbody>{lines}</tbody></table></div>"""
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{html.escape(title)}</title>{body}</html>\n'
    )
    with atomic(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def axis_limit(rows: list[dict[Hashable, Any]]) -> float:
    """Return a round number of smallest effects within which all intervals lie."""
    ends = [
        abs(row[end]) / row["smallest"]
        for row in rows
        for end in ("low", "high")
        if not pd.isna(row["effect"])
    ]
    largest = max([10.0, *ends])
    power = 10 ** math.floor(math.log10(largest))
    return float(next(power * step for step in (1, 2, 5, 10) if power * step >= largest))


def position(effects: float, limit: float) -> float:
    """Place a number of smallest effects on the drawing: asinh is linear near 0."""
    return round(WIDTH / 2 + (WIDTH / 2 - 12) * math.asinh(effects) / math.asinh(limit), 1)


def _ticks(limit: float) -> list[float]:
    powers = [float(10**n) for n in range(math.floor(math.log10(limit)) + 1)]
    return [*(-power for power in reversed(powers)), 0.0, *powers]


def _axis(limit: float) -> str:
    labels = "".join(
        f'<text x="{position(tick, limit)}" y="26">{f"{tick:g}".replace("-", "−")}</text>'
        for tick in _ticks(limit)
    )
    return _drawing(
        f'<text x="{WIDTH / 2}" y="11">effect ÷ smallest effect of interest</text>{labels}', 30
    )


def _interval(row: Mapping[Hashable, Any], limit: float) -> str:
    if pd.isna(row["effect"]):
        return ""
    low, at, high = (
        position(row[key] / row["smallest"], limit) for key in ("low", "effect", "high")
    )
    left, right = position(-1, limit), position(1, limit)
    grid = "".join(
        f'<path d="M{position(tick, limit)} 0 v{HEIGHT}" stroke="{colour}"/>'
        for tick in _ticks(limit)
        for colour in ["#ccc" if tick else "#222"]
    )
    return _drawing(
        f'<rect x="{left}" width="{right - left:.1f}" height="{HEIGHT}" fill="#e4e4e4"/>{grid}'
        f'<path class="interval" d="M{low} 11 H{high}" stroke="#222" stroke-width="2"/>'
        + MARKS[row["verdict"]].format(x=at),
        HEIGHT,
    )


def _drawing(content: str, height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" aria-hidden="true">{content}</svg>'


def _row(
    row: Mapping[Hashable, Any], figures: Mapping[str, str], limit: float, results: Path
) -> str:
    names = dict.fromkeys(figures[t] for t in str(row["target"]).split() if t in figures)
    links = " ".join(_link(name, f"pages/{name}.html", results) for name in names)
    if pd.isna(row["effect"]):
        numbers = "" if pd.isna(row["note"]) else html.escape(str(row["note"]))
    else:
        unit = "" if pd.isna(row["unit"]) else f" {row['unit']}"
        numbers = f"{row['effect']:.3g} [{row['low']:.3g}, {row['high']:.3g}]{unit}"
    says = html.escape(f"{row['claim']}. {row['says']}")
    return (
        f'<tr class="{html.escape(row["family"])}"><td>{says}</td><td>{_interval(row, limit)}</td>'
        f'<td class="numbers">{numbers}</td><td>{row["verdict"]}</td><td>{links}</td></tr>\n'
    )


def _link(words: str, page: str, results: Path) -> str:
    """Link to another page: of the folder or, inside Snakemake's report, of that."""
    entry = f"{results.as_posix()}/{page}"
    # On a narrow screen the report's menu would leave no room for the page.
    inside = (
        f"if (typeof results === 'object' && results['{entry}']) {{ app.setView({{content: 'html', "
        f"contentPath: results['{entry}'].data_uri, resultPath: '{entry}', "
        "hideNavbar: innerWidth < 960}); return false }"
    )
    return f'<a href="{page}" onclick="{html.escape(inside)}">{html.escape(words)}</a>'
