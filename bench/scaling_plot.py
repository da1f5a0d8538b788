"""The pictures of the scaling benchmark: images per second, one panel per network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from bench.measure import PLOTS, Spread
from trainer.files import atomic

STYLES = (("0.45", "o", "--"), ("#414487", "s", ":"), ("#21918c", "D", "-"), ("#7ad151", "^", "-"))


@dataclass(frozen=True)
class Curve:
    name: str
    points: Sequence[tuple[float, Spread]]


def draw(name: str, xlabel: str, panels: Mapping[str, Sequence[Curve]]) -> Path:
    """Medians as lines, the repetitions' range as bars; both axes logarithmic."""
    figure = Figure(figsize=(1.2 + 3.0 * max(len(panels), 1.6), 3.6), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (panel, curves) in zip(all_axes, panels.items(), strict=True):
        for curve, (color, marker, line) in zip(curves, STYLES, strict=False):
            xs = [x for x, _ in curve.points]
            medians = [spread.median for _, spread in curve.points]
            low = [spread.median - spread.low for _, spread in curve.points]
            high = [spread.high - spread.median for _, spread in curve.points]
            axes.errorbar(
                xs,
                medians,
                [low, high],
                color=color,
                marker=marker,
                linestyle=line,
                markersize=4,
                capsize=2,
                label=curve.name,
            )
        ticks = sorted({x for curve in curves for x, _ in curve.points})
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(ticks, [short(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.set_title(panel, fontsize="medium")
        axes.set_xlabel(xlabel)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9")
    all_axes[0].set_ylabel("images per second")
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    path = PLOTS / f"{name}.png"
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200)
    return path


def short(value: float) -> str:
    """1,234,567 as 1.2M."""
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return (
                f"{value / limit:.2g}{letter}"
                if value < 100 * limit
                else f"{value / limit:.0f}{letter}"
            )
    return f"{value:g}"
