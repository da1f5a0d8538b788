"""How a claim becomes a line of claims.csv; the rule is stated in ``claims.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from trainer.errors import UserError
from workflow.analysis.statistics import ALPHA, TTestResult, holm, t_test
from workflow.analysis.tables.evaluations import missing_or_diverged

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
NOT_JUDGED = "not judged"
VERDICTS = (SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_JUDGED)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """``effect``: of (table, judged H), one number per seed."""

    name: str
    says: str
    experiment: str
    effect: Callable[[pd.DataFrame, int], pd.Series[float]]
    measure: str
    unit: str = "points"

    def judge(self, table: pd.DataFrame, h: int) -> Judgement:
        """Raises UserError for a table that lacks what is compared, which is another's."""
        compared = {h} if self.experiment == "fig3a" else {1, h}
        asked = table.loc[table["role"] == "phase 2", "first_local_steps"]
        if lacking := sorted(compared - set(asked)):
            raise UserError(
                f"{self.experiment}: its table has no runs of H = {lacking[0]}, which the claims "
                "compare; give the tables of the same experiments"
            )
        finished = table[table["step"].notna()]
        judgement = replace(
            self.blank(),
            measure=f"{self.measure}, H = {h}",
            runs=f"{finished['run'].nunique()} of {table['run'].nunique()} of {self.experiment}",
        )
        values = self.effect(table, h)
        short = missing_or_diverged(table)
        if len(values) < 2:
            reason = "at least two seeds with all their runs are needed"
            return replace(judgement, n=len(values), note="; ".join(filter(None, [reason, short])))
        return judgement.judged(t_test(values.to_numpy()), short)

    def blank(self, note: str = "") -> Judgement:
        """Not judged."""
        return Judgement(
            claim=self.name,
            says=self.says,
            target=self.experiment,
            measure=self.measure,
            unit=self.unit,
            note=note,
        )


@dataclass(frozen=True)
class Judgement:
    """One line of claims.csv. ``p_holm`` and ``verdict`` wait for the other claims."""

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

    def judged(self, test: TTestResult, note: str = "") -> Judgement:
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
        judgement if judgement.p is None else _verdict(judgement, next(corrected))
        for judgement in found
    ]


def _verdict(judgement: Judgement, p_holm: float) -> Judgement:
    assert judgement.effect is not None
    decided = SUPPORTED if judgement.effect > 0 else CONTRADICTED
    return replace(judgement, p_holm=p_holm, verdict=decided if p_holm < ALPHA else INCONCLUSIVE)
