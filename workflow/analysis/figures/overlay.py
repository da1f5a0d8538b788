"""Draw the curves of several experiments on one axis, told apart by H and its rule alone."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from workflow.analysis.figures.style import Styles
from workflow.analysis.tables.evaluations import SETTING, SETTINGS

LINEAR_UP_TO = 1.0  # beyond it, an axis of gains is nearly logarithmic
TICKS = [0.5, 1, 2, 5, 10, 20, 50, 100]


def draw_overlaid(axes: Axes, numbers: pd.DataFrame, styles: Styles) -> dict[str, Artist]:
    """Draw a line per experiment and setting; return a handle per H or label, in the order of H.

    Bands of so many lines would hide one another: where a mean's interval excludes 0, its point is
    filled.
    """
    handles: dict[str, Artist] = {}
    labels = numbers.get(SETTING, pd.Series("", numbers.index)).fillna("")
    for _, part in numbers.groupby([*SETTINGS, "experiment", labels]):
        h, label = int(part["first_local_steps"].iloc[0]), str(labels[part.index[0]])
        style: dict[str, Any] = {
            **styles[label or h],
            "linewidth": 1.0,
            "marker": "o",
            "markersize": 3,
        }
        [line] = axes.plot(part["x"], part["mean"], **style)
        includes_0 = part[~((part["low"] > 0) | (part["high"] < 0))]
        open_point = style | {"linestyle": "none", "markerfacecolor": "white"}
        axes.plot(includes_0["x"], includes_0["mean"], **open_point)
        handles.setdefault(label or f"H = {h}", line)
    if numbers["mean"].abs().max() > LINEAR_UP_TO:
        compress(axes)
    return handles


def compress(axes: Axes) -> None:
    """Compress y beyond ± 1: a loss at first may be many times the gain at the end."""
    axes.set_yscale("asinh", linear_width=LINEAR_UP_TO)
    axes.autoscale(axis="y")
    low, high = axes.get_ylim()
    ticks = [*(-tick for tick in reversed(TICKS)), 0, *TICKS]
    axes.set_yticks([tick for tick in ticks if low <= tick <= high])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
