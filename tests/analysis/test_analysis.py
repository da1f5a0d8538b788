"""The figures' numbers against scipy and hand-made cases, and what is drawn of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas
from matplotlib.image import imread
from scipy import stats

from trainer.errors import UserError
from workflow.analysis.figures.curves import draw_curves
from workflow.analysis.figures.drawing import (
    curve_styles,
    draw,
    draw_legend,
    draw_row,
    seeds_note,
)
from workflow.analysis.figures.panels import panel_numbers
from workflow.analysis.figures.style import label_styles, line_style
from workflow.analysis.tables.evaluations import missing_or_diverged
from workflow.config import Plot
from workflow.figures import Row
from workflow.paper import paper

FIGURES = paper().figures


def table(**changes: object) -> pd.DataFrame:
    """Three seeds; H = 8 gains 1, 2 and 3 points over SGD at epoch 20, nothing at 10."""
    rows = [
        {
            "experiment": "fig1a",
            "role": "phase 2",
            "run": f"H{h}-s{seed}",
            "seed": seed,
            "num_clients": 16,
            "batch_size": 5,
            "peak_lr": 0.1,
            "lr": 0.1,
            "first_local_steps": h,
            "first_epoch": 10,
            "epoch": epoch,
            "step": 4.0 * (epoch - 10),
            "round": 4.0 * (epoch - 10) / h,
            "bytes_sent": 1e6 * (epoch - 10) / h,
            "test_accuracy": 0.5 + 0.1 * seed + 0.01 * seed * (h > 1) * (epoch == 20),
            "hessian_trace": 3.0 / h,
            "diverged": False,
        }
        for seed in (1, 2, 3)
        for h in (1, 8)
        for epoch in (10, 20)
    ]
    return pd.DataFrame(rows).assign(**changes)


GAIN = "gain over SGD\nof the same seed (points)"
PANEL = FIGURES["fig1a"].panels[0]


def drawn(name: str, tables: dict[str, pd.DataFrame], out: Path) -> pd.DataFrame:
    draw(name, FIGURES[name], tables, dict.fromkeys(tables, "title"), Plot(), out)
    return pd.read_csv(out.with_name(out.name + ".csv"))


def test_the_gain_is_paired_by_seed() -> None:
    numbers = panel_numbers(table(), PANEL).set_index(["quantity", "first_local_steps", "x"])
    gain = numbers.loc[(GAIN, 8, 20)]
    wanted = stats.ttest_1samp([1.0, 2.0, 3.0], 0).confidence_interval(0.95)
    assert gain[["mean", "low", "high"]].tolist() == pytest.approx([2.0, wanted.low, wanted.high])
    assert numbers.loc[(GAIN, 8, 10), "mean"] == pytest.approx(0, abs=1e-9)
    assert numbers.loc[("test accuracy (%)", 1, 10), "mean"] == pytest.approx(70)
    assert (numbers["n"] == 3).all()


@pytest.mark.parametrize("limits", [(60.0, 75.0), None])
def test_limits_of_an_axis_are_kept(limits: tuple[float, float] | None) -> None:
    axes, row = Canvas().subplots(), Row(quantity="accuracy", limits=limits)
    numbers = panel_numbers(table(), PANEL.model_copy(update={"rows": [row]}))
    draw_row(axes, PANEL, row, numbers, table(), curve_styles([PANEL], [numbers], Plot()),
             overlaid=False)  # fmt: skip
    assert (axes.get_ylim() == limits) == (limits is not None)


def test_a_curve_goes_on_into_the_cooldown() -> None:
    late = table().assign(role="cooldown", epoch=lambda t: t["epoch"] + 20)
    numbers = panel_numbers(pd.concat([table(), late], ignore_index=True), PANEL)
    axes = Canvas().subplots()
    draw_curves(axes, PANEL, numbers[numbers["quantity"] == GAIN], {8: {"color": "red"}})
    [line] = axes.lines
    assert list(line.get_xdata()) == [10, 20, 30, 40]  # type: ignore[arg-type]
    assert "cool-down" in seeds_note(FIGURES["fig1a"], [numbers], {"fig1a": table()})


def test_against_h_only_the_last_evaluation_counts() -> None:
    numbers = panel_numbers(table(), FIGURES["fig2e"].panels[0]).set_index(["quantity", "x"])
    assert numbers.loc[("test accuracy (%)", 1), "mean"] == pytest.approx(70)
    assert numbers.loc[("test accuracy (%)", 8), "mean"] == pytest.approx(72)
    assert numbers.loc[(GAIN, 8), "mean"] == pytest.approx(2)


def test_against_k_the_smallest_is_the_control() -> None:
    small = table(num_clients=4, run="K4-" + table()["run"])
    large = table(test_accuracy=table()["test_accuracy"] + 0.03)
    both = pd.concat([small, large], ignore_index=True)[lambda rows: rows["first_local_steps"] == 8]
    numbers = panel_numbers(both, FIGURES["fig3a"].panels[0]).set_index(["quantity", "x"])
    assert numbers.loc[("gain over smallest K\nof the same seed (points)", 16), "mean"] == (
        pytest.approx(3)
    )


def test_communication_is_in_megabytes_after_the_first_averaging() -> None:
    numbers = panel_numbers(table(), FIGURES["communication"].panels[0])
    assert numbers[["first_local_steps", "x"]].to_numpy().tolist() == [[1, 10.0], [8, 10 / 8]]


def test_a_figure_without_sgd_has_accuracies_and_no_gains() -> None:
    only_local = table()[lambda t: t["first_local_steps"] > 1]
    assert set(panel_numbers(only_local, PANEL)["quantity"]) == {"test accuracy (%)"}


def test_evaluations_that_sgd_lacks_are_named() -> None:
    gaps = table()[lambda t: (t["first_local_steps"] > 1) | (t["epoch"] == 20)]
    with pytest.raises(UserError, match="eval_freq1"):
        panel_numbers(gaps, PANEL)


@pytest.mark.parametrize("h", [1, 8])
def test_a_run_that_diverged_is_named_and_counts_as_an_end(tmp_path: Path, h: int) -> None:
    """Over time it is drawn up to there: its last line stands at a step of its own."""
    rows = table()
    ended = (rows["seed"] == 2) & (rows["first_local_steps"] == h) & (rows["epoch"] == 20)
    rows.loc[ended, ["epoch", "step", "test_accuracy", "diverged"]] = 13, 15.0, 0.1, True
    numbers = drawn("fig1a", {"fig1a": rows}, tmp_path / "fig1a")
    assert set(numbers["x"]) == {10, 20}
    over_time = numbers.set_index(["quantity", "first_local_steps", "x"])["n"]
    assert over_time[("test accuracy (%)", h, 20)] == 2
    assert over_time[(GAIN, 8, 10)] == 3 and over_time[(GAIN, 8, 20)] == 2
    at_end = panel_numbers(rows, FIGURES["fig2e"].panels[0]).set_index(["quantity", "x"])
    others = 10 * (h > 1) * np.array([6.1, 8.3]) + 10 * (h == 1) * np.array([6, 8])
    assert at_end.loc[("test accuracy (%)", h), "mean"] == pytest.approx(np.mean([*others, 10]))
    assert missing_or_diverged(rows) == f"diverged: 1 of 6 runs of fig1a (seed 2: H = {h})"


def test_many_seeds_that_diverged_are_counted() -> None:
    runs = [(h, seed) for h in (1, 8) for seed in range(5)]
    rows = pd.DataFrame(
        {
            "experiment": "fig2b",
            "run": [f"H{h}-s{seed}" for h, seed in runs],
            "seed": [seed for _, seed in runs],
            "first_local_steps": [h for h, _ in runs],
            "step": 1,
            "diverged": [h == 8 or seed == 4 for h, seed in runs],
        }
    )
    named = "H = 8: 5 seeds; seed 4: H = 1"
    assert missing_or_diverged(rows) == f"diverged: 6 of 10 runs of fig2b ({named})"


def test_no_finished_run_is_an_error_and_a_missing_one_is_named(tmp_path: Path) -> None:
    rows = table()
    gone = (rows["seed"] == 2) & (rows["first_local_steps"] == 8)
    rows.loc[gone, ["step", "epoch", "test_accuracy"]] = np.nan
    rows = rows[~(gone & rows.duplicated("run"))]
    assert missing_or_diverged(rows) == "missing: 1 of 6 runs of fig1a (seed 2: H = 8)"
    numbers = drawn("fig1a", {"fig1a": rows}, tmp_path / "fig1a")
    assert set(numbers.loc[numbers["quantity"] == GAIN, "n"]) == {2}
    none = rows.assign(step=np.nan)
    with pytest.raises(UserError, match="fig1a: no run of its experiments is finished"):
        drawn("fig1a", {"fig1a": none}, tmp_path / "fig1a")
    others = {"fig2a": none.assign(experiment="fig2a"), "fig2e": rows.assign(experiment="fig2e")}
    assert set(drawn("fig2", others, tmp_path / "fig2")["experiment"]) == {"fig2e"}


def test_panels_that_the_scale_lacks_are_left_out(tmp_path: Path) -> None:
    both = {name: table(experiment=name) for name in ("fig2a", "fig2e")}
    assert set(drawn("fig2", both, tmp_path / "fig2")["experiment"]) == {"fig2a", "fig2e"}


def test_equal_tables_give_equal_figures(tmp_path: Path) -> None:
    several = pd.concat(
        [table(), table(num_clients=4, run="K4-" + table()["run"])], ignore_index=True
    )
    tables = {each: several.assign(experiment=each) for each in FIGURES["fig2"].experiments}
    for out in ("a", "b"):
        drawn("fig2", tables, tmp_path / out)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    # The layout's solver leaves the last digits of positions open, seen in its PDF.
    a, b = (imread(tmp_path / f"{out}.png") for out in ("a", "b"))
    assert a.shape == b.shape
    assert np.abs(a - b).mean() < 1e-3


@pytest.mark.parametrize("length", [5, 20])
def test_a_legend_is_no_wider_than_its_figure(length: int) -> None:
    canvas = Canvas(figsize=(5.5, 5), layout="constrained")
    [line] = canvas.subplots().plot([0, 1])
    draw_legend(canvas, {f"{i}" * length: line for i in range(5)}, "five curves", ncols=3)
    [legend] = canvas.legends
    assert legend.get_window_extent().width <= canvas.bbox.width
    assert legend._ncols == (3 if length == 5 else 2)


def test_an_h_keeps_its_colour_whatever_else_is_drawn() -> None:
    plot = Plot()
    assert line_style(32, 0, plot)["color"] == line_style(32, 3, plot)["color"]
    assert line_style(32, 0, plot)["color"] != line_style(64, 0, plot)["color"]
    assert line_style(1, 0, plot)["color"] == plot.sgd_color


def test_curves_of_one_h_are_told_apart() -> None:
    """Plain SGD is in its own colour, and controls, which have H = 1, too, are not."""
    plot = Plot()
    controls = ("H = 1; EMA 0.99", "H = 1; K = 1", "H = 1; SWA", "H = 64; K = 1", "H: QSR, α = 1")
    styles = label_styles([*controls, "H = 64", "H = 1", "H = 1024", "H = 3072"], plot)
    for h in (1, 64, 1024):
        assert styles[f"H = {h}"]["color"] == line_style(h, 0, plot)["color"]
    assert len({str(style["color"]) for style in styles.values()}) == len(styles) == 9


def test_a_rule_of_h_keeps_its_colour_in_all_panels() -> None:
    labels = ("H: QSR, α = 1", "H: QSR, α = 2, H ≥ 4", "H: 1/η, α = 3")
    styles = label_styles(labels, Plot())
    one, two, inverse = (styles[label] for label in labels)
    assert one["color"] == two["color"] != inverse["color"]
    assert (one["linestyle"], one.get("marker")) != (two["linestyle"], two.get("marker"))
