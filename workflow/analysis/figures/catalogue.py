"""List every figure: the experiments it is drawn from and what it shows.

``workflow/rules`` derives its targets from this list and ``drawing.py`` draws it. Imports nothing
heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

X = Literal["epoch", "step", "slow_time", "first_local_steps", "num_clients", "megabytes"]


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Describe a column of the tables as figures show it."""

    column: str
    label: str
    times: float = 1.0
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """Describe one axes of a panel: a quantity, or its gain over the control of the same seed.

    The gain of a ``log`` quantity is the logarithm of the control's value over the run's own.
    """

    quantity: Quantity
    paired: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Describe stacked axes that share ``x``: all evaluations over it, or each run's last one."""

    experiment: str
    x: X = "epoch"
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Describe a figure. ``caption`` is the report's; drawing adds the numbers of seeds.

    ``overlaid``: all panels have the same x and rows and share one axis.
    """

    panels: tuple[Panel, ...]
    columns: int = 1
    overlaid: bool = False
    title: str = ""
    caption: str

    @property
    def experiments(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(panel.experiment for panel in self.panels))


ACCURACY = Quantity(column="test_accuracy", label="test accuracy (%)", times=100)
TRACE = Quantity(column="hessian_trace", label="trace of the Hessian", log=True)
ACCURACY_AND_GAIN = (Row(quantity=ACCURACY), Row(quantity=ACCURACY, paired=True))
SLOW_TIME_ROWS = (Row(quantity=ACCURACY, paired=True), Row(quantity=TRACE, paired=True))
MEAN = "Lines are means over seeds, bands 95 % intervals. "
GAIN = "Below: the difference from SGD (H = 1) of the same seed, which shares its start point. "

FIG2 = {
    "fig2a": "CIFAR-10 from random initialisation, small learning rate.",
    "fig2b": "CIFAR-10 from the switch: a small and a large learning rate.",
    "fig2c": "ImageNet from the switch: a small and a large learning rate.",
    "fig2d": "ImageNet from random initialisation, large learning rate.",
    "fig2e": "CIFAR-10 from the switch: accuracy at the end against H.",
    "fig2f": "ImageNet from the switch: accuracy at the end against H.",
}


def _fig2_panel(name: str) -> Panel:
    x: X = "first_local_steps" if name[-1] in "ef" else "epoch"
    return Panel(experiment=name, x=x, rows=ACCURACY_AND_GAIN)


FIGURES = {
    "fig1a": Figure(
        panels=(Panel(experiment="fig1a", rows=ACCURACY_AND_GAIN),),
        caption="Figure 1(a): post-local SGD against SGD after the switch, CIFAR-10. "
        + MEAN
        + GAIN,
    ),
    "fig1b": Figure(
        panels=(Panel(experiment="fig1b", rows=ACCURACY_AND_GAIN),),
        caption="Figure 1(b): post-local SGD against SGD after the switch, ImageNet. "
        + MEAN
        + GAIN,
    ),
    "fig2": Figure(
        panels=tuple(_fig2_panel(name) for name in FIG2),
        columns=3,
        title="Learning rate, training time and H",
        caption="Figure 2: what the gain of Local SGD needs. " + MEAN + GAIN,
    ),
    **{
        name: Figure(
            panels=(_fig2_panel(name),),
            caption=f"Figure 2({name[-1]}): {text} {MEAN}{GAIN}",
        )
        for name, text in FIG2.items()
    },
    "fig3a": Figure(
        panels=(Panel(experiment="fig3a", x="num_clients", rows=ACCURACY_AND_GAIN),),
        caption="Figure 3(a): accuracy at the end against the number of clients K at fixed B_loc, "
        "η and H: more clients mean less diffusion. Points are means over seeds, bars 95 % "
        "intervals. Below: the difference from the smallest K of the same seed.",
    ),
    "fig7": Figure(
        panels=tuple(
            Panel(
                experiment=name,
                x="step",
                rows=(*ACCURACY_AND_GAIN, Row(quantity=TRACE)),
            )
            for name in ("fig7a", "fig7b")
        ),
        columns=2,
        title="Label noise",
        caption="Figure 7: label noise. Local SGD regularises faster: accuracy, its difference "
        "from SGD of the same seed, and the sharpness (trace of the training loss's Hessian) that "
        "the slow drift lowers. " + MEAN,
    ),
    "slowtime": Figure(
        panels=tuple(
            Panel(experiment=name, x="slow_time", rows=SLOW_TIME_ROWS)
            for name in ("fig1a", "fig1b", *FIG2, "fig7a", "fig7b")
        ),
        overlaid=True,
        title="When Local SGD begins to gain",
        caption="All runs of the scale whose experiment has SGD (H = 1), over the slow time since "
        "their start, η²·steps / B_loc: the Slow SDE's additional drift for H > 1, per unit of it, "
        "depends on η, H and K only through (K − 1)/K · ψ(ηH · curvature). Above: the difference "
        "from SGD's accuracy with the same seed, start point, η and steps. Below, where it was "
        "measured: ln(trace of SGD's Hessian ÷ its own). Each line is the mean over seeds of one "
        "experiment, H and η, at the steps where SGD was evaluated too; a point is filled where "
        "its 95 % interval excludes 0. Differences beyond ± 1 point are compressed.",
    ),
    "communication": Figure(
        panels=(Panel(experiment="fig1a", x="megabytes", rows=(Row(quantity=ACCURACY),)),),
        caption="Test accuracy against the bytes that one client has sent since the switch, runs "
        "of Figure 1(a). " + MEAN,
    ),
}
EXPERIMENTS = sorted({name for figure in FIGURES.values() for name in figure.experiments})
THEORY_CAPTION = (
    "Simulated Local SGD on two models whose minimisers form a curve, against the Slow SDE: the "
    "drift's factor over SGD's as a function of ηH times the curvature, for several K, and the "
    "diffusion, which does not depend on H. Bars are 95 % intervals."
)
