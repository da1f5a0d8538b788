"""Plot the communication benchmark: measured bars beside the model's parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure

from bench.communication_model import Repetition
from bench.measure import PLOTS
from trainer.files.atomic import atomic

WIDTH = 0.38
PARTS = {"compute": "0.85", "waiting": "0.7", "latency": "0.55", "bytes / bandwidth": "0.4"}
MEASURED = "#21918c"  # from viridis, as in the figures


def draw(done: Sequence[Repetition], local_steps: Sequence[int]) -> Path:
    """Draw the repetitions' medians as bars and their range as lines; return the file."""
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    measured = [median(r.measured(h) for r in done) for h in local_steps]
    low = [m - min(r.measured(h) for r in done) for m, h in zip(measured, local_steps, strict=True)]
    high = [
        max(r.measured(h) for r in done) - m for m, h in zip(measured, local_steps, strict=True)
    ]
    left = [i - WIDTH / 2 for i in range(len(local_steps))]
    right = [i + WIDTH / 2 for i in range(len(local_steps))]
    below = [0.0] * len(local_steps)
    for name, colour in PARTS.items():
        heights = [median(part(r, h, name) for r in done) for h in local_steps]
        axes.bar(left, heights, WIDTH, bottom=below, color=colour, label=name)
        below = [a + b for a, b in zip(below, heights, strict=True)]
    axes.bar(right, measured, WIDTH, color=MEASURED, label="measured")
    axes.errorbar(right, measured, [low, high], fmt="none", color="black", capsize=3)
    for i, h in enumerate(local_steps):
        deviation = median(r.deviation(h) for r in done)
        axes.annotate(
            f"{deviation:+.0f} %",
            (right[i], measured[i] + high[i]),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize="small",
        )
    axes.set_xticks(range(len(local_steps)), [f"H = {h}" for h in local_steps])
    axes.set_ylabel("s per 1,000 steps")
    axes.margins(y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    axes.set_title(f"Local SGD over 100 Mbit/s, median of {len(done)}", fontsize="medium")
    path = PLOTS / "communication.png"
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200)
    return path


def part(repetition: Repetition, local_steps: int, name: str) -> float:
    """Return seconds per 1,000 steps of the part of the model that the legend calls ``name``."""
    return {
        "compute": repetition.parts[local_steps].compute,
        "waiting": repetition.parts[local_steps].waiting,
        "latency": repetition.latency(local_steps),
        "bytes / bandwidth": repetition.transfer(local_steps),
    }[name]
