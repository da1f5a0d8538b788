"""Plot the scaling benchmark: images per second, one panel per network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.measure import PLOTS, Spread
from trainer.files.atomic import atomic

REFERENCE, SERIAL, TRAINER = "reference", "trainer, one after the other", "trainer, as it chooses"
ONE_STEP = "trainer, H = 1"
STYLES = {
    REFERENCE: ("0.45", "o", "--"),
    SERIAL: ("#414487", "s", ":"),
    TRAINER: ("#21918c", "D", "-"),
    ONE_STEP: ("#7ad151", "^", "-"),
}


@dataclass(frozen=True)
class Curve:
    name: str
    points: Sequence[tuple[float, Spread]]


def draw(name: str, xlabel: str, panels: Mapping[str, Sequence[Curve]], joined: bool) -> Path:
    """Draw medians, ``joined`` by lines, with the repetitions' range as bars, on log axes."""
    figure = Figure(figsize=(1.2 + 3.0 * max(len(panels), 1.6), 3.6), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (panel, curves) in zip(all_axes, panels.items(), strict=True):
        for curve in curves:
            color, marker, line = STYLES[curve.name]
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
                linestyle=line if joined else "none",
                markersize=4,
                capsize=2,
                label=curve.name,
            )
        ticks = sorted({x for curve in curves for x, _ in curve.points})
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(ticks, [abbreviate(tick) for tick in ticks], rotation=0 if joined else 45)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: abbreviate(value)))
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: abbreviate(value)))
        axes.tick_params(axis="y", which="minor", labelsize="small")
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


def abbreviate(value: float) -> str:
    """Abbreviate a number: 1,234,567 as 1.2M."""
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return (
                f"{value / limit:.2g}{letter}"
                if value < 100 * limit
                else f"{value / limit:.0f}{letter}"
            )
    return f"{value:g}"
