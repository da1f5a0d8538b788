"""Measure each claim: one number per seed, positive for what the claim is about.

Every function takes the tidy table of an experiment and the H to test, which was chosen on pilot
seeds. A seed counts when all its runs that the claim compares are finished; where no seed has
finished a setting, none counts. Accuracies are in points (per cent). A run that diverged keeps the
accuracy that it ended with for all later evaluations; it has no sharpness (``verdict.py`` decides
nothing about it).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from workflow.analysis.tables.evaluations import has_diverged, last_evaluations

Values = pd.Series  # of floats, indexed by seed


def gain_at_the_end(table: pd.DataFrame, h: int) -> Values:
    """Subtract SGD's last accuracy from Local SGD's."""
    end = _final_accuracies(table, "first_local_steps")
    return (end[h] - end[1]).dropna()


def gain_after_cooldown(table: pd.DataFrame, h: int) -> Values:
    """Subtract the accuracies at the end of the cool-down, which both runs went through alike."""
    rows = table.assign(role=table["role"].replace("cooldown", "phase 2"))
    return gain_at_the_end(rows, h)


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


def doublings_up_to(table: pd.DataFrame, h: int) -> float:
    """Count the doublings of H that ``rise_with_h`` fits."""
    return float(np.log2(h))


def doublings_of_h(table: pd.DataFrame, h: int) -> float:
    """Count the doublings of H from the smallest to the largest."""
    return _doublings(_requested_runs(table)["first_local_steps"])


def doublings_of_k(table: pd.DataFrame, h: int) -> float:
    """Count the doublings of K from the smallest to the largest at H = ``h``."""
    requested = _requested_runs(table)
    return _doublings(requested.loc[requested["first_local_steps"] == h, "num_clients"])


def resolution(table: pd.DataFrame) -> float:
    """Return one test image in points: the smallest gap between accuracies; 0 if all are equal."""
    points = np.unique((100 * table["test_accuracy"].dropna()).round(9))
    return float(np.diff(points).min()) if len(points) > 1 else 0.0


def _doublings(settings: pd.Series[int]) -> float:
    return float(np.log2(settings.max() / settings.min()))


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


def _evaluations_after_start(
    table: pd.DataFrame, local_steps: Sequence[int], value: str
) -> dict[int, pd.DataFrame]:
    """Return ``value`` by H: a row per seed, a column per step that all H share, in order.

    After its last line, a run that diverged keeps that line's value.
    """
    rows = _finished_evaluations(table)
    rows = rows[rows["step"] > 0]
    found = {h: rows[rows["first_local_steps"] == h] for h in local_steps}
    steps = _common_steps(list(found.values()))
    return {h: _filled(each, value, steps) for h, each in found.items()}


def _common_steps(parts: list[pd.DataFrame]) -> list[int]:
    """List the steps at which all ``parts`` are evaluated; runs that diverge early need not be."""
    ended = [part.loc[has_diverged(part), "run"] for part in parts]
    whole = [part[~part["run"].isin(runs)] for part, runs in zip(parts, ended, strict=True)]
    steps = [set(part["step"]) for part in whole if len(part)]
    if not steps:
        steps = [set().union(*(part["step"] for part in parts))]
    return sorted(set.intersection(*steps))


def _filled(rows: pd.DataFrame, value: str, steps: list[int]) -> pd.DataFrame:
    """Pivot to a row per seed and a column per step; a diverged run keeps its last value."""
    wide = _pivot_by_seed(rows, "step", value)
    wide = wide.reindex(columns=sorted({*wide.columns, *steps}))
    ended = wide.index.isin(rows.loc[has_diverged(rows), "seed"])
    return pd.concat([wide[~ended], wide[ended].ffill(axis=1)]).sort_index()[steps]


def _column_values(wide: pd.DataFrame) -> list[int]:
    return [int(value) for value in wide.columns.to_numpy()]


def _gains_over_sgd(table: pd.DataFrame, h: int) -> pd.DataFrame:
    """Return gains: a row per seed, a column per step at which both were evaluated, in order."""
    found = _evaluations_after_start(table, (h, 1), "test_accuracy")
    return found[h] - found[1]


def _mean_log_trace(table: pd.DataFrame) -> pd.DataFrame:
    """Average over the steps common to all H; a row per seed, a column per requested H."""
    logs = table.assign(log_trace=np.log(table["hessian_trace"]))
    requested = sorted(_requested_runs(table)["first_local_steps"].unique())
    traces = _evaluations_after_start(logs, requested, "log_trace")
    return pd.DataFrame({h: trace.mean(axis=1, skipna=False) for h, trace in traces.items()})


def _slopes_per_doubling(values: pd.DataFrame) -> Values:
    """Fit least-squares slopes over log₂ of the columns, one per complete row."""
    complete = values.dropna()
    if complete.empty:
        return Values(dtype=float)
    slopes = np.polyfit(np.log2(complete.columns.to_numpy(float)), complete.to_numpy(float).T, 1)[0]
    return pd.Series(slopes, index=complete.index)
