"""Tabulate what was measured on a GPU, the medians of each way to train."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any


def tables(lines: Iterable[str]) -> str:
    """Make a Markdown table of each unit; ``lines``: of a ``bench.jsonl``."""
    by_unit: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        record = json.loads(line)
        by_unit.setdefault(record["unit"], []).append(record)
    return "\n\n".join(_table(unit, records) for unit, records in by_unit.items())


def _table(unit: str, records: list[dict[str, Any]]) -> str:
    """List the variants' medians, and the figure that is made of them."""
    columns = list(dict.fromkeys(name for record in records for name in record["variants"]))
    rows = [[unit, *columns, records[0]["figure_is"]], ["---"] * (len(columns) + 2)]
    for record in records:
        values = [record["variants"].get(name) for name in columns]
        medians = [f"{value['median']:,.4g}" if value else "" for value in values]
        rows.append([record["benchmark"], *medians, f"{record['figure']['median']:,.4g}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
