"""Write tables and figures as pages of the report: plain HTML, one file each."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from PIL import Image

from trainer.errors import UserError
from trainer.files.atomic import atomic, reading

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em; padding: 0;
       color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0 }
th, td { border-bottom: 1px solid #ddd; padding: .35em .7em; text-align: left; vertical-align: top }
th { border-bottom: 2px solid #888 }
td { font-variant-numeric: tabular-nums }
p { max-width: 60em; white-space: normal }
img { max-width: 100%; max-height: 80vh; object-fit: contain }
@media (max-width: 60em) { body { margin: 1em } table { display: block; overflow-x: auto } }
"""


def write_page(title: str, text: str, sections: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Write a page of paragraphs (``text``) and a table under each heading (``sections``)."""
    parts = [
        (f"<h2>{html.escape(heading)}</h2>\n" if heading else "")
        + table.to_html(index=False, border=0, na_rep="", float_format="{:.4g}".format)
        for heading, table in sections.items()
    ]
    paragraphs = "".join(f"<p>{html.escape(p)}</p>" for p in text.split("\n\n") if p)
    _write(title, f"<h1>{html.escape(title)}</h1>{paragraphs}{''.join(parts)}", path)


def write_figure_page(image: Path, caption: str, path: Path) -> None:
    """Write a page with a PNG, as large as the window allows, above its caption.

    The report shows a bare image in its own size and cuts off the top of a tall one.
    Raises UserError for an image that is missing or damaged.
    """
    with reading(image, "make the figure again"):
        png = image.read_bytes()
    try:
        Image.open(io.BytesIO(png), formats=["PNG"]).verify()
    except Exception as error:  # Pillow raises many types for a file that is not an image
        raise UserError(f"{image}: damaged ({error}); make the figure again") from None
    content = base64.b64encode(png).decode("ascii")
    shown = f'<img alt="{html.escape(caption)}" src="data:image/png;base64,{content}">'
    _write(image.stem, f"{shown}<p>{html.escape(caption)}</p>", path)


def _write(title: str, body: str, path: Path) -> None:
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style>{body}</html>\n"
    )
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
