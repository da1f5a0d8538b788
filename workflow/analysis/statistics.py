"""Means over seeds with their uncertainty."""

from __future__ import annotations

import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


def mean_interval(values: pd.Series[float]) -> pd.Series[float]:
    """n, mean and the Student-t interval (``low``, ``high``) of independent ``values``.

    The interval is NaN for a single value: one seed says nothing of the spread.
    """
    n, mean = len(values), values.mean()
    low = high = float("nan")
    if n > 1:
        half = stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
        low, high = mean - half, mean + half
    return pd.Series({"n": n, "mean": mean, "low": low, "high": high})


def over_seeds(table: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """``mean_interval`` of ``value`` in each group; asserts that a seed counts once per group."""
    assert not table.duplicated([*by, "seed"]).any(), f"a seed appears twice in a group of {by}"
    return table.groupby(by)[value].apply(mean_interval).unstack().reset_index()


def paired_difference(
    treated: pd.DataFrame, control: pd.DataFrame, on: list[str], value: str
) -> pd.DataFrame:
    """``treated`` with ``value`` minus that of the ``control`` row with the same ``on``.

    Rows without a partner are left out; asserts that no partner is ambiguous.
    """
    partners = control.set_index(on)[value]
    assert partners.index.is_unique, f"several control rows share one {on}"
    keys = pd.MultiIndex.from_frame(treated[on])
    difference = treated[value].to_numpy() - partners.reindex(keys).to_numpy()
    return treated.assign(**{value: difference}).dropna(subset=[value])
