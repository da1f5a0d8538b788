"""Figure 1: post-local SGD against SGD after the switch, test accuracy over epochs.

Above, the accuracies; below, the gain over the SGD run of the same seed (same training samples,
initialisation and start point), whose interval is free of what differs between seeds.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.errors import UserError
from workflow.analysis.statistics import over_seeds, paired_difference
from workflow.analysis.style import line_style, save
from workflow.analysis.tables import write_csv
from workflow.experiments import Plot

PHASE1_COLOR = "0.55"
ACCURACY, GAIN = "test accuracy (%)", "gain over SGD (points)"
BY = ["role", "first_local_steps", "epoch"]


def fig1(table: pd.DataFrame, title: str, plot: Plot, out: Path) -> None:
    """Draw ``table`` to ``out``.png and .pdf, and what was drawn to ``out``.csv."""
    curves = fig1_curves(table)
    switch = int(table.loc[table["role"] == "phase 2", "first_epoch"].min())
    write_csv(curves, out.with_name(out.name + ".csv"))
    figure = Figure(figsize=(plot.width, plot.height), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    draw_accuracy(above, curves[curves["quantity"] == ACCURACY], switch, plot)
    draw_gain(below, curves[curves["quantity"] == GAIN], plot)
    figure.suptitle(title, fontsize="medium")
    figure.legend(
        *above.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        fontsize="small",
        title=caption(curves),
        title_fontsize="small",
        frameon=False,
    )
    save(figure, out)


def fig1_curves(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over seeds per quantity, role, H and epoch; in per cent.

    Raises UserError when there is nothing to compare.
    """
    percent = table.assign(test_accuracy=100 * table["test_accuracy"])
    after = percent[percent["role"] == "phase 2"]
    sgd = after[after["first_local_steps"] == 1]
    local = after[after["first_local_steps"] > 1]
    if sgd.empty or local.empty:
        raise UserError("fig1a needs runs with step1 1 (SGD) and step1 > 1; add them to its runs")
    gains = paired_difference(local, sgd, ["seed", "epoch"], "test_accuracy")
    if len(gains) < len(local):
        raise UserError(
            "fig1a compares runs at equal epochs, but some were evaluated where SGD was not; "
            "choose eval_freq1 so that step1 · eval_freq1 of each run is a multiple of SGD's"
        )
    parts = {ACCURACY: percent, GAIN: gains}
    return pd.concat(
        over_seeds(part, BY, "test_accuracy").assign(quantity=quantity)
        for quantity, part in parts.items()
    ).astype({"n": int})[["quantity", *BY, "n", "mean", "low", "high"]]


def caption(curves: pd.DataFrame) -> str:
    n = curves["n"].unique()
    seeds = f"n = {n[0]}" if len(n) == 1 else f"n = {n.min()} to {n.max()}"
    return f"mean and 95 % interval over seeds, {seeds}" if n.max() > 1 else "one seed, no interval"


def draw_accuracy(axes: Axes, curves: pd.DataFrame, switch: int, plot: Plot) -> None:
    after = curves[curves["role"] == "phase 2"]
    before = curves[(curves["role"] == "phase 1") & (curves["epoch"] <= switch)]
    if len(before):
        _curve(axes, before, {"color": PHASE1_COLOR}, "phase 1, H = 1")
        axes.axvline(switch, color="0.7", linewidth=0.8, linestyle=":")
        axes.text(switch, 0.02, " switch", transform=axes.get_xaxis_transform(), color="0.4")
    _curves_by_h(axes, after, plot)
    # What follows the switch is shown in full; phase 1 starts far below it.
    low, high = after[["mean", "low"]].min().min(), after[["mean", "high"]].max().max()
    margin = max(high - low, 0.1)
    axes.set_ylim(low - 0.3 * margin, high + 0.1 * margin)
    axes.set_ylabel(ACCURACY)
    axes.spines[["top", "right"]].set_visible(False)


def draw_gain(axes: Axes, curves: pd.DataFrame, plot: Plot) -> None:
    axes.axhline(0, color=plot.sgd_color, linewidth=0.8)
    _curves_by_h(axes, curves, plot)
    axes.set_xlabel("epoch")
    axes.set_ylabel("gain over SGD of the\nsame seed (points)")
    axes.spines[["top", "right"]].set_visible(False)


def _curves_by_h(axes: Axes, curves: pd.DataFrame, plot: Plot) -> None:
    for local_steps in sorted(int(h) for h in curves["first_local_steps"].unique()):
        curve = curves[curves["first_local_steps"] == local_steps]
        name = "SGD, H = 1" if local_steps == 1 else f"post-local SGD, H = {local_steps}"
        ranks = sorted(h for h in curves["first_local_steps"].unique() if h > 1)
        rank = ranks.index(local_steps) if local_steps > 1 else 0
        _curve(axes, curve, line_style(local_steps, rank, plot), name)


def _curve(axes: Axes, curve: pd.DataFrame, style: dict[str, object], name: str) -> None:
    axes.plot(curve["epoch"], curve["mean"], label=name, **style)  # type: ignore[arg-type]
    band = {"color": style["color"], "alpha": 0.12, "linewidth": 0}
    axes.fill_between(curve["epoch"], curve["low"], curve["high"], **band)  # type: ignore[arg-type]
