"""Turn a claim into a line of claims.csv, by the rule stated in ``judge.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from trainer.errors import UserError
from workflow.analysis.statistics import ALPHA, TTestResult, holm, t_test
from workflow.analysis.tables.evaluations import missing_or_diverged
from workflow.experiments import Comparison

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
NOT_JUDGED = "not judged"
VERDICTS = (SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_JUDGED)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """State a claim; ``effect`` maps a table and the H to test to one number per seed."""

    name: str
    statement: str
    experiment: str
    effect: Callable[[pd.DataFrame, int], pd.Series[float]]
    measure: str
    unit: str = "points"
    compares: Comparison = "local_steps"

    def judge(self, table: pd.DataFrame, h: int) -> Judgement:
        """Judge ``table``. Raises UserError for a table without the H that the claim compares."""
        compared = {h} if self.compares == "num_clients" else {1, h}
        requested = table.loc[table["role"] == "phase 2", "first_local_steps"]
        if missing := sorted(compared - set(requested)):
            raise UserError(
                f"{self.experiment}: its table has no runs of H = {missing[0]}, which the claims "
                "compare; give the tables of the same experiments"
            )
        finished = table[table["step"].notna()]
        judgement = replace(
            self.not_judged(),
            measure=f"{self.measure}, H = {h}",
            runs=f"{finished['run'].nunique()} of {table['run'].nunique()} of {self.experiment}",
        )
        values = self.effect(table, h)
        incomplete = missing_or_diverged(table)
        if len(values) < 2:
            reason = "at least two seeds with all their runs are needed"
            return replace(
                judgement, n=len(values), note="; ".join(filter(None, [reason, incomplete]))
            )
        return judgement.with_test(t_test(values.to_numpy()), incomplete)

    def not_judged(self, note: str = "") -> Judgement:
        """Return the claim's line without a verdict."""
        return Judgement(
            claim=self.name,
            says=self.statement,
            target=self.experiment,
            measure=self.measure,
            unit=self.unit,
            note=note,
        )


@dataclass(frozen=True)
class Judgement:
    """Hold one line of claims.csv; ``with_verdicts`` fills ``p_holm`` and ``verdict``."""

    claim: str
    says: str
    target: str
    measure: str
    unit: str
    runs: str = ""
    n: int = 0
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    verdict: str = NOT_JUDGED
    smallest_detectable: float | None = None
    note: str = ""

    def with_test(self, test: TTestResult, note: str = "") -> Judgement:
        return replace(
            self,
            n=test.n,
            effect=test.mean,
            low=test.low,
            high=test.high,
            p=test.p,
            smallest_detectable=test.smallest_detectable,
            note=note,
        )


def with_verdicts(found: Sequence[Judgement]) -> list[Judgement]:
    tested = [j.p for j in found if j.p is not None]
    corrected = iter(holm(tested))
    return [
        judgement if judgement.p is None else _decide(judgement, next(corrected))
        for judgement in found
    ]


def _decide(judgement: Judgement, p_holm: float) -> Judgement:
    assert judgement.effect is not None
    decided = SUPPORTED if judgement.effect > 0 else CONTRADICTED
    return replace(judgement, p_holm=p_holm, verdict=decided if p_holm < ALPHA else INCONCLUSIVE)
