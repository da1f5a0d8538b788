"""Compute the numbers of a panel: means over seeds with their intervals, from a tidy table.

Points of one curve share H, η and K, except the one that is ``x``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from trainer.errors import UserError
from workflow.analysis.figures.catalogue import Panel, Row
from workflow.analysis.statistics import over_seeds, paired_difference
from workflow.analysis.tables.evaluations import SETTINGS, has_diverged, last_evaluations

OVER_TIME = ("epoch", "step", "slow_time", "megabytes")
LOGARITHMIC = ("slow_time", "megabytes")
AFTER_START = ("phase 2", "cooldown")
COLUMNS = ["experiment", "quantity", "role", *SETTINGS, "x", "n", "mean", "low", "high"]


def panel_numbers(table: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """Compute ``COLUMNS`` for all rows of the panel, one line per point, without missing runs.

    A diverged evaluation counts as its run's last; it is not drawn over time, since runs diverge at
    different steps. Raises UserError where paired runs were evaluated at different times.
    """
    rows = table[table["step"].notna()]
    rows = rows.assign(megabytes=rows["bytes_sent"] / 1e6)
    if panel.x == "slow_time":
        rows = rows.assign(slow_time=slow_times(rows))
    if panel.x in OVER_TIME:
        rows = rows[~has_diverged(rows)]
    else:
        rows = last_evaluations(rows[rows["role"] == "phase 2"])
    if panel.x in LOGARITHMIC:  # such an axis has no 0: start at the first averaging
        rows = rows[(rows["role"] == "phase 2") & (rows[panel.x] > 0)]
    parts = [row_numbers(rows, panel, row) for row in panel.rows]
    whole = pd.concat(parts).assign(experiment=panel.experiment, x=lambda t: t[panel.x])
    return whole.astype({"n": int})[COLUMNS]


def slow_times(rows: pd.DataFrame) -> pd.Series[float]:
    """Return the sum of η² over each run's steps so far, divided by B_loc.

    η is that of the last step before an evaluation, for all steps since the one before: exact
    unless η changes between evaluations.
    """
    ordered = rows.sort_values(["run", "step"])
    steps = ordered.groupby("run")["step"].diff().fillna(ordered["step"])
    advance = ordered["lr"] ** 2 * steps / ordered["batch_size"]
    return advance.groupby(ordered["run"]).cumsum().reindex(rows.index)


def row_numbers(rows: pd.DataFrame, panel: Panel, row: Row) -> pd.DataFrame:
    """Compute one row's numbers; a quantity that no run measured gives none."""
    column = row.quantity.column
    scaled = row.quantity.times * rows[column]
    if row.paired and row.quantity.log:
        scaled = -np.log(scaled.where(scaled > 0))
    values = rows.assign(**{column: scaled}).dropna(subset=[column])
    if row.paired:
        values = gains_over_control(values[values["role"].isin(AFTER_START)], panel, column)
    by = ["role", *dict.fromkeys([*SETTINGS, panel.x])]
    if values.empty:
        return pd.DataFrame(columns=[*by, "n", "mean", "low", "high", "quantity"])
    return over_seeds(values, by, column).assign(quantity=row_label(panel, row))


def gains_over_control(rows: pd.DataFrame, panel: Panel, column: str) -> pd.DataFrame:
    """Subtract SGD's values of the same seed, η, K and ``x``; where K is ``x``, the smallest K's.

    Raises UserError where paired runs were evaluated at different times.
    """
    if panel.x == "num_clients":
        smallest = rows["num_clients"].min()
        control, on = rows[rows["num_clients"] == smallest], ["seed", "first_local_steps"]
        treated = rows[rows["num_clients"] > smallest]
        return paired_difference(treated, control, on, column)
    on = ["seed", "peak_lr", "num_clients"]
    sgd = rows[rows["first_local_steps"] == 1]
    local = rows[rows["first_local_steps"] > 1]
    if panel.x == "slow_time":  # what SGD lacks is left out: also experiments judged at the end
        return paired_difference(local, sgd, [*on, "step"], column)
    if panel.x in OVER_TIME:
        partners = pd.MultiIndex.from_frame(sgd[on].drop_duplicates())
        local = local[pd.MultiIndex.from_frame(local[on]).isin(partners)]
        on = [*on, panel.x]
    found = paired_difference(local, sgd, on, column)
    if panel.x in OVER_TIME and len(found) < _count_with_control(local, sgd, panel.x):
        raise UserError(
            f"{panel.experiment} compares runs at equal times, some were evaluated where SGD was "
            "not; choose eval_freq1 so that step1 · eval_freq1 of each run is a multiple of SGD's"
        )
    return found


def _count_with_control(local: pd.DataFrame, sgd: pd.DataFrame, x: str) -> int:
    """Count the rows that have a control: those up to SGD's end, early if it diverged."""
    on = ["seed", "peak_lr", "num_clients"]
    ends = sgd.groupby(on)[x].max().rename("end").reset_index()
    return int((local[x] <= local.merge(ends, on=on, how="left")["end"].to_numpy()).sum())


def row_label(panel: Panel, row: Row) -> str:
    if not row.paired:
        return row.quantity.label
    if row.quantity.log:
        return f"ln({row.quantity.label}:\nSGD's ÷ its own)"
    control = "smallest K" if panel.x == "num_clients" else "SGD"
    return f"gain over {control}\nof the same seed (points)"
