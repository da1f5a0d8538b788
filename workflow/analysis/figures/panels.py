"""The numbers of a panel: means over seeds with their intervals, from a tidy table.

A curve is what shares H, η and K, but for the one of them that ``x`` is.
"""

from __future__ import annotations

import pandas as pd

from trainer.errors import UserError
from workflow.analysis.figures.catalogue import Panel, Row
from workflow.analysis.statistics import over_seeds, paired_difference
from workflow.analysis.tables.evaluations import SETTINGS, at_the_end, has_diverged

OVER_TIME = ("epoch", "step", "megabytes")
COLUMNS = ["experiment", "quantity", "role", *SETTINGS, "x", "n", "mean", "low", "high"]


def panel_numbers(table: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """Of all rows of the panel: ``COLUMNS``, one line per point. Missing runs are left out.

    What diverged counts as a run's end; over time, where each did at a step of its own, it is not
    drawn. Raises UserError where runs that both exist were evaluated at different times.
    """
    rows = table[table["step"].notna()]
    rows = rows.assign(megabytes=rows["bytes_sent"] / 1e6)
    if panel.x in OVER_TIME:
        rows = rows[~has_diverged(rows)]
    else:
        rows = at_the_end(rows[rows["role"] == "phase 2"])
    if panel.x == "megabytes":  # on a logarithmic axis, from the first averaging on
        rows = rows[(rows["role"] == "phase 2") & (rows["megabytes"] > 0)]
    parts = [numbers(rows, panel, row) for row in panel.rows]
    whole = pd.concat(parts).assign(experiment=panel.experiment, x=lambda t: t[panel.x])
    return whole.astype({"n": int})[COLUMNS]


def numbers(rows: pd.DataFrame, panel: Panel, row: Row) -> pd.DataFrame:
    """Of one row; a quantity that no run has measured gives no lines."""
    column = row.quantity.column
    values = rows.assign(**{column: row.quantity.times * rows[column]}).dropna(subset=[column])
    if row.paired:
        values = differences(values[values["role"] == "phase 2"], panel, column)
    by = ["role", *dict.fromkeys([*SETTINGS, panel.x])]
    if values.empty:
        return pd.DataFrame(columns=[*by, "n", "mean", "low", "high", "quantity"])
    return over_seeds(values, by, column).assign(quantity=row_label(panel, row))


def differences(rows: pd.DataFrame, panel: Panel, column: str) -> pd.DataFrame:
    """From SGD of the same seed, η, K and ``x``; where K is ``x``, from the smallest K.

    Raises UserError where runs that both exist were evaluated at different times.
    """
    if panel.x == "num_clients":
        smallest = rows["num_clients"].min()
        control, on = rows[rows["num_clients"] == smallest], ["seed", "first_local_steps"]
        treated = rows[rows["num_clients"] > smallest]
        return paired_difference(treated, control, on, column)
    on = ["seed", "peak_lr", "num_clients"]
    sgd = rows[rows["first_local_steps"] == 1]
    local = rows[rows["first_local_steps"] > 1]
    if panel.x in OVER_TIME:
        partners = pd.MultiIndex.from_frame(sgd[on].drop_duplicates())
        local = local[pd.MultiIndex.from_frame(local[on]).isin(partners)]
        on = [*on, panel.x]
    found = paired_difference(local, sgd, on, column)
    if panel.x in OVER_TIME and len(found) < _expected(local, sgd, panel.x):
        raise UserError(
            f"{panel.experiment} compares runs at equal times, some were evaluated where SGD was "
            "not; choose eval_freq1 so that step1 · eval_freq1 of each run is a multiple of SGD's"
        )
    return found


def _expected(local: pd.DataFrame, sgd: pd.DataFrame, x: str) -> int:
    """How many rows have a partner: those up to where SGD ended, which is early if it diverged."""
    on = ["seed", "peak_lr", "num_clients"]
    ends = sgd.groupby(on)[x].max().rename("end").reset_index()
    return int((local[x] <= local.merge(ends, on=on, how="left")["end"].to_numpy()).sum())


def row_label(panel: Panel, row: Row) -> str:
    if not row.paired:
        return row.quantity.label
    control = "smallest K" if panel.x == "num_clients" else "SGD"
    return f"gain over {control}\nof the same seed (points)"
