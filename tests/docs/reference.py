"""Numbers of the reference results, and the pages' text, in the form in which pages say them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from scipy import stats

from tests.commands import ROOT

REFERENCE = ROOT / "results/reference"


def page(name: str) -> str:
    return " ".join((ROOT / name).read_text("utf-8").split())


def ends(scale: str, experiment: str, value: str) -> pd.DataFrame:
    """Return ``value`` after each run's last step: a row per seed, a column per H."""
    table = pd.read_csv(REFERENCE / scale / f"tables/{experiment}.csv")
    return last(table, value, ["phase 2"], "first_local_steps")


def last(table: pd.DataFrame, value: str, roles: Sequence[str], column: str) -> pd.DataFrame:
    """Return ``value`` at each run's last step in ``roles``: a row per seed."""
    rows = table[table["role"].isin(roles)]
    rows = rows.loc[rows.groupby("run")["step"].idxmax()]
    return rows.pivot(index="seed", columns=column, values=value)


def with_interval(values: pd.Series[float], digits: int = 2) -> str:
    """Write the mean of ``values`` and its Student-t interval at 95 %."""
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return f"{values.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
