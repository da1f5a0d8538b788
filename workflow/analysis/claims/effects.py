"""What each claim measures: one number per seed, positive where the paper is right.

Every function takes the tidy table of an experiment and the H that is judged, which was chosen on
pilot seeds. A seed counts when all its runs that the claim is about are there, those of a setting
that no seed has finished included. Accuracies are in points (per cent). A run that diverged ends
with the accuracy of what its parameters then were; before, it has fewer evaluations than others.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from workflow.analysis.tables.evaluations import has_diverged, last_evaluations

Values = pd.Series  # of floats, indexed by seed
MARGIN = 0.1  # points: a smaller gain than this counts as none


def gain_at_the_end(table: pd.DataFrame, h: int) -> Values:
    """Accuracy of the last evaluation: Local SGD minus SGD."""
    end = _ends(table, "first_local_steps")
    return (end[h] - end[1]).dropna()


def no_gain_at_the_end(table: pd.DataFrame, h: int) -> Values:
    """``MARGIN`` minus the gain: positive where there is none to speak of."""
    return MARGIN - gain_at_the_end(table, h)


def gain_of_a_small_rate(table: pd.DataFrame, h: int) -> Values:
    """Gain with the smallest η minus gain with the largest."""
    rates = _asked_for(table)["peak_lr"]
    small, large = (table[table["peak_lr"] == rate] for rate in (rates.min(), rates.max()))
    return (gain_at_the_end(small, h) - gain_at_the_end(large, h)).dropna()


def gain_of_time(table: pd.DataFrame, h: int) -> Values:
    """Gain at the last evaluation minus gain at the first after the start, with the smallest η."""
    gains = _gains(table[table["peak_lr"] == _asked_for(table)["peak_lr"].min()], h)
    if gains.empty:
        return Values(dtype=float)
    return (gains.iloc[:, -1] - gains.iloc[:, 0]).dropna()


def rise_with_h(table: pd.DataFrame, h: int) -> Values:
    """Slope of the last accuracy over log₂ H, from H = 1 to the judged H: points per doubling."""
    end = _ends(table, "first_local_steps")
    return _slopes(end[[local_steps for local_steps in _settings(end) if local_steps <= h]])


def fall_beyond(table: pd.DataFrame, h: int) -> Values:
    """Last accuracy with the judged H minus that with the largest H, where that is larger."""
    end = _ends(table, "first_local_steps")
    largest = max(_settings(end))
    return (end[h] - end[largest]).dropna() if largest > h else Values(dtype=float)


def gain_of_long_rounds(table: pd.DataFrame, h: int) -> Values:
    """Mean last accuracy with 1/η ≤ H ≤ the judged H minus that with 1 < H < 1/η."""
    end = _ends(table, "first_local_steps")
    bound = 1 / _asked_for(table)["peak_lr"].min()
    long = [local_steps for local_steps in _settings(end) if bound <= local_steps <= h]
    short = [local_steps for local_steps in _settings(end) if 1 < local_steps < bound]
    return (end[long].mean(axis=1, skipna=False) - end[short].mean(axis=1, skipna=False)).dropna()


def rise_with_k(table: pd.DataFrame, h: int) -> Values:
    """Slope of the last accuracy over log₂ K at the judged H: points per doubling of K."""
    return _slopes(_ends(table[table["first_local_steps"] == h], "num_clients"))


def gain_throughout(table: pd.DataFrame, h: int) -> Values:
    """Mean over all evaluations after the start of Local SGD's accuracy minus SGD's."""
    return _gains(table, h).mean(axis=1, skipna=False).dropna()


def flatter_throughout(table: pd.DataFrame, h: int) -> Values:
    """Mean over evaluations of ln(trace of the Hessian of SGD ÷ that of Local SGD)."""
    sharpness = _mean_log_trace(table)
    return (sharpness[1] - sharpness[h]).dropna()


def flatter_with_h(table: pd.DataFrame, h: int) -> Values:
    """Minus the slope of the mean of ln(trace of the Hessian) over log₂ H, all H."""
    return -_slopes(_mean_log_trace(table))


def _asked_for(table: pd.DataFrame) -> pd.DataFrame:
    """The figure's runs, finished or not; a missing one has a line without an evaluation."""
    return table[table["role"] == "phase 2"]


def _finished(table: pd.DataFrame) -> pd.DataFrame:
    asked = _asked_for(table)
    return asked[asked["step"].notna()].assign(
        test_accuracy=lambda rows: 100 * rows["test_accuracy"]
    )


def _wide(rows: pd.DataFrame, column: str, value: str = "test_accuracy") -> pd.DataFrame:
    """A line per seed, a column per setting. A seed that counts twice raises ValueError."""
    return rows.pivot(index="seed", columns=column, values=value)


def _ends(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Last accuracies: a line per seed, a column per setting asked for, in order."""
    settings = sorted(_asked_for(table)[column].unique())
    return _wide(last_evaluations(_finished(table)), column).reindex(columns=settings)


def _after_the_start(table: pd.DataFrame, h: int, value: str) -> pd.DataFrame:
    """Of the runs of one H: a line per seed, a column per step, in order."""
    rows = _finished(table)
    rows = rows[(rows["step"] > 0) & (rows["first_local_steps"] == h) & ~has_diverged(rows)]
    return _wide(rows, "step", value)


def _settings(wide: pd.DataFrame) -> list[int]:
    return [int(value) for value in wide.columns.to_numpy()]


def _gains(table: pd.DataFrame, h: int) -> pd.DataFrame:
    """A line per seed, a column per step at which both were evaluated, in order."""
    local, sgd = (_after_the_start(table, each, "test_accuracy") for each in (h, 1))
    both = sorted(set(_settings(local)) & set(_settings(sgd)))
    return local[both] - sgd[both]


def _mean_log_trace(table: pd.DataFrame) -> pd.DataFrame:
    """Over the steps that every H was evaluated at; a line per seed, a column per H asked for."""
    logs = table.assign(log_trace=np.log(table["hessian_trace"]))
    asked = sorted(_asked_for(table)["first_local_steps"].unique())
    traces = {h: _after_the_start(logs, h, "log_trace") for h in asked}
    steps = sorted(set.intersection(*(set(_settings(trace)) for trace in traces.values())))
    return pd.DataFrame({h: trace[steps].mean(axis=1, skipna=False) for h, trace in traces.items()})


def _slopes(values: pd.DataFrame) -> Values:
    """Least squares over log₂ of the columns, line by line; of lines that are whole."""
    whole = values.dropna()
    if whole.empty:
        return Values(dtype=float)
    slopes = np.polyfit(np.log2(whole.columns.to_numpy(float)), whole.to_numpy(float).T, 1)[0]
    return pd.Series(slopes, index=whole.index)
