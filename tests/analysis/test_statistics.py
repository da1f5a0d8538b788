"""Check tests, intervals and power against scipy and against simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.analysis.made_runs import by_seed, measurement, row_verdict
from workflow.analysis.statistics import (
    Estimate,
    estimate,
    mean_interval,
    over_seeds,
    paired_difference,
    pool,
)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.floats(1e-4, 0.5))
def test_the_t_test_is_scipys(values: list[float], level: float) -> None:
    if np.std(values) > 1e-6:
        got, wanted = estimate(values), stats.ttest_1samp(values, 0)
        interval = wanted.confidence_interval(1 - level)
        assert got.p() == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)
        assert got.interval(level) == pytest.approx(tuple(interval), rel=1e-6, abs=1e-9)
        less = stats.ttest_1samp(values, 3, alternative="less").pvalue
        assert got.p_below(3) == pytest.approx(less, rel=1e-6, abs=1e-12)


def test_pooled_panels_without_a_common_seed_are_welchs_test() -> None:
    """The mean of means of x and y is half the difference of the means of x and −y."""
    draw = np.random.default_rng(3)
    x, y = draw.normal(1, 1, 5), draw.normal(2, 4, 9)
    got = pool([by_seed(x), by_seed(y, first_seed=5)], [0, 0])
    wanted = stats.ttest_ind(x, -y, equal_var=False)
    assert (got.n, got.df) == (14, pytest.approx(wanted.df))
    assert got.mean == pytest.approx((x.mean() + y.mean()) / 2)
    assert got.error**2 == pytest.approx((x.var(ddof=1) / 5 + y.var(ddof=1) / 9) / 4)
    assert got.p() == pytest.approx(wanted.pvalue)
    half = np.array(wanted.confidence_interval(0.99)) / 2
    assert got.interval(0.01) == pytest.approx(tuple(half))
    other = measurement(y, first_seed=5, smallest=0.7)
    row = row_verdict("1", measurement(x), other)
    assert (row.n, row.p, row.smallest) == (14, pytest.approx(wanted.pvalue), pytest.approx(0.6))


def test_pooled_panels_of_the_same_seeds_are_a_paired_test() -> None:
    draw = np.random.default_rng(4)
    x = draw.normal(1, 1, 9)
    y = x + draw.normal(1, 1, 9)
    got, wanted = pool([by_seed(x), by_seed(y)], [0, 0]), stats.ttest_1samp((x + y) / 2, 0)
    assert got.df == 8
    assert got.mean == pytest.approx((x + y).mean() / 2)
    assert got.p() == pytest.approx(wanted.pvalue)
    apart = pool([by_seed(x), by_seed(y, first_seed=9)], [0, 0])
    opposed = pool([by_seed(x), by_seed(-y)], [0, 0])
    assert opposed.error == pytest.approx(apart.error)  # no covariance narrows
    assert got.error > 1.1 * apart.error


def test_panels_that_share_some_seeds_have_the_degrees_of_freedom_of_the_smaller() -> None:
    """Of seeds 3 and 4 the small panel has 3 and 5, the large one 2 and 6: covariance 4."""
    small, large = [1.0, 2.0, 4.0, 3.0, 5.0], [2.0, 6.0, 1.0, 9.0, 4.0, 4.0, 7.0, 0.0, 3.0]
    panels = by_seed(small), by_seed(large, first_seed=3)
    variances = np.var(small, ddof=1) / 5, np.var(large, ddof=1) / 9
    for x, y in (panels, panels[::-1]):
        got = pool([x, y], [0, 0])
        assert (got.n, got.df, got.mean) == (14, 4, pytest.approx((3 + 4) / 2))
        assert got.error**2 == pytest.approx((sum(variances) + 2 * 4 * 2 / (5 * 9)) / 4)


def test_intervals_of_panels_that_share_some_seeds_hold() -> None:
    """In nine of ten experiments the interval covers the truth, which it does not if unpaired."""
    draw, covered, unpaired = np.random.default_rng(5), 0, 0
    for _ in range(1000):
        of_seed = draw.normal(size=16)
        x = by_seed(of_seed[:12] + draw.normal(0, 0.3, 12))
        y = by_seed(of_seed[4:] + draw.normal(0, 0.3, 12), first_seed=4)
        low, high = pool([x, y], [0, 0]).interval(0.1)
        covered += low < 0 < high
        low, high = pool([x, y.set_axis(range(12, 24))], [0, 0]).interval(0.1)
        unpaired += low < 0 < high
    assert 880 < covered < 950
    assert unpaired < 850


@pytest.mark.parametrize(("n", "level"), [(3, 0.05), (8, 0.025 / 7), (12, 0.025 / 18)])
def test_power_is_what_simulation_finds(n: int, level: float) -> None:
    draw, count = np.random.default_rng(n), 40_000
    found = Estimate(n, 0.0, 1 / n**0.5, n - 1)  # values of spread 1

    def bounds(mean: float) -> tuple[np.ndarray, np.ndarray]:
        values = draw.normal(mean, 1, (count, n))
        half = stats.sem(values, axis=1) * stats.t.isf(level / 2, n - 1)
        return values.mean(axis=1) - half, values.mean(axis=1) + half

    size = found.smallest_detectable(level)
    for effect, power in ((size, 0.9), (size / 2, found.power(size / 2, level))):
        low, high = bounds(effect)
        assert np.mean((low > 0) | (high < 0)) == pytest.approx(power, abs=0.01)
    low, high = bounds(0)
    assert np.mean(high < 0.8 * size) == pytest.approx(
        found.power_above(0.8 * size, level), abs=0.01
    )
    inside = np.mean((low > -size) & (high < size))
    assert inside == pytest.approx(found.power_inside(size, level), abs=0.01)


def test_equivalence_is_two_one_sided_tests() -> None:
    values = np.random.default_rng(1).normal(1.0, 0.02, 20)
    above = stats.ttest_1samp(values, 0.95, alternative="greater").pvalue
    below = stats.ttest_1samp(values, 1.05, alternative="less").pvalue
    assert estimate(values).p_inside(0.95, 1.05) == pytest.approx(max(above, below))


@given(st.lists(st.floats(0, 100), min_size=2, max_size=20))
def test_the_interval_is_scipys_t_interval(values: list[float]) -> None:
    got = mean_interval(pd.Series(values))
    assert got["n"] == len(values)
    if np.ptp(values) > 1e-6:
        wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert got["low"] == pytest.approx(wanted.low, rel=1e-9, abs=1e-9)
        assert got["high"] == pytest.approx(wanted.high, rel=1e-9, abs=1e-9)


def test_one_seed_has_no_interval() -> None:
    got = mean_interval(pd.Series([3.0]))
    assert got["mean"] == 3
    assert np.isnan(got["low"])
    assert np.isnan(got["high"])


def test_pairs_are_by_key_and_rows_without_partner_are_left_out() -> None:
    treated = pd.DataFrame({"seed": [1, 2, 3], "value": [5.0, 7.0, 9.0]})
    control = pd.DataFrame({"seed": [2, 1], "value": [1.0, 2.0]})
    difference = paired_difference(treated, control, ["seed"], "value")
    assert difference["value"].tolist() == [3.0, 6.0]


def test_a_seed_that_counts_twice_is_a_bug() -> None:
    table = pd.DataFrame({"seed": [1, 1], "h": [2, 2], "value": [1.0, 2.0]})
    with pytest.raises(AssertionError, match="twice"):
        over_seeds(table, ["h"], "value")
