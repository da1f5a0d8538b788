"""What is drawn: lines, bands and error bars are at the numbers of a table made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import same_color
from matplotlib.figure import Figure as Canvas

from workflow.analysis.figures.curves import draw_curves, draw_phase1
from workflow.analysis.figures.drawing import format_x_axis
from workflow.analysis.figures.overlay import draw_overlaid
from workflow.analysis.figures.style import Styles
from workflow.analysis.theory import figure as theory
from workflow.figures import Panel, Row, X

# x, low, mean and high: no mean is in the middle of its interval.
SGD = [(10, 69.0, 70.0, 72.0), (20, 73.0, 75.0, 76.0)]
LOCAL = [(10, 68.0, 71.0, 71.5), (20, 70.0, 77.0, 77.5)]
STYLES: Styles = {1: {"color": "red"}, 8: {"color": "blue"}}
LABELS: Styles = {"H = 1": {"color": "red"}, "H = 8; SWA": {"color": "blue"}}


def numbers(points: dict[int, list[tuple[int, float, float, float]]]) -> pd.DataFrame:
    """Make a panel's numbers of the points by H, with the last point first."""
    rows = [
        {"first_local_steps": h, "num_clients": 4, "peak_lr": 0.1, "experiment": "fig1a"}
        | dict(zip(("x", "low", "mean", "high"), point, strict=True))
        for h in points
        for point in reversed(points[h])
    ]
    return pd.DataFrame(rows).assign(role="phase 2")


def panel(x: X) -> Panel:
    return Panel(experiment="fig1a", x=x, rows=[Row(quantity="accuracy")])


def bands(axes: Axes) -> list[list[tuple[float, float, float]]]:
    """Read each band's x, lower and upper edge."""
    found = []
    for band in axes.collections:
        if isinstance(band, PolyCollection):
            edge = pd.DataFrame(band.get_paths()[0].vertices, columns=["x", "y"])
            sides = edge.groupby("x")["y"].agg(["min", "max"])
            found.append(list(sides.itertuples(name=None)))
    return found


def bars(axes: Axes) -> list[list[tuple[float, ...]]]:
    """Read of each drawn series x, the bar's ends and between them the point."""
    found = []
    for series in axes.containers:
        points, _, [lines] = series.lines  # type: ignore[attr-defined]
        ends = [segment[:, 1] for segment in lines.get_segments()]
        found.append(
            [
                (x, low, y, high)
                for (x, y), (low, high) in zip(points.get_xydata(), ends, strict=True)
            ]
        )
    return found


def approximately(points: list[Any]) -> Any:
    return [pytest.approx(tuple(point)) for point in points]


@pytest.mark.parametrize("labelled", [False, True])
def test_over_time_lines_are_means_in_bands_of_the_intervals(labelled: bool) -> None:
    axes, table = Canvas().subplots(), numbers({1: SGD, 8: LOCAL})
    if labelled:
        table["setting"] = table["first_local_steps"].map({1: "H = 1", 8: "H = 8; SWA"})
    handles = draw_curves(axes, panel("epoch"), table, LABELS if labelled else STYLES)
    assert list(handles.values()) == list(axes.lines)
    for line, band, points, color in zip(
        axes.lines, bands(axes), (SGD, LOCAL), ("red", "blue"), strict=True
    ):
        assert line.get_xydata().tolist() == [[x, mean] for x, _, mean, _ in points]
        assert band == [(x, low, high) for x, low, _, high in points]
        assert same_color(line.get_color(), color)


def test_at_the_end_points_are_means_with_bars_to_the_interval() -> None:
    table = numbers({1: SGD[:1], 8: LOCAL[1:]})
    axes = Canvas().subplots()
    handles = draw_curves(axes, panel("communication_share"), table, STYLES)
    assert list(handles) == ["SGD, H = 1", "Local SGD, H = 8"]
    assert bars(axes) == [approximately(SGD[:1]), approximately(LOCAL[1:])]
    over_h = Canvas().subplots()
    table["x"] = table["first_local_steps"]
    assert draw_curves(over_h, panel("local_steps"), table, STYLES) == {}
    assert bars(over_h) == [approximately([(1, *SGD[0][1:]), (8, *LOCAL[1][1:])])]


def test_overlaid_lines_are_means_and_filled_where_the_interval_lacks_0() -> None:
    above, below = (10, 0.1, 0.2, 0.5), (20, -0.5, -0.4, -0.1)
    around, unknown = (30, -0.1, 0.3, 0.4), (40, np.nan, 0.6, np.nan)
    axes = Canvas().subplots()
    table = numbers({8: [unknown, around, below, above]})  # in the order of x
    handles = draw_overlaid(axes, table, STYLES)
    line, open_points = axes.lines
    assert handles == {"H = 8": line} and same_color(line.get_color(), "blue")
    points = [(10, 0.2), (20, -0.4), (30, 0.3), (40, 0.6)]
    assert [*map(tuple, line.get_xydata())] == points
    assert [*map(tuple, open_points.get_xydata())] == points[2:]
    assert open_points.get_markerfacecolor() == "white" != line.get_markerfacecolor()


@pytest.mark.parametrize(
    ("x", "scale", "label"),
    [("epoch", "linear", "epoch"), ("num_clients", "log", "K, clients"),
     ("local_steps", "log", "H, local steps"), ("megabytes", "log", "MB sent by one client")],
)  # fmt: skip
def test_an_axis_is_named_and_scaled_by_what_it_shows(x: X, scale: str, label: str) -> None:
    axes, table = Canvas().subplots(), numbers({1: SGD})
    draw_curves(axes, panel(x), table, STYLES)
    format_x_axis(axes, panel(x), table)
    assert (axes.get_xlabel(), axes.get_xscale()) == (label, scale)
    if x in ("num_clients", "local_steps"):
        assert [text.get_text() for text in axes.get_xticklabels()] == ["10", "20"]


def test_phase_1_is_drawn_up_to_the_switch() -> None:
    axes = Canvas().subplots()
    run = pd.DataFrame({"role": ["phase 2"], "first_epoch": [10]})
    draw_phase1(axes, numbers({1: SGD}).sort_values("x"), run)
    switch, line = axes.lines
    assert list(switch.get_xdata()) == [10, 10]
    assert line.get_xydata().tolist() == [[10, 70]]
    assert bands(axes) == [[(10, 69, 72)]]


def test_the_theorys_curves_and_points_are_its_tables() -> None:
    points = pd.DataFrame(
        {
            "num_clients": [2, 2, 4, 4, 8, 8],
            "argument": [0.1, 1.0] * 3,
            "low": [0.9, 1.4, 1.1, 2.0, 1.2, 3.0],
            "mean": [1.0, 1.6, 1.4, 2.7, 1.3, 4.5],
            "high": [1.3, 1.7, 1.5, 3.0, 1.7, 5.0],
            "slow_sde": [1.01, 1.5, 1.02, 2.5, 1.03, 4.6],
            "exact": [1.04, 1.55, 1.05, 2.6, 1.06, 4.7],
        }
    )
    drift, diffusion = Canvas().subplots(1, 2)
    theory._draw_drift(drift, points)
    theory._draw_diffusion(diffusion, points)
    lines = {str(line.get_label()): line.get_ydata() for line in drift.lines}
    for k, part in points.groupby("num_clients"):
        assert list(lines[f"Slow SDE, K = {k}"]) == part["slow_sde"].tolist()
        assert list(lines[f"exact at this η, K = {k}"]) == part["exact"].tolist()
    wanted = points[["argument", "low", "mean", "high"]].to_numpy()
    assert bars(drift) == [approximately(wanted[i : i + 2].tolist()) for i in (0, 2, 4)]
    assert [point[1:] for series in bars(diffusion) for point in series] == approximately(
        wanted[:, 1:].tolist()
    )
