"""Measure each claim: one number per seed, positive where the paper is right.

Every function takes the tidy table of an experiment and the H to test, which was chosen on pilot
seeds. A seed counts when all its runs that the claim compares are finished; where no seed has
finished a setting, none counts. Accuracies are in points (per cent). A run that diverged ends with
the accuracy of its parameters at that step, and has fewer evaluations than others.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from workflow.analysis.tables.evaluations import has_diverged, last_evaluations

Values = pd.Series  # of floats, indexed by seed
MARGIN = 0.1  # points: a smaller gain than this counts as none


def gain_at_the_end(table: pd.DataFrame, h: int) -> Values:
    """Subtract SGD's last accuracy from Local SGD's."""
    end = _final_accuracies(table, "first_local_steps")
    return (end[h] - end[1]).dropna()


def no_gain_at_the_end(table: pd.DataFrame, h: int) -> Values:
    """Subtract the gain from ``MARGIN``: positive where the gain is negligible."""
    return MARGIN - gain_at_the_end(table, h)


def gain_of_a_small_rate(table: pd.DataFrame, h: int) -> Values:
    """Subtract the gain with the largest η from that with the smallest."""
    rates = _requested_runs(table)["peak_lr"]
    small, large = (table[table["peak_lr"] == rate] for rate in (rates.min(), rates.max()))
    return (gain_at_the_end(small, h) - gain_at_the_end(large, h)).dropna()


def gain_of_time(table: pd.DataFrame, h: int) -> Values:
    """Subtract the first gain after the start from the last, with the smallest η."""
    gains = _gains_over_sgd(table[table["peak_lr"] == _requested_runs(table)["peak_lr"].min()], h)
    if gains.empty:
        return Values(dtype=float)
    return (gains.iloc[:, -1] - gains.iloc[:, 0]).dropna()


def rise_with_h(table: pd.DataFrame, h: int) -> Values:
    """Fit the slope of the last accuracy over log₂ H, from 1 to ``h``: points per doubling."""
    end = _final_accuracies(table, "first_local_steps")
    return _slopes_per_doubling(
        end[[local_steps for local_steps in _column_values(end) if local_steps <= h]]
    )


def fall_beyond(table: pd.DataFrame, h: int) -> Values:
    """Subtract the last accuracy with the largest H from that with ``h``; empty if ``h`` is it."""
    end = _final_accuracies(table, "first_local_steps")
    largest = max(_column_values(end))
    return (end[h] - end[largest]).dropna() if largest > h else Values(dtype=float)


def gain_of_long_rounds(table: pd.DataFrame, h: int) -> Values:
    """Subtract the mean last accuracy with 1 < H < 1/η from that with 1/η ≤ H ≤ ``h``."""
    end = _final_accuracies(table, "first_local_steps")
    bound = 1 / _requested_runs(table)["peak_lr"].min()
    long = [local_steps for local_steps in _column_values(end) if bound <= local_steps <= h]
    short = [local_steps for local_steps in _column_values(end) if 1 < local_steps < bound]
    return (end[long].mean(axis=1, skipna=False) - end[short].mean(axis=1, skipna=False)).dropna()


def rise_with_k(table: pd.DataFrame, h: int) -> Values:
    """Fit the slope of the last accuracy over log₂ K at H = ``h``: points per doubling of K."""
    return _slopes_per_doubling(
        _final_accuracies(table[table["first_local_steps"] == h], "num_clients")
    )


def gain_throughout(table: pd.DataFrame, h: int) -> Values:
    """Average Local SGD's accuracy minus SGD's over all evaluations after the start."""
    return _gains_over_sgd(table, h).mean(axis=1, skipna=False).dropna()


def flatter_throughout(table: pd.DataFrame, h: int) -> Values:
    """Average ln(trace of SGD's Hessian ÷ trace of Local SGD's) over evaluations."""
    sharpness = _mean_log_trace(table)
    return (sharpness[1] - sharpness[h]).dropna()


def flatter_with_h(table: pd.DataFrame, h: int) -> Values:
    """Fit minus the slope of the mean ln(trace of the Hessian) over log₂ H, all H."""
    return -_slopes_per_doubling(_mean_log_trace(table))


def _requested_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Select the figure's runs, finished or not; a missing one has a row without an evaluation."""
    return table[table["role"] == "phase 2"]


def _finished_evaluations(table: pd.DataFrame) -> pd.DataFrame:
    requested = _requested_runs(table)
    return requested[requested["step"].notna()].assign(
        test_accuracy=lambda rows: 100 * rows["test_accuracy"]
    )


def _pivot_by_seed(rows: pd.DataFrame, column: str, value: str = "test_accuracy") -> pd.DataFrame:
    """Pivot to a row per seed and a column per setting. Raises ValueError for a repeated seed."""
    return rows.pivot(index="seed", columns=column, values=value)


def _final_accuracies(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return last accuracies: a row per seed, a column per requested setting, in order."""
    settings = sorted(_requested_runs(table)[column].unique())
    return _pivot_by_seed(last_evaluations(_finished_evaluations(table)), column).reindex(
        columns=settings
    )


def _evaluations_after_start(table: pd.DataFrame, h: int, value: str) -> pd.DataFrame:
    """Return ``value`` of the runs with H = ``h``: a row per seed, a column per step, in order."""
    rows = _finished_evaluations(table)
    rows = rows[(rows["step"] > 0) & (rows["first_local_steps"] == h) & ~has_diverged(rows)]
    return _pivot_by_seed(rows, "step", value)


def _column_values(wide: pd.DataFrame) -> list[int]:
    return [int(value) for value in wide.columns.to_numpy()]


def _gains_over_sgd(table: pd.DataFrame, h: int) -> pd.DataFrame:
    """Return gains: a row per seed, a column per step at which both were evaluated, in order."""
    local, sgd = (_evaluations_after_start(table, each, "test_accuracy") for each in (h, 1))
    both = sorted(set(_column_values(local)) & set(_column_values(sgd)))
    return local[both] - sgd[both]


def _mean_log_trace(table: pd.DataFrame) -> pd.DataFrame:
    """Average over the steps common to all H; a row per seed, a column per requested H."""
    logs = table.assign(log_trace=np.log(table["hessian_trace"]))
    requested = sorted(_requested_runs(table)["first_local_steps"].unique())
    traces = {h: _evaluations_after_start(logs, h, "log_trace") for h in requested}
    steps = sorted(set.intersection(*(set(_column_values(trace)) for trace in traces.values())))
    return pd.DataFrame({h: trace[steps].mean(axis=1, skipna=False) for h, trace in traces.items()})


def _slopes_per_doubling(values: pd.DataFrame) -> Values:
    """Fit least-squares slopes over log₂ of the columns, one per complete row."""
    complete = values.dropna()
    if complete.empty:
        return Values(dtype=float)
    slopes = np.polyfit(np.log2(complete.columns.to_numpy(float)), complete.to_numpy(float).T, 1)[0]
    return pd.Series(slopes, index=complete.index)
