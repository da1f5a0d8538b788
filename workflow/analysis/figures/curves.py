"""Draw a panel's curves: before the switch, one per H and η after it, and their cool-down."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from workflow.analysis.figures.style import Style, Styles
from workflow.analysis.tables.evaluations import SETTING
from workflow.entries import one_h_of, without
from workflow.figures import AT_END, OVER_TIME, Panel

PHASE1_COLOR = "0.55"
NOTE: dict[str, Any] = {"color": "0.4", "fontsize": "small"}
OVER_H = {"color": "0.2", "linewidth": 1.2}


def draw_curves(
    axes: Axes, panel: Panel, numbers: pd.DataFrame, styles: Styles
) -> dict[str, Artist]:
    """Draw one curve per H and η (per η where H is the axis), in the order of H."""
    if SETTING in numbers:
        return draw_labelled(axes, panel, numbers, styles)
    several = numbers["peak_lr"].nunique() > 1
    rates = sorted(numbers["peak_lr"].unique())
    handles: dict[str, Artist] = {}
    if panel.x == "local_steps":
        for rate, part in numbers.groupby("peak_lr"):
            handle = draw_points(axes, part, OVER_H)
            if several:
                handles[f"η = {rate:g}"] = handle
        return handles
    for h, rate in numbers[["first_local_steps", "peak_lr"]].drop_duplicates().to_numpy():
        part = numbers[(numbers["first_local_steps"] == h) & (numbers["peak_lr"] == rate)]
        part = part.sort_values("x")  # phase 2, then the cool-down
        style = dict(styles[int(h)])
        if rates.index(rate):
            style |= {"marker": "o", "markersize": 4, "markerfacecolor": "white"}
        name = "SGD, H = 1" if h == 1 else f"Local SGD, H = {h:.0f}"
        handle = (draw_points if panel.x in AT_END else draw_curve)(axes, part, style)
        handles[name + (f", η = {rate:g}" if several else "")] = handle
    return handles


def draw_labelled(
    axes: Axes, panel: Panel, numbers: pd.DataFrame, styles: Styles
) -> dict[str, Artist]:
    """Draw one curve per label, in the order of the styles."""
    curves = curve_labels(panel, numbers)
    handles: dict[str, Artist] = {}
    for label in (label for label in styles if (curves == label).any()):
        part = numbers[curves == label].sort_values("x")
        handle = (draw_points if panel.x in AT_END else draw_curve)(axes, part, styles[label])
        if said := str(label):  # empty where the axis says it all
            handles[f"SGD, {said}" if one_h_of(said) == 1 else said] = handle
    return handles


def curve_labels(panel: Panel, numbers: pd.DataFrame) -> pd.Series[str]:
    """Return the labels of curves: what tells runs apart beside x."""
    symbol = {"local_steps": "H", "num_clients": "K"}.get(panel.x)
    labels = numbers[SETTING]
    return labels if symbol is None else labels.map(lambda label: without(label, symbol))


def draw_curve(axes: Axes, numbers: pd.DataFrame, style: Style) -> Artist:
    [line] = axes.plot(numbers["x"], numbers["mean"], **style)  # type: ignore[arg-type]
    band = {"color": style["color"], "alpha": 0.12, "linewidth": 0}
    axes.fill_between(numbers["x"], numbers["low"], numbers["high"], **band)  # type: ignore[arg-type]
    return line


def draw_points(axes: Axes, numbers: pd.DataFrame, style: Style) -> Artist:
    bars = [numbers["mean"] - numbers["low"], numbers["high"] - numbers["mean"]]
    whole: Any = axes.errorbar(
        numbers["x"],
        numbers["mean"],
        bars,
        capsize=3,
        **({"marker": "o"} | style),  # type: ignore[arg-type]
    )
    handle: Artist = whole
    return handle


def starts_from_scratch(table: pd.DataFrame) -> bool:
    return bool(table.loc[table["role"] == "phase 2", "first_epoch"].min() == 0)


def draw_phase1(axes: Axes, before: pd.DataFrame, table: pd.DataFrame) -> None:
    """Draw phase 1, and a line where it ends; nothing for runs from random initialisation."""
    if starts_from_scratch(table):
        return
    switch = int(table.loc[table["role"] == "phase 2", "first_epoch"].min())
    axes.axvline(switch, color="0.7", linewidth=0.8, linestyle=":")
    top = {"transform": axes.get_xaxis_transform(), "va": "top", **NOTE}
    axes.text(switch, 0.99, " switch", **top)
    before = before[before["x"] <= switch]
    if len(before):
        draw_curve(axes, before, {"color": PHASE1_COLOR})
        axes.text(switch, 0.99, "phase 1 ", ha="right", **top)


def draw_cooldown(axes: Axes, numbers: pd.DataFrame, panel: Panel, *, named: bool) -> None:
    """Shade the cool-down, which begins where phase 2 ends, and name it if ``named``."""
    late = numbers[numbers["role"] == "cooldown"]
    if panel.x in OVER_TIME and len(late):
        start = numbers.loc[numbers["role"] == "phase 2", "x"].max()
        axes.axvspan(start, late["x"].max(), color="0.93", linewidth=0, zorder=0)
        if named:
            place = axes.get_xaxis_transform()
            axes.text(start, 0.02, "cool-down ", transform=place, ha="right", **NOTE)
