"""Say what claims.csv found, in a few lines of a terminal."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path


def verdict_lines(claims: Path) -> Iterator[str]:
    """Count the verdicts, then give a line for each primary claim."""
    with claims.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counts = Counter(row["verdict"] for row in rows)
    yield f"{len(rows)} claims: " + ", ".join(f"{n} {name}" for name, n in counts.most_common())
    primary = [row for row in rows if row["family"] == "primary"]
    width = max((len(row["claim"]) for row in primary), default=0)
    for row in primary:
        yield f"  {row['verdict']:12}  {row['claim']:{width}}  {row['says']}{_effect(row)}"
    yield f"All claims: {claims}"


def _effect(row: dict[str, str]) -> str:
    if not row["effect"]:
        return f" ({row['note']})" if row["note"] else ""
    effect, low, high = (
        f"{float(f'{float(row[name]):.2g}'):g}" for name in ("effect", "low", "high")
    )
    return f": {effect} [{low}, {high}] {row['unit']}".rstrip()
