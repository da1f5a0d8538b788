"""Make runs by hand, measurements of them and the judgement of either."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from workflow.analysis.claims.measure import ExperimentDesign, Measurement
from workflow.analysis.claims.rows import claims_of, rows_of
from workflow.analysis.claims.verdict import Judgement, Row
from workflow.paper import paper

CLAIMS = claims_of(paper())
ROWS = [row for row in rows_of(paper()) if isinstance(row, Row)]
SEEDS = (1, 2, 3, 4, 5)
Accuracy = Callable[[int, int, float, int, int], float]  # of seed, H, η, K and step


def runs(
    accuracy: Accuracy,
    *,
    local_steps: tuple[int, ...] = (1, 8),
    rates: tuple[float, ...] = (0.1,),
    clients: tuple[int, ...] = (16,),
    steps: tuple[int, ...] = (0, 100, 200),
    experiment: str = "fig1a",
) -> pd.DataFrame:
    """Build a table of phase-2 runs: ``accuracy`` in points, Hessian trace exp(-accuracy / 10)."""
    rows = [
        {
            "experiment": experiment,
            "role": "phase 2",
            "run": f"H{h}-{lr}-K{k}-s{seed}",
            "seed": seed,
            "num_clients": k,
            "peak_lr": lr,
            "first_local_steps": h,
            "step": float(step),
            "test_accuracy": accuracy(seed, h, lr, k, step) / 100,
            "hessian_trace": np.exp(-accuracy(seed, h, lr, k, step) / 10),
            "diverged": False,
        }
        for seed in SEEDS
        for h in local_steps
        for lr in rates
        for k in clients
        for step in steps
    ]
    return pd.DataFrame(rows)


def noise(seed: int, h: int) -> float:
    return float(np.random.default_rng([seed, h]).normal())


def varied(experiment: str) -> pd.DataFrame:
    """Build noisy runs of every setting that some claim needs."""
    return runs(
        lambda seed, h, lr, k, step: 50 + noise(seed, h) + step * noise(seed, k) / 100 + lr,
        local_steps=(1, 4, 8, 64),
        rates=(0.1, 0.4) if experiment in ("fig2b", "fig2c") else (0.1,),
        clients=(2, 4, 8) if experiment == "fig3a" else (16,),
        experiment=experiment,
    )


def judge_row(name: str, table: pd.DataFrame, h: int) -> Judgement:
    [claim] = [claim for claim in CLAIMS if claim.name == name]
    [row] = [row for row in ROWS if row.name == name]
    return row.judge({name: claim.measured(table, ExperimentDesign(h, 0.5))})


def measurement(
    values: Sequence[float], first_seed: int = 0, **changes: float | str
) -> Measurement:
    given: dict[str, object] = {"smallest": 0.5, "compared": "H = 8", **changes}
    return Measurement(values=by_seed(values, first_seed), **given)  # type: ignore[arg-type]


def by_seed(values: Sequence[float], first_seed: int = 0) -> pd.Series[float]:
    return pd.Series(values, index=range(first_seed, first_seed + len(values)))


def row_verdict(name: str, *samples: Measurement) -> Judgement:
    [row] = [row for row in ROWS if row.name == name]
    return row.judge(dict(zip((c.name for c in row.claims), samples, strict=True)))
