"""Tables as pages of the report: plain HTML in one file."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from trainer.files import atomic

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em; padding: 0;
       color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0 }
th, td { border-bottom: 1px solid #ddd; padding: .35em .7em; text-align: left; vertical-align: top }
th { border-bottom: 2px solid #888 }
td { font-variant-numeric: tabular-nums }
p { max-width: 60em; white-space: normal }
"""


def write_page(title: str, text: str, sections: Mapping[str, pd.DataFrame], path: Path) -> None:
    """``text``: paragraphs. ``sections``: a table under each heading."""
    parts = [
        (f"<h2>{html.escape(heading)}</h2>\n" if heading else "")
        + table.to_html(index=False, border=0, na_rep="", float_format="{:.4g}".format)
        for heading, table in sections.items()
    ]
    paragraphs = "".join(f"<p>{html.escape(p)}</p>" for p in text.split("\n\n") if p)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>{paragraphs}{''.join(parts)}</html>\n"
    )
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
