"""Find what Snakemake's report would lack; its own error does not say what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from workflow.project import refuse


def require_pages(files: Iterable[str]) -> None:
    """Refuse a report that this call of Snakemake asks for before its pages are made."""
    if page := missing_page(sys.argv[1:], files):
        refuse(f"--report: {page} is not made yet; run `snakemake all` first")


def missing_page(words: Sequence[str], files: Iterable[str]) -> str | None:
    """Name the first of the report's ``files`` that is not made, if ``words`` ask for a report.

    ``words`` are those of Snakemake's command line. A report of named targets needs no page.
    """
    if not any(word.startswith("--report") for word in words):
        return None
    from snakemake.cli import get_argument_parser

    given, _ = get_argument_parser().parse_known_args(words)
    if not given.report or not set(given.targets) <= {"all"}:
        return None
    pages = (file for file in files if file.endswith(".html"))
    return next((page for page in pages if not Path(page).exists()), None)
