"""Compute means over seeds with their uncertainty, and test them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

CONFIDENCE = 0.95
POWER = 0.9
SPREADS = 4000  # points of the integral over the spread of a sample


@dataclass(frozen=True)
class Estimate:
    """Hold a mean of ``n`` values, its standard error and that error's degrees of freedom.

    ``level`` is the error rate of a two-sided decision: its interval has confidence 1 − level.
    """

    n: int
    mean: float
    error: float
    df: float

    def interval(self, level: float) -> tuple[float, float]:
        """Return the Student-t interval at confidence 1 − ``level``."""
        half = self.error * self._quantile(level)
        return self.mean - half, self.mean + half

    def p(self, value: float = 0.0) -> float:
        """Return p of the two-sided t-test that the mean is ``value``."""
        return float(2 * special.stdtr(self.df, -abs(self.mean - value) / self.error))

    def p_below(self, bound: float) -> float:
        """Return p of the one-sided t-test that the mean is at least ``bound``."""
        return float(special.stdtr(self.df, (self.mean - bound) / self.error))

    def p_inside(self, low: float, high: float) -> float:
        """Return p of two one-sided t-tests that the mean is in (low, high) (Schuirmann 1987)."""
        return max(self.p_below(high), 1 - self.p_below(low))

    def power(self, effect: float, level: float) -> float:
        """Return the probability that a mean of ``effect`` is told from 0, on either side."""
        return self.power_above(effect, level) + self.power_above(-effect, level)

    def power_above(self, effect: float, level: float) -> float:
        """Return the probability that the interval is above 0 when the mean is ``effect``."""
        found = stats.nct.sf(self._quantile(level), self.df, effect / self.error)
        return float(np.nan_to_num(found))  # NaN only far out in the wrong tail

    def power_inside(self, margin: float, level: float) -> float:
        """Return the probability that a mean of 0 is found within ± ``margin``."""
        ranks = (np.arange(SPREADS) + 0.5) / SPREADS
        spread = np.sqrt(stats.chi2.ppf(ranks, self.df) / self.df)
        room = margin / self.error - self._quantile(level) * spread
        return float(np.mean(np.maximum(0, 2 * stats.norm.cdf(room) - 1)))

    def smallest_detectable(self, level: float) -> float:
        """Return the mean that is told from 0 with probability ``POWER``."""
        upper = self.error
        while self.power(upper, level) < POWER:
            upper *= 2
        found = optimize.brentq(lambda effect: self.power(effect, level) - POWER, 0, upper)
        return float(found)

    def _quantile(self, level: float) -> float:
        return -float(special.stdtrit(self.df, level / 2))


def estimate(values: ArrayLike, least_spread: float = 0.0) -> Estimate:
    """Estimate the mean of two or more independent ``values``.

    Their standard deviation counts as ``least_spread`` where it is smaller: equal values of a
    measure that comes in steps are no proof that it has no spread.
    """
    array = np.asarray(values, float)
    n = len(array)
    spread = max(float(array.std(ddof=1)), least_spread)
    return Estimate(n, float(array.mean()), spread / n**0.5, n - 1)


def pool(panels: Sequence[pd.Series[float]], least_spreads: Sequence[float]) -> Estimate:
    """Estimate the mean of the ``panels``' means; a panel has a value per seed.

    Panels without a common seed are independent: degrees of freedom by Welch and Satterthwaite.
    Those with common seeds may depend on each other: equal networks begin with the same weights,
    and subsets of equal size have the same images. A positive covariance of their means then
    counts, a negative one does not, and the degrees of freedom are those of the smallest panel.
    """
    count = len(panels)
    found = [estimate(panel, least) for panel, least in zip(panels, least_spreads, strict=True)]
    if count == 1:
        return found[0]
    squares = [each.error**2 for each in found]
    df = sum(squares) ** 2 / sum(
        square**2 / each.df for square, each in zip(squares, found, strict=True)
    )
    square = sum(squares)
    for one, other in combinations(panels, 2):
        common = one.index.intersection(other.index)
        if len(common):
            df = min(each.df for each in found)
        if len(common) > 1:
            shared = float(np.cov(one[common], other[common])[0, 1])
            square += 2 * max(0.0, shared * len(common) / (len(one) * len(other)))
    mean = sum(each.mean for each in found) / count
    return Estimate(sum(each.n for each in found), mean, square**0.5 / count, df)


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
