"""Judge the claim about the mechanism on the simulation of ``theory/simulation.py``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from workflow.analysis.claims.verdict import CONTRADICTED, INCONCLUSIVE, SUPPORTED, Judgement
from workflow.analysis.statistics import ALPHA, equivalence, t_test
from workflow.analysis.theory.simulation import DRIFT

MARGIN = 0.05  # of the predicted factor
LEAST_H = 10  # the Slow SDE is a limit: shorter rounds deviate by about 1 / H
RULE = """The drift is 1 + (K − 1)ψ times SGD's: within 5 % for each K and each H from 10 on.

``supported`` when every factor's mean lies within the margin by two one-sided t-tests, the largest
p below 0.05; ``contradicted`` when some 95 % interval lies outside the margin; else
``inconclusive``. It asks for all at once, which needs no correction.
"""


@dataclass(frozen=True, kw_only=True)
class TheoryClaim:
    """Test all K and H of the simulation at once by ``RULE``."""

    name: str

    def judge(self, table: pd.DataFrame | None) -> Judgement:
        blank = Judgement(
            claim=self.name,
            says="The drift towards flat minima is 1 + (K − 1)ψ times SGD's",
            target="theory",
            measure=f"largest |simulated ÷ predicted − 1|, H ≥ {LEAST_H}, margin {MARGIN:g}",
            unit="",
        )
        if table is None:
            return replace(blank, note="there is no simulation; make theory")
        drift = table[(table["quantity"] == DRIFT) & (table["local_steps"] >= LEAST_H)]
        ratios = (drift["measured"] / drift["slow_sde"]).groupby(
            [drift["model"], drift["num_clients"], drift["local_steps"]]
        )
        tests = {key: t_test(values.to_numpy()) for key, values in ratios}
        p = max(equivalence(values.to_numpy(), 1 - MARGIN, 1 + MARGIN) for _, values in ratios)
        outside = any(t.low > 1 + MARGIN or t.high < 1 - MARGIN for t in tests.values())
        worst = max(tests, key=lambda key: abs(tests[key].mean - 1))
        test = tests[worst]
        away = sorted((abs(test.low - 1), abs(test.high - 1)))
        return replace(
            blank,
            runs=f"{len(tests)} configurations",
            n=test.n,
            effect=abs(test.mean - 1),
            low=0.0 if test.low < 1 < test.high else away[0],
            high=away[1],
            p=p,
            p_holm=p,
            verdict=CONTRADICTED if outside else SUPPORTED if p < ALPHA else INCONCLUSIVE,
            smallest_detectable=test.smallest_detectable,
            note=f"largest for {worst[0]}, K = {worst[1]}, H = {worst[2]}",
        )
