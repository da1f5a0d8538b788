"""Select rows of a tidy table of evaluations, and describe which of its runs are incomplete."""

from __future__ import annotations

import pandas as pd

SETTINGS = ["first_local_steps", "peak_lr", "num_clients"]  # what tells the runs of a seed apart
SETTING = "setting"  # where these do not: a column of words that do (``workflow/entries.py``)
LISTED = 3  # seeds of one setting that are named


def settings_of(table: pd.DataFrame) -> list[str]:
    """List the columns that tell the runs of a seed apart."""
    return [*SETTINGS, SETTING] if SETTING in table else SETTINGS


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
    by = SETTING if SETTING in table else "first_local_steps"
    named = "{}" if SETTING in table else "H = {}"
    seeds = rows.groupby(by)["seed"].nunique()
    many = seeds[seeds > LISTED]
    few = rows[~rows[by].isin(many.index)]
    of_seed = few.groupby("seed")[by].unique()
    parts = [f"{named.format(each)}: {count} seeds" for each, count in many.items()]
    parts += [
        f"seed {seed}: {named.format(', '.join(map(str, sorted(each))))}"
        for seed, each in of_seed.items()
    ]
    return f"{what}: {len(rows)} of {runs} runs of {experiment} ({'; '.join(parts)})"
