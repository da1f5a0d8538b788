"""Compute means over seeds with their uncertainty, and test them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
POWER = 0.8


@dataclass(frozen=True)
class TTestResult:
    """Hold a two-sided Student's t-test of a mean against zero, with its 95 % interval.

    ``smallest_detectable``: the mean that ``n`` values of this spread detect with 80 % power.
    """

    n: int
    mean: float
    low: float
    high: float
    p: float
    smallest_detectable: float


def t_test(values: ArrayLike) -> TTestResult:
    """Test the mean of two or more independent ``values``; without spread, p is 0 (1 at mean 0)."""
    described = DescrStatsW(values)
    n, mean, spread = int(described.nobs), float(described.mean), float(described.std_ddof(1))
    if spread == 0:
        return TTestResult(n, mean, mean, mean, 0.0 if mean else 1.0, 0.0)
    low, high = described.tconfint_mean(ALPHA)
    _, p, _ = described.ttest_mean(0.0)
    size = TTestPower().solve_power(nobs=n, alpha=ALPHA, power=POWER)
    return TTestResult(n, mean, float(low), float(high), float(p), float(size) * spread)


def equivalence(values: ArrayLike, low: float, high: float) -> float:
    """Return p of two one-sided t-tests that the mean is in (low, high) (Schuirmann 1987)."""
    p, _, _ = DescrStatsW(values).ttost_mean(low, high)
    return float(p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number (Holm 1979), in the same order."""
    if not p_values:
        return []
    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def mean_interval(values: pd.Series[float]) -> pd.Series[float]:
    """Return n, mean and the Student-t interval (``low``, ``high``) of independent ``values``.

    The interval is NaN for a single value, which has no spread.
    """
    n, mean = len(values), values.mean()
    low = high = float("nan")
    if n > 1:
        half = stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
        low, high = mean - half, mean + half
    return pd.Series({"n": n, "mean": mean, "low": low, "high": high})


def over_seeds(table: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """Compute ``mean_interval`` of ``value`` per group; assert that no group repeats a seed."""
    assert not table.duplicated([*by, "seed"]).any(), f"a seed appears twice in a group of {by}"
    return table.groupby(by)[value].apply(mean_interval).unstack().reset_index()


def paired_difference(
    treated: pd.DataFrame, control: pd.DataFrame, on: list[str], value: str
) -> pd.DataFrame:
    """Subtract from each ``treated`` row's ``value`` that of the ``control`` row with equal ``on``.

    Rows without a partner are left out; asserts that no partner is ambiguous.
    """
    partners = control.set_index(on)[value]
    assert partners.index.is_unique, f"several control rows share one {on}"
    keys = pd.MultiIndex.from_frame(treated[on])
    difference = treated[value].to_numpy() - partners.reindex(keys).to_numpy()
    return treated.assign(**{value: difference}).dropna(subset=[value])
