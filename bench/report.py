"""Print each benchmark's latest record as a Markdown table: ``python -m bench.report [FILE]``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.measure import RECORDS, Spread, Target


def report(lines: Iterable[str]) -> str:
    """Tabulate the lines of a ``bench.jsonl``: figure, spread, target and verdict."""
    latest: dict[str, dict[str, Any]] = {}
    for line in lines:
        record = json.loads(line)
        latest[record["benchmark"]] = record
    rows = ["| benchmark | figure | measured | must be | |", "| --- | --- | --- | --- | --- |"]
    rows += [format_row(name, record) for name, record in latest.items()]
    return "\n".join(rows) + "\n"


def format_row(name: str, record: dict[str, Any]) -> str:
    target, verdict = "", ""
    if record["target"]:
        target = str(Target(**record["target"]))
        verdict = "reached" if record["met"] else "**missed**"
    figure = Spread(**record["figure"])
    return f"| {name} | {record['figure_is']} | {figure} | {target} | {verdict} |"


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    print(report(file.read_text("utf-8").splitlines()), end="")
