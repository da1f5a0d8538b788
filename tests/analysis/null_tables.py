"""Tables of experiments whose true effects are known, for simulating the whole judgement.

Accuracies are those of 1,000 test images. Seeds differ by about a point, and so much more than by
an image that rounding changes no mean; settings of a seed differ by ``spread`` points besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import log

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from tests.analysis.made_runs import CLAIMS, by_seed
from workflow.analysis.claims.measure import ExperimentDesign, Measurement
from workflow.analysis.claims.theory_claim import MARGIN
from workflow.analysis.theory.simulation import DRIFT

H, RATE, LARGE_RATE = 64, 1 / 32, 1 / 4
SMALLEST = 0.5  # points
DESIGN = ExperimentDesign(H, SMALLEST)
STEPS = (512, 1024)
TRACE_SPREAD = 0.1
GRIDS: dict[str, list[tuple[int, float, int]]] = {  # H, η and K
    **{name: [(1, RATE, 16), (H, RATE, 16)] for name in ("fig1a", "fig1b", "fig2a", "fig2d")},
    **{
        name: [(h, rate, 16) for h in (1, H) for rate in (RATE, LARGE_RATE)]
        for name in ("fig2b", "fig2c")
    },
    **{name: [(h, RATE, 16) for h in (1, 8, H, 8 * H)] for name in ("fig2e", "fig2f")},
    "fig3a": [(H, RATE, k) for k in (2, 4, 8, 16)],
    **{name: [(h, RATE, 16) for h in (1, 8, H)] for name in ("fig7a", "fig7b")},
}
Effect = Callable[[str, int, float, int, int], float]  # of experiment, H, η, K and step, in s


def no_effect(experiment: str, h: int, rate: float, k: int, step: int) -> float:
    """Give no row an effect."""
    return 0.0


def smallest_effect(experiment: str, h: int, rate: float, k: int, step: int) -> float:
    """Give every row an effect of exactly s."""
    if experiment == "fig3a":
        return log(k / 2) / log(16 / 2)
    late = step == STEPS[-1] or experiment.startswith("fig7")
    return float(h == H and rate == RATE and late)


def half_of_the_smallest(experiment: str, h: int, rate: float, k: int, step: int) -> float:
    """Give every row an effect of half of s."""
    return smallest_effect(experiment, h, rate, k, step) / 2


def measured(draw: Generator, seeds: int, spread: float, effect: Effect) -> dict[str, Measurement]:
    """Measure the paper's claims on ``seeds`` seeds of all experiments, each with its own noise."""
    tables = {name: _table(draw, name, seeds, spread, effect) for name in GRIDS}
    of_paper = [claim for claim in CLAIMS if not claim.after_cooldown]
    return {claim.name: claim.measured(tables[claim.experiment], DESIGN) for claim in of_paper}


def in_groups(whole: dict[str, Measurement], n: int) -> Iterator[dict[str, Measurement]]:
    """Divide the seeds into groups of ``n``; no two claims of a group share a seed."""
    values = {name: each.values.to_numpy() for name, each in whole.items()}
    for begin in range(0, min(map(len, values.values())) - n + 1, n):
        yield {
            name: replace(each, values=by_seed(values[name][begin : begin + n], n * number))
            for number, (name, each) in enumerate(whole.items())
        }


def theory(draw: Generator, n: int) -> pd.DataFrame:
    """Simulate two configurations whose factors are as far off as is allowed."""
    k = np.repeat([2, 4], n)
    columns = {"model": "valley", "quantity": DRIFT, "local_steps": 20, "slow_sde": 1.0}
    measured = draw.normal(1 + MARGIN, 0.02, len(k))
    return pd.DataFrame({**columns, "num_clients": k, "measured": measured})


def _table(draw: Generator, name: str, seeds: int, spread: float, effect: Effect) -> pd.DataFrame:
    base = draw.normal(90, 1, seeds)
    parts = []
    for h, rate, k in GRIDS[name]:
        # Differences of two settings have a standard deviation of `spread`.
        of_run = base + draw.normal(0, spread / 2, seeds)
        for step in STEPS:
            size = effect(name, h, rate, k, step)
            accuracy = of_run + draw.normal(0, spread / 2, seeds) + SMALLEST * size
            log_trace = draw.normal(3, TRACE_SPREAD, seeds)
            log_trace -= log(1.1) * size
            parts.append(_rows(name, (h, rate, k, step), accuracy, log_trace))
    return pd.concat(parts, ignore_index=True)


def _rows(
    experiment: str,
    setting: tuple[int, float, int, int],
    accuracy: NDArray[np.float64],
    log_trace: NDArray[np.float64],
) -> pd.DataFrame:
    h, rate, k, step = setting
    seeds = np.arange(len(accuracy))
    return pd.DataFrame(
        {
            "experiment": experiment,
            "role": "phase 2",
            "run": [f"H{h}-{rate}-K{k}-s{seed}" for seed in seeds],
            "seed": seeds,
            "num_clients": k,
            "peak_lr": rate,
            "first_local_steps": h,
            "step": step,
            "test_accuracy": np.round(10 * accuracy) / 1000,
            "hessian_trace": np.exp(log_trace),
            "diverged": False,
        }
    )
