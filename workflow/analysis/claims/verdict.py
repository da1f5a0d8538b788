"""Turn measurements into a line of claims.csv, by the rule stated in ``judge.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from workflow.analysis.claims.measure import ExperimentDesign, Measurement, NamedClaim
from workflow.analysis.statistics import Estimate, pool
from workflow.claims import ERROR_RATE

SUPPORTED, CONTRADICTED, NO_EFFECT = "supported", "contradicted", "no effect"
INCONCLUSIVE, NOT_JUDGED = "inconclusive", "not judged"
VERDICTS = (SUPPORTED, CONTRADICTED, NO_EFFECT, INCONCLUSIVE, NOT_JUDGED)
# The seeds that are finished may be a choice: of those that did not diverge, or of a time to look.
INTERIM = "interim: a verdict needs all runs"
NO_SPREAD = 1e-12  # of the largest value: rounding


@dataclass(frozen=True)
class Judgement:
    """Hold one line of claims.csv."""

    claim: str
    family: str
    says: str
    target: str
    measure: str
    unit: str
    level: float
    runs: str = ""
    n: int = 0
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    smallest: float | None = None
    power: float | None = None
    smallest_detectable: float | None = None
    verdict: str = NOT_JUDGED
    note: str = ""


@dataclass(frozen=True)
class Row:
    """State a row: one claim, or several that are pooled, at its part of the error rate."""

    name: str
    says: str
    claims: Sequence[NamedClaim]
    family: str
    level: float

    def judge(
        self,
        measured: Mapping[str, Measurement],
        designs: Mapping[str, ExperimentDesign] | None = None,
    ) -> Judgement:
        """Judge the row on the measurements by claim; without one of its own, it is not judged.

        ``designs``: of the experiments that the scale has, which need not have been run.
        """
        if absent := [claim for claim in self.claims if claim.name not in measured]:
            names = [claim.experiment for claim in absent]
            which = (
                "no such experiment" if len(self.claims) == 1 else f"no {' and no '.join(names)}"
            )
            if all(claim.can_be_measured(designs or {}) for claim in absent):
                which = f"not run {' and '.join(names)}"
            elif any(claim.after_cooldown for claim in self.claims):
                which = f"no {names[0]} with a cool-down"
            return self._blank(note=f"this scale has {which}")
        found = [measured[claim.name] for claim in self.claims]
        smallest = sum(each.smallest for each in found) / len(found)
        blank = self._blank([each.compared for each in found])
        blank = replace(
            blank,
            runs="; ".join(each.runs for each in found),
            n=sum(len(each.values) for each in found),
            smallest=smallest,
            note=_join(each.incomplete for each in found),
        )
        if obstacle := _join(map(_obstacle, found)):
            return replace(blank, verdict=INCONCLUSIVE, note=_join([obstacle, blank.note]))
        values = [each.values for each in found]
        least_spreads = [each.least_spread for each in found]
        decided = self._decided(blank, pool(values, least_spreads), smallest)
        if any(each.unfinished for each in found):
            return replace(decided, verdict=INCONCLUSIVE, note=_join([INTERIM, blank.note]))
        return decided

    def verdict(self, low: float, high: float, smallest: float) -> str:
        """Decide by the interval alone."""
        inside = -smallest < low and high < smallest
        if self._direction == "no_gain":
            contradicted = low > smallest
            return SUPPORTED if high < smallest else CONTRADICTED if contradicted else INCONCLUSIVE
        if self._direction == "equivalence":
            outside = low > smallest or high < -smallest
            return SUPPORTED if inside else CONTRADICTED if outside else INCONCLUSIVE
        if inside:
            return NO_EFFECT
        return SUPPORTED if low > 0 else CONTRADICTED if high < 0 else INCONCLUSIVE

    def _decided(self, blank: Judgement, found: Estimate, smallest: float) -> Judgement:
        low, high = found.interval(self.level)
        one_sided = self._direction != "gain"
        if self._direction == "no_gain":
            p, power = found.p_below(smallest), found.power_above(smallest, self.level)
        elif self._direction == "equivalence":
            p = found.p_inside(-smallest, smallest)
            power = found.power_inside(smallest, self.level)
        else:
            p, power = found.p(), found.power(smallest, self.level)
        return replace(
            blank,
            effect=found.mean,
            low=low,
            high=high,
            p=p,
            p_corrected=corrected(p, self.level, one_sided=one_sided),
            power=power,
            smallest_detectable=found.smallest_detectable(self.level),
            verdict=self.verdict(low, high, smallest),
        )

    @property
    def _direction(self) -> str:
        return self.claims[0].stated.direction

    def _blank(self, compared: Sequence[str] = (), note: str = "") -> Judgement:
        first = self.claims[0]
        pooled = "" if len(self.claims) == 1 else f"mean of {len(self.claims)} panels: "
        settings = " and ".join(dict.fromkeys(compared))
        if all(each.startswith("H = ") for each in compared):
            settings = settings.replace("and H = ", "and ")
        return Judgement(
            claim=self.name,
            family=self.family,
            says=self.says,
            target=" ".join(claim.experiment for claim in self.claims),
            measure=f"{pooled}{first.measure}{f', {settings}' if settings else ''}",
            unit=first.effect.unit,
            level=self.level,
            note=note,
        )


def corrected(p: float, level: float, *, one_sided: bool) -> float:
    """Scale ``p`` so that below ``ERROR_RATE`` means decided; a side has half of the level."""
    return min(1.0, p * ERROR_RATE / level * (2 if one_sided else 1))


def _obstacle(found: Measurement) -> str:
    """Explain why no interval can be given; empty where one can."""
    if found.obstacle:
        return found.obstacle
    if len(found.values) < 2:
        return "at least two seeds with all their runs are needed"
    values = found.values.to_numpy(float)
    if found.least_spread == 0 and np.ptp(values) <= NO_SPREAD * np.abs(values).max():
        return "all seeds gave the same number, which leaves no spread to judge by"
    return ""


def _join(notes: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, notes)))
