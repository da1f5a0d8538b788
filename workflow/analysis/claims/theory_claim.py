"""Judge the claim about the mechanism on the simulation of ``theory/simulation.py``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import pandas as pd

from workflow.analysis.claims.verdict import (
    CONTRADICTED,
    INCONCLUSIVE,
    SUPPORTED,
    Judgement,
    corrected,
)
from workflow.analysis.statistics import estimate
from workflow.analysis.theory.simulation import DRIFT
from workflow.claims import THEORY

MARGIN = 0.05  # of the predicted factor
LEAST_H = 10  # the Slow SDE is a limit: shorter rounds deviate by about 1 / H
RULE = """The drift is 1 + (K − 1)ψ times SGD's: within 5 % for each K and each H from 10 on.

Each configuration has an interval at the row's level. ``supported`` when all lie within the margin;
``contradicted`` when some lies outside at the level divided by their number; else
``inconclusive``. Printed are the largest deviation
from 1, the largest lower and the largest upper bound on it; p is the largest of two one-sided
tests each, power that of support where every factor is 1.
"""


@dataclass(frozen=True, kw_only=True)
class TheoryRow:
    """Test all K and H of the simulation at once by ``RULE``."""

    name: str
    says: str
    family: str
    level: float

    def judge(self, table: pd.DataFrame | None) -> Judgement:
        level = self.level
        blank = Judgement(
            claim=self.name,
            family=self.family,
            says=self.says,
            target=THEORY,
            measure=f"largest |simulated ÷ predicted − 1|, H ≥ {LEAST_H}, margin {MARGIN:g}",
            unit="",
            level=level,
            smallest=MARGIN,
        )
        if table is None:
            return replace(blank, note="there is no simulation; make theory")
        drift = table[(table["quantity"] == DRIFT) & (table["local_steps"] >= LEAST_H)]
        ratios = (drift["measured"] / drift["slow_sde"]).groupby(
            [drift["model"], drift["num_clients"], drift["local_steps"]]
        )
        found = {key: estimate(values.to_numpy()) for key, values in ratios}
        n = min(each.n for each in found.values())
        blank = replace(blank, runs=f"{len(found)} configurations", n=n)
        if n < 2 or any(each.error == 0 for each in found.values()):
            return replace(blank, verdict=INCONCLUSIVE, note="its batches have no spread")
        deviations = [_deviation(*each.interval(level)) for each in found.values()]
        low, high = (max(bounds) for bounds in zip(*deviations, strict=True))
        strict = level / len(found)
        contradicts = max(_deviation(*each.interval(strict))[0] for each in found.values())
        worst = max(found, key=lambda key: abs(found[key].mean - 1))
        p = max(each.p_inside(1 - MARGIN, 1 + MARGIN) for each in found.values())
        return replace(
            blank,
            effect=abs(found[worst].mean - 1),
            low=low,
            high=high,
            p=p,
            p_corrected=corrected(p, level, one_sided=True),
            power=prod(each.power_inside(MARGIN, level) for each in found.values()),
            smallest_detectable=found[worst].smallest_detectable(level),
            verdict=SUPPORTED
            if high < MARGIN
            else CONTRADICTED
            if contradicts > MARGIN
            else INCONCLUSIVE,
            note=f"largest for {worst[0]}, K = {worst[1]}, H = {worst[2]}",
        )


def _deviation(low: float, high: float) -> tuple[float, float]:
    """Bound |factor − 1| where the factor is between ``low`` and ``high``."""
    near, far = sorted((abs(low - 1), abs(high - 1)))
    return (0.0 if low <= 1 <= high else near), far
