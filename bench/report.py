"""``python -m bench.report [FILE]``: the latest record of each benchmark as a table in Markdown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.measure import RECORDS, Spread, Target


def report(lines: Iterable[str]) -> str:
    """Of the lines of a ``bench.jsonl``: figure, median [lowest, highest], target, verdict."""
    latest: dict[str, dict[str, Any]] = {}
    for line in lines:
        record = json.loads(line)
        latest[record["benchmark"]] = record
    rows = ["| benchmark | figure | measured | must be | |", "| --- | --- | --- | --- | --- |"]
    rows += [row(name, record) for name, record in latest.items()]
    return "\n".join(rows) + "\n"


def row(name: str, record: dict[str, Any]) -> str:
    target, verdict = "", ""
    if record["target"]:
        target = str(Target(**record["target"]))
        verdict = "reached" if record["met"] else "**missed**"
    figure = Spread(**record["figure"])
    return f"| {name} | {record['figure_is']} | {figure} | {target} | {verdict} |"


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    print(report(file.read_text("utf-8").splitlines()), end="")
