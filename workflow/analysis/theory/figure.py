"""Simulate drift and diffusion of Local SGD and draw them against the Slow SDE."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflow.analysis.figures.style import save
from workflow.analysis.statistics import mean_interval
from workflow.analysis.tables.build import write_csv
from workflow.analysis.theory.simulation import DIFFUSION, DRIFT, Circle, Valley
from workflow.analysis.theory.slow_sde import exact_factor, slow_sde_factor
from workflow.config import Plot

BATCHES = 20  # of replicas; their means are the independent values of the statistics
VALLEY, CIRCLE = Valley(), Circle()
CLIENTS = (2, 4, 8)
# H, and replicas per batch
VALLEY_RUNS = ((1, 2, 4, 8, 16, 32, 64, 125), 75)
CIRCLE_RUNS = ((1, 10, 50, 100, 200, 500, 1000, 2000), 50)
STYLES = {2: ("#7ad151", "^"), 4: ("#21918c", "s"), 8: ("#414487", "o")}


def simulate_all(processes: int) -> pd.DataFrame:
    """Return a row per model, quantity, K, H and batch of replicas: measured and predicted."""
    valley = product(["valley"], CLIENTS, VALLEY_RUNS[0])
    circle = product(["circle"], CLIENTS, CIRCLE_RUNS[0])
    # The longest first, so that no process is still busy with one while the others idle.
    jobs = sorted([*circle, *valley], key=lambda job: (job[0] == "valley", -job[1]))
    with ProcessPoolExecutor(processes) as pool:
        parts = list(pool.map(_simulate, *zip(*jobs, strict=True)))
    keys = ["model", "quantity", "num_clients", "local_steps", "batch"]
    return pd.concat(parts).sort_values(keys, ignore_index=True)


def _simulate(model: str, num_clients: int, local_steps: int) -> pd.DataFrame:
    """Simulate one configuration, on which alone its random numbers depend."""
    draw = np.random.default_rng([len(model), ord(model[0]), num_clients, local_steps])
    rows = _valley_rows if model == "valley" else _circle_rows
    return pd.DataFrame(rows(num_clients, local_steps, draw)).assign(
        model=model, num_clients=num_clients, local_steps=local_steps
    )


def _valley_rows(
    num_clients: int, local_steps: int, draw: np.random.Generator
) -> list[dict[str, object]]:
    per_batch = VALLEY_RUNS[1]
    time = VALLEY.end(local_steps)
    kinds = ("slow_sde", "exact", "sgd_limit", "k_fold_limit")
    predicted = {k: VALLEY.predicted(k, num_clients, local_steps, time) for k in kinds}
    ends = VALLEY.simulate(num_clients, local_steps, BATCHES * per_batch, draw)
    return [
        {
            "quantity": DRIFT,
            "lr": VALLEY.lr,
            "argument": 2 * VALLEY.lr * local_steps * (1 + VALLEY.start**2),
            "batch": batch,
            "replicas": per_batch,
            "measured": VALLEY.factor(float(end), num_clients, time),
            **predicted,
        }
        for batch, end in enumerate(ends.reshape(BATCHES, per_batch).mean(1))
    ]


def _circle_rows(
    num_clients: int, local_steps: int, draw: np.random.Generator
) -> list[dict[str, object]]:
    per_batch = CIRCLE_RUNS[1]
    time = CIRCLE.end(local_steps)
    angle, control = CIRCLE.simulate(num_clients, local_steps, BATCHES * per_batch, draw)
    argument = CIRCLE.lr * local_steps * CIRCLE.curvature
    curvatures = (CIRCLE.curvature, 0.0)
    drift = {
        "slow_sde": float(slow_sde_factor(argument, num_clients)),
        "exact": float(exact_factor(CIRCLE.lr, local_steps, curvatures, num_clients)),
        "sgd_limit": 1.0,
        "k_fold_limit": float(num_clients),
    }
    drifts = (angle - control).reshape(BATCHES, per_batch).mean(1)
    variances = angle.reshape(BATCHES, per_batch).var(1, ddof=1)
    measured = {
        DRIFT: -drifts * num_clients / (CIRCLE.mixed * time),
        DIFFUSION: variances * num_clients / time,
    }
    return [
        {
            "quantity": quantity,
            "lr": CIRCLE.lr,
            "argument": argument,
            "batch": batch,
            "replicas": per_batch,
            "measured": float(value),
            **(drift if quantity == DRIFT else dict.fromkeys(drift, 1.0)),
        }
        for quantity, values in measured.items()
        for batch, value in enumerate(values)
    ]


def theory_points(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row per point: mean and 95 % interval over batches, and the predictions.

    ``standard_errors``: the mean's distance from the exact prediction.
    """
    by = ["model", "quantity", "num_clients", "local_steps", "argument"]
    predictions = ["slow_sde", "exact", "sgd_limit", "k_fold_limit"]
    groups = table.groupby(by)
    points = groups["measured"].apply(mean_interval).unstack()
    points[predictions] = groups[predictions].first()
    points["standard_errors"] = (points["mean"] - points["exact"]) / groups["measured"].sem()
    return points.reset_index()


def theory_figure(table: pd.DataFrame, plot: Plot, out: Path) -> None:
    """Draw ``table`` to ``out``.png and .pdf, and write its points to ``out``.csv."""
    points = theory_points(table)
    write_csv(points, out.with_name(out.name + ".csv"))
    figure = Figure(figsize=(2.0 * plot.width, 0.85 * plot.height), layout="constrained")
    valley, circle, diffusion = figure.subplots(1, 3)
    _draw_drift(valley, points[points["model"] == "valley"])
    valley.set_title("valley ½(1 + x²)y²: drift of x")
    valley.set_xlabel("ηH · 2λ at the start")
    _draw_drift(circle, points[(points["model"] == "circle") & (points["quantity"] == DRIFT)])
    circle.set_title("circle ½λ(r − 1)²: drift of the angle")
    circle.set_xlabel("ηH · λ")
    _draw_diffusion(diffusion, points[points["quantity"] == DIFFUSION])
    for axes in (valley, circle, diffusion):
        axes.set_xscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    valley.set_ylabel("drift over SGD's")
    figure.legend(
        *valley.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5,
        fontsize="small",
        title=_caption(points, table),
        title_fontsize="small",
        frameon=False,
    )
    save(figure, out)


def _caption(points: pd.DataFrame, table: pd.DataFrame) -> str:
    away = {}
    for quantity in (DRIFT, DIFFUSION):
        part = points[points["quantity"] == quantity]
        worst = part.loc[[part["standard_errors"].abs().idxmax()]].to_dict("records")[0]
        away[quantity] = (
            f"{abs(worst['standard_errors']):.1f} standard errors ({worst['model']}, "
            f"K = {worst['num_clients']}, H = {worst['local_steps']}) of {len(part)} points"
        )
    return (
        f"points: mean and 95 % interval over {BATCHES} batches of "
        f"{table['replicas'].min()} to {table['replicas'].max()} replicas\n"
        f"farthest from the exact prediction: drift {away[DRIFT]}, diffusion {away[DIFFUSION]}"
    )


def _draw_drift(axes: Axes, points: pd.DataFrame) -> None:
    for k, (color, marker) in STYLES.items():
        part = points[points["num_clients"] == k]
        x = part["argument"]
        axes.plot(x, part["slow_sde"], color=color, label=f"Slow SDE, K = {k}")
        axes.plot(x, part["exact"], color=color, linestyle=":", label=f"exact at this η, K = {k}")
        axes.axhline(k, color=color, linewidth=0.5, linestyle="--")
        _draw_error_bars(axes, part, color, marker, f"simulated, K = {k}")
    axes.axhline(1, color="0.5", linewidth=0.5, linestyle="--", label="limits: SGD's, K times")


def _draw_diffusion(axes: Axes, points: pd.DataFrame) -> None:
    for i, (k, (color, marker)) in enumerate(STYLES.items()):
        part = points[points["num_clients"] == k]
        # Shifted, since the three would overlap.
        beside = part.assign(argument=part["argument"] * 1.15 ** (i - 1))
        _draw_error_bars(axes, beside, color, marker, "")
    axes.axhline(1, color="0.3", linewidth=0.8)
    axes.set_ylim(0, 1.5)
    axes.set_title("circle: diffusion of the angle")
    axes.set_xlabel("ηH · λ")
    axes.set_ylabel("variance over the Slow SDE's")


def _draw_error_bars(axes: Axes, part: pd.DataFrame, color: str, marker: str, label: str) -> None:
    bars = [part["mean"] - part["low"], part["high"] - part["mean"]]
    style = {"color": color, "marker": marker, "markersize": 4, "linestyle": "none", "capsize": 2}
    axes.errorbar(part["argument"], part["mean"], bars, label=label, **style)  # type: ignore[arg-type]
