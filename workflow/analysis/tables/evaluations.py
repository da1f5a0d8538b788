"""Select rows of a tidy table of evaluations, and describe which of its runs are incomplete."""

from __future__ import annotations

import pandas as pd

SETTINGS = ["first_local_steps", "peak_lr", "num_clients"]  # what tells the runs of a seed apart


def at_the_end(rows: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of each run."""
    return rows.loc[rows.groupby("run")["step"].idxmax()]


def has_diverged(rows: pd.DataFrame) -> pd.Series:
    """Which evaluations are those of a model that diverged; a missing run's is none."""
    return rows["diverged"].eq(True)


def shortcomings(table: pd.DataFrame) -> str:
    """Which runs ``table`` has no evaluations of, and which diverged, for a caption."""
    missing = _in_words("missing", table[table["step"].isna()], table)
    return "; ".join(
        filter(None, [missing, _in_words("diverged", table[has_diverged(table)], table)])
    )


def _in_words(what: str, rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """``rows`` has one line of each run that this is said of."""
    if rows.empty:
        return ""
    runs, experiment = table["run"].nunique(), table["experiment"].iloc[0]
    if len(rows) == runs:
        return f"{what}: all {runs} runs of {experiment}"
    of_seed = rows.groupby("seed")["first_local_steps"].unique()
    parts = [f"seed {seed}: H = {', '.join(map(str, sorted(h)))}" for seed, h in of_seed.items()]
    return f"{what}: {len(rows)} of {runs} runs of {experiment} ({'; '.join(parts)})"
