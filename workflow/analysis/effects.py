"""What each claim measures: one number per seed, positive where the paper is right.

Every function takes the tidy table of an experiment and the H that is judged, which was chosen on
pilot seeds, and leaves out seeds of which a run is missing. Accuracies are in points (per cent).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from workflow.analysis.panels import at_the_end

Values = pd.Series  # of floats, indexed by seed
MARGIN = 0.1  # points: a smaller gain than this counts as none


def gain_at_the_end(table: pd.DataFrame, h: int) -> Values:
    """Accuracy of the last evaluation: Local SGD minus SGD."""
    end = _wide(at_the_end(_runs(table)), ["first_local_steps"])
    return (end[h] - end[1]).dropna()


def no_gain_at_the_end(table: pd.DataFrame, h: int) -> Values:
    """``MARGIN`` minus the gain: positive where there is none to speak of."""
    return MARGIN - gain_at_the_end(table, h)


def gain_of_a_small_rate(table: pd.DataFrame, h: int) -> Values:
    """Gain with the smallest η minus gain with the largest."""
    end = _wide(at_the_end(_runs(table)), ["peak_lr", "first_local_steps"])
    rates = end.columns.get_level_values("peak_lr")
    small, large = end[rates.min()], end[rates.max()]
    difference: Values = ((small[h] - small[1]) - (large[h] - large[1])).dropna()
    return difference


def gain_of_time(table: pd.DataFrame, h: int) -> Values:
    """Gain at the last evaluation minus gain at the first after the start, with the smallest η."""
    runs = _runs(table)
    runs = runs[(runs["peak_lr"] == runs["peak_lr"].min()) & (runs["step"] > 0)]
    gains = _gains(runs, h)
    return (gains.iloc[:, -1] - gains.iloc[:, 0]).dropna()


def rise_with_h(table: pd.DataFrame, h: int) -> Values:
    """Slope of the last accuracy over log₂ H, from H = 1 to the judged H: points per doubling."""
    end = _wide(at_the_end(_runs(table)), ["first_local_steps"])
    return _slopes(end[[local_steps for local_steps in _settings(end) if local_steps <= h]])


def fall_beyond(table: pd.DataFrame, h: int) -> Values:
    """Last accuracy with the judged H minus that with the largest H."""
    end = _wide(at_the_end(_runs(table)), ["first_local_steps"])
    largest = max(_settings(end))
    return (end[h] - end[largest]).dropna() if largest > h else Values(dtype=float)


def gain_of_long_rounds(table: pd.DataFrame, h: int) -> Values:
    """Mean last accuracy with 1/η ≤ H ≤ the judged H minus that with 1 < H < 1/η."""
    runs = _runs(table)
    end = _wide(at_the_end(runs), ["first_local_steps"])
    bound = 1 / runs["peak_lr"].min()
    long = [local_steps for local_steps in _settings(end) if bound <= local_steps <= h]
    short = [local_steps for local_steps in _settings(end) if 1 < local_steps < bound]
    if not long or not short:
        return Values(dtype=float)
    return (end[long].mean(axis=1, skipna=False) - end[short].mean(axis=1, skipna=False)).dropna()


def rise_with_k(table: pd.DataFrame, h: int) -> Values:
    """Slope of the last accuracy over log₂ K at the judged H: points per doubling of K."""
    runs = _runs(table)
    return _slopes(_wide(at_the_end(runs[runs["first_local_steps"] == h]), ["num_clients"]))


def gain_throughout(table: pd.DataFrame, h: int) -> Values:
    """Mean over all evaluations after the start of Local SGD's accuracy minus SGD's."""
    runs = _runs(table)
    return _gains(runs[runs["step"] > 0], h).mean(axis=1, skipna=False).dropna()


def flatter_throughout(table: pd.DataFrame, h: int) -> Values:
    """Mean over evaluations of ln(trace of the Hessian of SGD ÷ that of Local SGD)."""
    return (_mean_log_trace(table)[1] - _mean_log_trace(table)[h]).dropna()


def flatter_with_h(table: pd.DataFrame, h: int) -> Values:
    """Minus the slope of the mean of ln(trace of the Hessian) over log₂ H, all H."""
    return -_slopes(_mean_log_trace(table))


def _runs(table: pd.DataFrame) -> pd.DataFrame:
    finished = table[(table["role"] == "phase 2") & table["step"].notna()]
    return finished.assign(test_accuracy=100 * finished["test_accuracy"])


def _wide(rows: pd.DataFrame, columns: list[str], value: str = "test_accuracy") -> pd.DataFrame:
    """A line per seed, a column per setting. A seed that counts twice raises ValueError."""
    return rows.pivot(index="seed", columns=columns, values=value)


def _settings(wide: pd.DataFrame) -> list[int]:
    return [int(value) for value in wide.columns.to_numpy()]


def _gains(runs: pd.DataFrame, h: int) -> pd.DataFrame:
    """A line per seed, a column per step at which both were evaluated, in order."""
    local, sgd = (
        _wide(runs[runs["first_local_steps"] == local_steps], ["step"]) for local_steps in (h, 1)
    )
    both = sorted(set(_settings(local)) & set(_settings(sgd)))
    return local[both] - sgd[both]


def _mean_log_trace(table: pd.DataFrame) -> pd.DataFrame:
    """Over the steps that every H was evaluated at; a line per seed, a column per H."""
    runs = _runs(table)
    runs = runs[runs["step"] > 0].assign(log_trace=lambda rows: np.log(rows["hessian_trace"]))
    by_h = {
        h: _wide(runs[runs["first_local_steps"] == h], ["step"], "log_trace")
        for h in map(int, runs["first_local_steps"].unique())
    }
    steps = sorted(set.intersection(*(set(_settings(part)) for part in by_h.values())))
    return pd.DataFrame({h: part[steps].mean(axis=1, skipna=False) for h, part in by_h.items()})


def _slopes(values: pd.DataFrame) -> Values:
    """Least squares over log₂ of the columns, line by line."""
    whole = values.dropna()
    if len(whole.columns) < 2 or whole.empty:
        return Values(dtype=float)
    slopes = np.polyfit(np.log2(whole.columns.to_numpy(float)), whole.to_numpy().T, 1)[0]
    return pd.Series(slopes, index=whole.index)
