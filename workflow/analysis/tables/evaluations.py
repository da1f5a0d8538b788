"""Select rows of a tidy table of evaluations, and describe which of its runs are incomplete."""

from __future__ import annotations

import pandas as pd

SETTINGS = ["first_local_steps", "peak_lr", "num_clients"]  # what tells the runs of a seed apart
LISTED = 3  # seeds of one H that are named


def last_evaluations(rows: pd.DataFrame) -> pd.DataFrame:
    """Select the last evaluation of each run."""
    return rows.loc[rows.groupby("run")["step"].idxmax()]


def has_diverged(rows: pd.DataFrame) -> pd.Series:
    """Mark evaluations of a diverged model; the row of a missing run is not one."""
    return rows["diverged"].eq(True)


def missing_or_diverged(table: pd.DataFrame) -> str:
    """Describe for a caption which runs have no evaluations and which diverged."""
    missing = _describe_runs("missing", table[table["step"].isna()], table)
    return "; ".join(
        filter(None, [missing, _describe_runs("diverged", table[has_diverged(table)], table)])
    )


def _describe_runs(what: str, rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """Describe the runs in ``rows``, which has one row for each of them."""
    if rows.empty:
        return ""
    runs, experiment = table["run"].nunique(), table["experiment"].iloc[0]
    if len(rows) == runs:
        return f"{what}: all {runs} runs of {experiment}"
    seeds = rows.groupby("first_local_steps")["seed"].nunique()
    many = seeds[seeds > LISTED]
    few = rows[~rows["first_local_steps"].isin(many.index)]
    of_seed = few.groupby("seed")["first_local_steps"].unique()
    parts = [f"H = {h}: {count} seeds" for h, count in many.items()]
    parts += [f"seed {seed}: H = {', '.join(map(str, sorted(h)))}" for seed, h in of_seed.items()]
    return f"{what}: {len(rows)} of {runs} runs of {experiment} ({'; '.join(parts)})"
