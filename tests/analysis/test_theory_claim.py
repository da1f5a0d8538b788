"""The claim about the mechanism: verdicts of simulations made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workflow.analysis.claims.theory_claim import TheoryRow


@pytest.mark.parametrize(
    ("factor", "spread", "expected"),
    [(1.01, 0.01, "supported"), (1.2, 0.01, "contradicted"), (1.0, 0.4, "inconclusive")],
)
def test_the_mechanism_is_judged_within_its_margin(
    factor: float, spread: float, expected: str
) -> None:
    draw = np.random.default_rng(2)
    rows = [
        {
            "model": "valley",
            "quantity": "drift factor",
            "num_clients": k,
            "local_steps": h,
            "measured": k * (1 if h < 10 else factor) * (1 + spread * draw.normal()),
            "slow_sde": k * (3.0 if h < 10 else 1.0),
        }
        for k in (2, 4)
        for h in (1, 20, 100)
        for _ in range(20)
    ]
    row = TheoryRow(name="7", says="so", family="panels", level=0.025 / 18)
    line = row.judge(pd.DataFrame(rows))
    assert line.verdict == expected
    assert line.low is not None and line.high is not None and line.p_corrected is not None
    assert (line.high < 0.05) == (expected == "supported") == (line.p_corrected < 0.05)
    assert (line.low > 0.05) == (expected == "contradicted")


@pytest.mark.parametrize(("low", "expected"), [(0.049, "inconclusive"), (0.051, "contradicted")])
def test_one_of_many_configurations_contradicts_only_at_its_part_of_the_level(
    low: float, expected: str
) -> None:
    """One of ten deviates: beyond the margin at the level, from ``low`` on at a tenth of it."""
    level, n = 0.05, 20
    values = stats.norm.ppf((np.arange(n) + 0.5) / n) / 100
    error = float(stats.sem(values))
    factor = 1 + low + error * stats.t.isf(level / 10 / 2, n - 1)
    rows = [
        {
            "model": "circle",
            "quantity": "drift factor",
            "num_clients": k,
            "local_steps": h,
            "measured": 2 * ((factor if (k, h) == (4, 20) else 1) + value),
            "slow_sde": 2.0,
        }
        for k in (2, 4)
        for h in (10, 20, 30, 40, 50)
        for value in values
    ]
    line = TheoryRow(name="7", says="so", family="panels", level=level).judge(pd.DataFrame(rows))
    assert line.low == pytest.approx(factor - 1 - error * stats.t.isf(level / 2, n - 1))
    assert line.low > 0.05
    assert (line.verdict, line.note) == (expected, "largest for circle, K = 4, H = 20")
