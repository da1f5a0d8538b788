"""Draw a figure from its tables: panels side by side, rows stacked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.figure import SubFigure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, NullLocator

from trainer.errors import UserError
from workflow.analysis.figures.curves import (
    curve_labels,
    draw_cooldown,
    draw_curves,
    draw_phase1,
    starts_from_scratch,
)
from workflow.analysis.figures.end_labels import label_ends, spread
from workflow.analysis.figures.overlay import draw_overlaid
from workflow.analysis.figures.panels import AFTER_START, RunsOf, panel_numbers
from workflow.analysis.figures.quantities import LOGARITHMIC, SHOWN, XLABELS, row_label
from workflow.analysis.figures.style import (
    Styles,
    label_2_and_5,
    label_styles,
    line_style,
    save,
    wrap,
)
from workflow.analysis.tables.build import write_csv
from workflow.analysis.tables.evaluations import SETTING, missing_or_diverged
from workflow.config import Plot
from workflow.figures import Figure, Panel, Row


def draw(
    name: str,
    figure: Figure,
    tables: Mapping[str, pd.DataFrame],
    titles: Mapping[str, str],
    plot: Plot,
    out: Path,
    runs_of: RunsOf | None = None,
) -> None:
    """Draw ``figure`` to ``out``.png and .pdf, and its numbers to ``out``.csv.

    ``tables`` and ``titles`` are by experiment. Raises UserError when there is nothing to draw.
    """
    panels = [panel for panel in figure.panels if has_runs(tables.get(panel.experiment))]
    if not panels:
        raise UserError(f"{name}: no run of its experiments is finished; train some first")
    numbers = [panel_numbers(tables[panel.experiment], panel, runs_of) for panel in panels]
    write_csv(pd.concat(numbers), out.with_name(out.name + ".csv"))
    if figure.overlaid:
        panels, numbers = panels[:1], [pd.concat(numbers, ignore_index=True)]
    columns = min(figure.columns, len(panels))
    lines = -(-len(panels) // columns)
    rows = max(len(panel.rows) for panel in panels)
    width = plot.width * (1 if columns == 1 else 0.7 * columns)
    height = plot.height * lines * (0.35 + 0.65 * rows / 2) * (1.25 if figure.overlaid else 1)
    canvas = Canvas(figsize=(width, height), layout="constrained")
    styles = curve_styles(panels, numbers, plot)
    subfigures = canvas.subfigures(lines, columns, squeeze=False).flat
    letters = {id(panel): chr(ord("a") + i) for i, panel in enumerate(figure.panels)}
    drawn: dict[str, Artist] = {}
    labels: dict[Axes, list[Annotation]] = {}
    for subfigure, panel, part in zip(subfigures, panels, numbers, strict=False):
        axes, handles = draw_panel(subfigure, figure, panel, part, tables[panel.experiment], styles)
        if not figure.overlaid:
            at_end = label_ends(axes, handles)
            labels[axes] = list(at_end.values())
            handles = {name: handle for name, handle in handles.items() if name not in at_end}
            letter = f"({letters[id(panel)]}) " if len(figure.panels) > 1 else ""
            draw_titles(subfigure, axes, letter, panel, titles[panel.experiment], columns)
        drawn |= handles
    if figure.title:
        canvas.suptitle(figure.title, fontsize="large")
    title = wrap(seeds_note(figure, numbers, tables), 40 * max(columns, 2))
    draw_legend(canvas, drawn, title, ncols=3 if columns == 1 and not figure.overlaid else 6)
    canvas.draw_without_rendering()  # settles the layout, which distances between labels need
    for axes, texts in labels.items():
        spread(axes, texts)
    save(canvas, out)


def draw_titles(
    place: SubFigure, axes: Axes, letter: str, panel: Panel, setting: str, columns: int
) -> None:
    """Write above the panel what one should see if the paper holds, and what was run."""
    first, second = (f"Expected: {panel.expected}", setting) if panel.expected else (setting, "")
    place.suptitle(
        wrap(letter + first, 60 if columns == 1 else 56),
        fontsize="medium" if columns == 1 else "small",
    )
    axes.set_title(wrap(second, 75), fontsize="small" if columns == 1 else "x-small", color="0.35")


def draw_legend(canvas: Canvas, handles: Mapping[str, Artist], title: str, ncols: int) -> None:
    """Draw the legend below the panels, in up to ``ncols`` columns as the width allows."""
    for columns in range(ncols, 0, -1):
        legend = canvas.legend(
            list(handles.values()),
            list(handles.keys()),
            loc="outside lower center",
            ncols=columns,
            fontsize="small",
            title=title,
            title_fontsize="small",
            frameon=False,
        )
        if columns == 1 or legend.get_window_extent().width <= canvas.bbox.width:
            return
        legend.remove()


def seeds_note(
    figure: Figure, numbers: list[pd.DataFrame], tables: Mapping[str, pd.DataFrame]
) -> str:
    """Write the note below the figure: number of seeds, and what is missing."""
    n = pd.concat(numbers)["n"]
    if n.empty:
        return "no run has an SGD (H = 1) to be compared with"
    seeds = f"n = {n.max()}" if n.nunique() == 1 else f"n = {n.min()} to {n.max()}"
    shown = (
        "mean (filled: 95 % interval without 0)" if figure.overlaid else "mean and 95 % interval"
    )
    seeds_text = f"{shown} over seeds, {seeds}" if n.max() > 1 else "one seed, no interval"
    missing = [missing_or_diverged(tables[name]) for name in figure.experiments if name in tables]
    lacking = [name for name in figure.experiments if name not in tables]
    not_in_scale = "" if figure.overlaid else ", ".join(lacking)
    absent = f"this scale has no {not_in_scale}" if not_in_scale else ""
    late = any("cooldown" in set(part["role"]) for part in numbers)
    shaded = "shaded: cool-down, a last phase with small η and the same H for all" if late else ""
    return "\n".join(filter(None, [seeds_text, shaded, *missing, absent]))


def draw_panel(
    place: SubFigure,
    figure: Figure,
    panel: Panel,
    numbers: pd.DataFrame,
    table: pd.DataFrame,
    styles: Styles,
) -> tuple[Axes, dict[str, Artist]]:
    """Draw all rows of ``panel``; return the first row's axes, and the curves by name."""
    heights = [3 if row.paired_with is None else 2 for row in panel.rows]
    all_axes = place.subplots(
        len(panel.rows), 1, sharex=True, height_ratios=heights, squeeze=False
    )[:, 0]
    handles: dict[str, Artist] = {}
    for axes, row in zip(all_axes, panel.rows, strict=True):
        part = numbers[numbers["quantity"] == row_label(row)]
        found = draw_row(axes, panel, row, part, table, styles, overlaid=figure.overlaid)
        handles |= {name: found[name] for name in found if name not in handles}
    format_x_axis(all_axes[-1], panel, numbers)
    return all_axes[0], handles


def draw_row(
    axes: Axes,
    panel: Panel,
    row: Row,
    numbers: pd.DataFrame,
    table: pd.DataFrame,
    styles: Styles,
    *,
    overlaid: bool,
) -> dict[str, Artist]:
    paired = row.paired_with is not None
    after = numbers[numbers["role"].isin(AFTER_START)]
    handles: dict[str, Artist] = {}
    draw_cooldown(axes, numbers, panel, named=not paired)
    if paired:
        axes.axhline(0, color="0.3", linewidth=0.8)
    elif panel.x == "epoch":
        draw_phase1(axes, numbers[numbers["role"] == "phase 1"], table)
    if overlaid:
        handles |= draw_overlaid(axes, after, styles)
    else:
        handles |= draw_curves(axes, panel, after, styles)
    # The unit on a line of its own: a paired row is lower than its label is long.
    axes.set_ylabel(row_label(row).replace(" (points)", "\n(points)"), fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    if after.empty:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="0.4")
    elif SHOWN[row.quantity].log and not paired:
        axes.set_yscale("log")
        label_2_and_5(axes.yaxis)
    elif not paired:
        # The limits fit what follows the switch: phase 1, or the first evaluation of a run from
        # random initialisation, lies far below.
        shown = after[after["x"] > after["x"].min()] if starts_from_scratch(table) else after
        shown = shown if len(shown) else after
        low, high = shown[["mean", "low"]].min().min(), shown[["mean", "high"]].max().max()
        margin = max(high - low, 0.1)
        axes.set_ylim(low - 0.3 * margin, high + 0.1 * margin)
    if row.limits is not None:
        axes.set_ylim(*row.limits)
    return handles


def has_runs(table: pd.DataFrame | None) -> bool:
    return table is not None and bool((table["step"].notna() & (table["role"] == "phase 2")).any())


def curve_styles(panels: list[Panel], numbers: list[pd.DataFrame], plot: Plot) -> Styles:
    """Choose a style per H or label for the whole figure, so that its legend fits every panel."""
    drawn, labels = {1}, set[str]()
    for panel, part in zip(panels, numbers, strict=True):
        after = part[part["role"].isin(AFTER_START)]
        if SETTING in part:
            labelled = after[SETTING].notna()
            labels |= set(curve_labels(panel, after[labelled]))
            after = after[~labelled]
        if panel.x != "local_steps":
            drawn |= {int(h) for h in after["first_local_steps"]}
    by_h = {h: line_style(h, rank, plot) for rank, h in enumerate(sorted(drawn), start=-1)}
    return by_h | label_styles(labels, plot)


def format_x_axis(axes: Axes, panel: Panel, numbers: pd.DataFrame) -> None:
    axes.set_xlabel(XLABELS[panel.x])
    if panel.x in ("local_steps", "num_clients"):
        axes.set_xscale("log", base=2)
        ticks = sorted(int(x) for x in numbers["x"].unique())
        axes.set_xticks(
            ticks, [str(tick) for tick in ticks], rotation=45 if max(ticks) > 999 else 0
        )
        axes.xaxis.set_minor_locator(NullLocator())
    elif panel.x in LOGARITHMIC:
        axes.set_xscale("log")
        if panel.x != "megabytes":  # which span many decades
            label_2_and_5(axes.xaxis)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
