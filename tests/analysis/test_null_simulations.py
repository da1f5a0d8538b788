"""At most one table of twenty has any false verdict, simulated with the code that judges.

Worst cases: every row at the edge of what its verdict denies. Without any effect a difference is
false; with effects of exactly s, ``no effect``, or the opposite, is (of 2d, which says that a gain
is below s, ``contradicted`` and ``supported``). With half of s, only ``contradicted`` is. Simulated
factors are at their margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.analysis.null_tables import (
    Effect,
    half_of_the_smallest,
    in_groups,
    measured,
    no_effect,
    smallest_effect,
    theory,
)
from workflow.analysis.claims import judge
from workflow.analysis.claims.measure import Measurement
from workflow.analysis.claims.rows import rows_of
from workflow.analysis.claims.theory_claim import TheoryRow
from workflow.analysis.claims.verdict import Row
from workflow.analysis.statistics import Estimate
from workflow.claims import ERROR_RATE
from workflow.paper import paper

ROWS = rows_of(paper())

DIFFERENT = {"supported", "contradicted"}
FALSE = {
    no_effect: DIFFERENT,
    half_of_the_smallest: {"contradicted"},
    smallest_effect: {"no effect", "contradicted"},
}
FALSE_OF_ROW = {
    no_effect: {"2d": {"contradicted"}, "7, factor": DIFFERENT},
    half_of_the_smallest: {"7, factor": DIFFERENT},
    smallest_effect: {"2d": DIFFERENT, "7, factor": DIFFERENT},
}
SPREADS = (0.05, 0.3, 0.8)  # points; with 0.05, most differences are 0 or one image


@pytest.fixture(autouse=True)
def without_power(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what decides nothing and takes most of the time."""
    for name in ("power", "power_above", "power_inside", "smallest_detectable"):
        monkeypatch.setattr(Estimate, name, lambda *_: 0.0)


def count_false(
    n: int,
    spread: float,
    effect: Effect,
    tables: int,
    least_spread: float | None = None,
    rows: Sequence[Row | TheoryRow] = ROWS,
) -> int:
    """Count the tables, of ``tables``, with any false verdict."""
    draw = np.random.default_rng([n, int(100 * spread)])
    whole = measured(draw, n * tables, spread, effect)
    if least_spread is not None:
        whole = {name: replace(each, least_spread=least_spread) for name, each in whole.items()}
    return sum(is_false(group, effect, draw, rows) for group in in_groups(whole, n))


def is_false(
    group: dict[str, Measurement],
    effect: Effect,
    draw: np.random.Generator,
    rows: Sequence[Row | TheoryRow],
) -> bool:
    n = len(group["1a"].values)
    lines = judge.judge_measurements(rows, group, theory(draw, n))
    assert len(lines) == 27
    false = FALSE_OF_ROW[effect]
    return any(line.verdict in false.get(line.claim, FALSE[effect]) for line in lines)


def bound(tables: int) -> float:
    """Return a count that 5 % false tables exceed once in a thousand tests."""
    return float(stats.binom.ppf(0.999, tables, 0.05))


@pytest.mark.parametrize("effect", FALSE)
@pytest.mark.parametrize(("n", "spread"), [(2, 0.05), (2, 0.8), (5, 0.05), (5, 0.3), (12, 0.05)])
def test_false_verdicts(n: int, spread: float, effect: Effect) -> None:
    assert count_false(n, spread, effect, 100) <= bound(100)


@pytest.mark.exhaustive
@pytest.mark.parametrize("effect", FALSE)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("n", range(2, 13))
def test_false_verdicts_for_every_number_of_seeds(n: int, spread: float, effect: Effect) -> None:
    assert count_false(n, spread, effect, 1000) <= bound(1000)


def test_equal_accuracies_taken_for_certain_would_fail() -> None:
    """Without the resolution as the least spread, equal numbers give p = 0."""
    for effect, spread, tables in ((no_effect, 0.8, 150), (smallest_effect, 0.05, 50)):
        assert count_false(2, spread, effect, tables, least_spread=1e-12) > bound(tables)


def test_uncorrected_intervals_would_fail() -> None:
    rows = [replace(row, level=ERROR_RATE) for row in ROWS]
    assert count_false(5, 0.3, no_effect, 50, rows=rows) > bound(50)
