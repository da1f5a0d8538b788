"""Compute the numbers of a panel: means over seeds with their intervals, from a tidy table.

Points of one curve share H, η, K and what else tells the runs apart, except the one that is ``x``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pandas as pd

from trainer.errors import UserError
from workflow.analysis.figures.quantities import LOGARITHMIC, SHOWN, row_label, x_column
from workflow.analysis.statistics import over_seeds, paired_difference
from workflow.analysis.tables.evaluations import (
    SETTING,
    has_diverged,
    last_evaluations,
    settings_of,
)
from workflow.entries import one_h_of, without
from workflow.figures import OVER_TIME, Panel, Row

AFTER_START = ("phase 2", "cooldown")
# Finds the ids of an experiment's runs that have some settings
RunsOf = Callable[[str, dict[str, Any]], Collection[str]]


def panel_numbers(table: pd.DataFrame, panel: Panel, runs_of: RunsOf | None = None) -> pd.DataFrame:
    """Compute the numbers of all rows of the panel, one line per point, without missing runs.

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
    if panel.x == "communication_share":
        rows = rows.assign(communication_share=communication_shares(rows))
    if panel.x in LOGARITHMIC:  # such an axis has no 0: start at the first averaging
        rows = rows[(rows["role"] == "phase 2") & (rows[panel.x] > 0)]
    parts = [row_numbers(rows, panel, row, runs_of) for row in panel.rows]
    whole = pd.concat(parts).assign(experiment=panel.experiment, x=lambda t: t[x_column(panel)])
    columns = [*settings_of(table), "x", "n", "mean", "low", "high"]
    return whole.astype({"n": int})[["experiment", "quantity", "role", *columns]]


def slow_times(rows: pd.DataFrame) -> pd.Series[float]:
    """Return the sum of η² over each run's steps so far, divided by B_loc.

    η is that of the last step before an evaluation, for all steps since the one before: exact
    unless η changes between evaluations.
    """
    ordered = rows.sort_values(["run", "step"])
    steps = ordered.groupby("run")["step"].diff().fillna(ordered["step"])
    advance = ordered["lr"] ** 2 * steps / ordered["batch_size"]
    return advance.groupby(ordered["run"]).cumsum().reindex(rows.index)


def communication_shares(ends: pd.DataFrame) -> pd.Series[float]:
    """Return rounds ÷ steps of each run's last evaluation: H = 1 averages after every step.

    The median over seeds, since a run that diverged may have ended in the midst of its schedule.
    """
    shares = ends["round"] / ends["step"]
    return shares.groupby([ends[name] for name in settings_of(ends)]).transform("median")


def row_numbers(
    rows: pd.DataFrame, panel: Panel, row: Row, runs_of: RunsOf | None = None
) -> pd.DataFrame:
    """Compute one row's numbers; a quantity that no run measured gives none."""
    shown = SHOWN[row.quantity]
    measured = rows.get(shown.column, pd.Series(np.nan, rows.index))
    scaled = shown.times * measured.astype(float)
    if row.paired_with is not None and shown.log:
        scaled = pd.Series(-np.log(scaled.where(scaled > 0)), rows.index)
    values = rows.assign(shown=scaled).dropna(subset=["shown"])
    if row.paired_with is not None:
        values = values[values["role"].isin(AFTER_START)]
        values = gains_over_control(values, panel, row, runs_of)
    by = ["role", *dict.fromkeys([*settings_of(rows), x_column(panel)])]
    if values.empty:
        return pd.DataFrame(columns=[*by, "n", "mean", "low", "high", "quantity"])
    return over_seeds(values, by, "shown").assign(quantity=row_label(row))


def gains_over_control(
    rows: pd.DataFrame, panel: Panel, row: Row, runs_of: RunsOf | None
) -> pd.DataFrame:
    """Subtract the control's values of the same seed and ``x`` from all others'.

    SGD is that of the same η, K and all else but H. Raises UserError where paired runs were
    evaluated at different times.
    """
    on = ["seed"]
    if row.paired_with == "smallest_k":
        is_control = rows["num_clients"] == rows["num_clients"].min()
        on = ["seed", "first_local_steps"]
    elif row.paired_with == "sgd":
        is_control = rows["first_local_steps"] == 1
        on = ["seed", "peak_lr", "num_clients"]
        if SETTING in rows:
            is_control = rows[SETTING].map(one_h_of) == 1
            rows = rows.assign(else_equal=[without(label, "H") for label in rows[SETTING]])
            on = [*on, "else_equal"]
    else:
        assert isinstance(row.paired_with, dict) and runs_of is not None
        is_control = rows["run"].isin(runs_of(panel.experiment, row.paired_with))
    return _paired(rows[~is_control], rows[is_control], panel, on)


def _paired(
    treated: pd.DataFrame, control: pd.DataFrame, panel: Panel, on: list[str]
) -> pd.DataFrame:
    if panel.x not in OVER_TIME:
        return paired_difference(treated, control, on, "shown")
    if panel.x == "slow_time":  # what SGD lacks is left out: also experiments judged at the end
        return paired_difference(treated, control, [*on, "step"], "shown")
    if SETTING in treated:  # rules of H choose the steps at which their runs can be evaluated
        return paired_difference(treated, control, [*on, panel.x], "shown")
    partners = pd.MultiIndex.from_frame(control[on].drop_duplicates())
    treated = treated[pd.MultiIndex.from_frame(treated[on]).isin(partners)]
    found = paired_difference(treated, control, [*on, panel.x], "shown")
    if len(found) < _count_with_control(treated, control, panel.x, on):
        raise UserError(
            f"{panel.experiment} compares runs at equal times, some were evaluated where their "
            "control was not; choose eval_freq1 so that step1 · eval_freq1 of each run is a "
            "multiple of the control's"
        )
    return found


def _count_with_control(treated: pd.DataFrame, control: pd.DataFrame, x: str, on: list[str]) -> int:
    """Count the rows that have a control: those up to its end, early if it diverged."""
    ends = control.groupby(on)[x].max().rename("end").reset_index()
    return int((treated[x] <= treated.merge(ends, on=on, how="left")["end"].to_numpy()).sum())
