"""The paper's claims, each judged by a rule that was stated before its data.

Each claim is one number per seed, positive where the paper is right (``effects.py``), on seeds that
had no part in choosing the experiment. Student's t-test against zero, two-sided; p values are
corrected for the number of claims judged (Holm 1979). Verdict: ``supported`` when the mean is
positive and the corrected p is below 0.05, ``contradicted`` when it is negative and so is p,
else ``inconclusive``. The 95 % interval beside it is the test's own, not corrected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from workflow.analysis import effects
from workflow.analysis.pages import write_page
from workflow.analysis.panels import missing_runs
from workflow.analysis.statistics import ALPHA, Test, holm, t_test
from workflow.analysis.tables import write_csv
from workflow.analysis.theory_claim import TheoryClaim

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
        finished = table[table["step"].notna()]
        runs = f"{finished['run'].nunique()} of {table['run'].nunique()} of {self.experiment}"
        blank = Judgement(
            self.name, self.says, self.experiment, f"{self.measure}, H = {h}", self.unit, runs
        )
        try:
            values = self.effect(table, h)
        except KeyError:  # no run of this H, or none of SGD
            values = pd.Series(dtype=float)
        lacking = missing_runs(table)
        if len(values) < 2:
            reason = "at least two seeds with all their runs are needed"
            return replace(blank, n=len(values), note="; ".join(filter(None, [reason, lacking])))
        return blank.judged(t_test(values.to_numpy()), lacking)


@dataclass(frozen=True)
class Judgement:
    """One line of claims.csv. ``p_holm`` and ``verdict`` wait for the other claims."""

    claim: str
    says: str
    target: str
    measure: str
    unit: str
    runs: str
    n: int = 0
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    verdict: str = NOT_JUDGED
    smallest_detectable: float | None = None
    note: str = ""

    def judged(self, test: Test, note: str = "") -> Judgement:
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


CLAIMS: tuple[Claim, ...] = (
    *(
        Claim(
            name=f"1{letter}",
            says=f"Post-local SGD reaches higher test accuracy than SGD after the switch ({data})",
            experiment=f"fig1{letter}",
            effect=effects.gain_at_the_end,
            measure="accuracy at the end minus SGD's",
        )
        for letter, data in (("a", "CIFAR-10"), ("b", "ImageNet"))
    ),
    *(
        Claim(
            name=f"2{letter}, {needs}",
            says=f"The gain needs {says} ({data})",
            experiment=f"fig2{letter}",
            effect=effect,
            measure=measure,
        )
        for letter, data in (("b", "CIFAR-10"), ("c", "ImageNet"))
        for needs, says, effect, measure in (
            (
                "rate",
                "a small learning rate",
                effects.gain_of_a_small_rate,
                "gain over SGD with small η minus with large η",
            ),
            (
                "time",
                "long enough training",
                effects.gain_of_time,
                "gain over SGD at the end minus at the first evaluation",
            ),
        )
    ),
    Claim(
        name="2d",
        says="With a large learning rate from random initialisation there is no gain (ImageNet)",
        experiment="fig2d",
        effect=effects.no_gain_at_the_end,
        measure=f"{effects.MARGIN} points minus the gain over SGD at the end",
    ),
    *(
        Claim(
            name=f"3{letter}, {what}",
            says=f"{says} ({data})",
            experiment=f"fig2{letter}",
            effect=effect,
            measure=measure,
            unit=unit,
        )
        for letter, data in (("e", "CIFAR-10"), ("f", "ImageNet"))
        for what, says, effect, measure, unit in (
            (
                "rise",
                "Accuracy improves with H up to a point",
                effects.rise_with_h,
                "slope of the accuracy over log₂ H, 1 to H",
                "points per doubling",
            ),
            (
                "fall",
                "Beyond that point a larger H is worse",
                effects.fall_beyond,
                "accuracy minus that of the largest H",
                "points",
            ),
            (
                "1/η",
                "The gain needs H = Ω(1/η)",
                effects.gain_of_long_rounds,
                "accuracy of 1/η ≤ H minus that of 1 < H < 1/η",
                "points",
            ),
        )
    ),
    Claim(
        name="4",
        says="Starting from random initialisation works too, with small η and enough time",
        experiment="fig2a",
        effect=effects.gain_at_the_end,
        measure="accuracy at the end minus SGD's",
    ),
    Claim(
        name="5",
        says="At fixed B_loc a larger K improves accuracy: less diffusion, same drift",
        experiment="fig3a",
        effect=effects.rise_with_k,
        measure="slope of the accuracy over log₂ K",
        unit="points per doubling",
    ),
    *(
        Claim(
            name=f"6{letter}, {what}",
            says=says,
            experiment=f"fig7{letter}",
            effect=effect,
            measure=measure,
            unit=unit,
        )
        for letter in "ab"
        for what, says, effect, measure, unit in (
            (
                "accuracy",
                "Under label noise Local SGD has higher accuracy at equal steps",
                effects.gain_throughout,
                "accuracy minus SGD's, mean over evaluations",
                "points",
            ),
            (
                "sharpness",
                "Under label noise Local SGD has lower sharpness at equal steps",
                effects.flatter_throughout,
                "ln(trace of SGD's Hessian ÷ its own), mean over evaluations",
                "",
            ),
        )
    ),
    Claim(
        name="7, order",
        says="Sharpness decays faster with larger H, as 1 + (K − 1)ψ orders it",
        experiment="fig7a",
        effect=effects.flatter_with_h,
        measure="minus the slope of ln(trace of the Hessian) over log₂ H, all H",
        unit="per doubling",
    ),
)
THEORY = TheoryClaim(name="7, factor")


def judge(
    tables: Mapping[str, pd.DataFrame], judged_h: Mapping[str, int], theory: pd.DataFrame | None
) -> pd.DataFrame:
    """All claims, in order; ``tables`` and ``judged_h`` by experiment."""
    found: list[Judgement] = []
    for claim in CLAIMS:
        if claim.experiment in tables:
            found.append(claim.judge(tables[claim.experiment], judged_h[claim.experiment]))
        else:
            note = "this scale has no such experiment"
            found.append(
                Judgement(
                    claim.name,
                    claim.says,
                    claim.experiment,
                    claim.measure,
                    claim.unit,
                    "",
                    note=note,
                )
            )
    corrected = _with_verdicts(found)
    return pd.DataFrame([*map(asdict, corrected), THEORY.judge(theory)])


def _with_verdicts(found: Sequence[Judgement]) -> list[Judgement]:
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


def write_claims(claims: pd.DataFrame, out: Path) -> None:
    """``out``, a .csv, and the same as a page of the report beside it."""
    write_csv(claims, out)
    said = Counter(claims["verdict"])
    counts = ", ".join(f"{said[verdict]} {verdict}" for verdict in VERDICTS if said[verdict])
    rule = (__doc__ or "").split("\n\n", 1)[1]
    write_page("The paper's claims", f"{counts}.\n\n{rule}", {"": claims}, out.with_suffix(".html"))
