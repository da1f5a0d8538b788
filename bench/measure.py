"""Time interleaved variants, so that the machine's other load affects all of them alike."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.tracking.provenance import provenance

RESULTS = Path("results")
RECORDS = RESULTS / "bench.jsonl"
PLOTS = RESULTS / "bench"


@dataclass(frozen=True)
class Spread:
    """Hold the median of some repetitions, with the lowest and the highest."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        return f"{self.median:,.4g} [{self.low:,.4g}, {self.high:,.4g}]"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Require a figure to be at least, or at most, ``bound``."""

    bound: float
    at_most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """Hold one line of a ``bench.jsonl``.

    ``variants``: the measurements of each, in ``unit``. ``figure``: the number that ``target``
    bounds, described by ``figure_is``; a ratio is taken within each repetition. ``settings``: what
    else one must know to repeat the benchmark.
    """

    benchmark: str
    unit: str
    variants: Mapping[str, Spread]
    figure_is: str
    figure: Spread
    target: Target | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def measure_interleaved(
    variants: Mapping[str, Callable[[], float]], repetitions: int
) -> dict[str, list[float]]:
    """Measure each variant ``repetitions`` times, after one warm-up that does not count."""
    values: dict[str, list[float]] = {name: [] for name in variants}
    for measure in variants.values():
        measure()
    for _ in range(repetitions):
        for name, measure in variants.items():
            values[name].append(measure())
    return values


def ratios(values: Mapping[str, Sequence[float]], a: str, b: str) -> Spread:
    """Divide ``a`` by ``b``, repetition by repetition."""
    return Spread.of([x / y for x, y in zip(values[a], values[b], strict=True)])


def spreads(values: Mapping[str, Sequence[float]]) -> dict[str, Spread]:
    return {name: Spread.of(some) for name, some in values.items()}


def write_records(records: Sequence[Record], path: Path = RECORDS) -> None:
    """Print the records as a table and append each to ``path``."""
    where = provenance(0.0, 1, 1, "cpu", "")
    about = {key: where[key] for key in ("git_commit", "git_dirty", "versions", "machine")}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            line = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                **asdict(record),
                "met": record.target.met(record.figure.median) if record.target else None,
                "load": os.getloadavg()[0],
                **about,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    for record in records:
        print(format_record(record), flush=True)


def format_record(record: Record) -> str:
    """Format a record for reading: each variant's spread, the figure, its target."""
    width = max(map(len, [*record.variants, record.figure_is]))
    lines = [f"{record.benchmark} ({platform.processor() or platform.machine()})"]
    lines += [f"  {name:<{width}}  {s} {record.unit}" for name, s in record.variants.items()]
    verdict = ""
    if record.target:
        verdict = f", must be {record.target}: " + (
            "reached" if record.target.met(record.figure.median) else "MISSED"
        )
    lines.append(f"  {record.figure_is:<{width}}  {record.figure}{verdict}")
    return "\n".join(lines)
