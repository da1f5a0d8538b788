"""Judge the paper's claims, each by a rule that was stated before its data.

Each claim is one number per seed, positive where the paper is right (``effects.py``), on seeds that
had no part in choosing the experiment. Student's t-test against zero, two-sided; p values are
corrected for the number of claims judged (Holm 1979). Verdict: ``supported`` when the mean is
positive and the corrected p is below 0.05, ``contradicted`` when it is negative and so is p,
else ``inconclusive``. The 95 % interval beside it is the test's own, not corrected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from workflow.analysis.claims import effects
from workflow.analysis.claims.theory_claim import RULE, TheoryClaim
from workflow.analysis.claims.verdict import VERDICTS, Claim, with_verdicts
from workflow.analysis.pages.html import write_page
from workflow.analysis.tables.build import write_csv


def switch_claim(letter: str, data: str) -> Claim:
    return Claim(
        name=f"1{letter}",
        statement=f"Post-local SGD reaches higher test accuracy than SGD after the switch ({data})",
        experiment=f"fig1{letter}",
        effect=effects.gain_at_the_end,
        measure="accuracy at the end minus SGD's",
    )


def rate_and_time_claims(letter: str, data: str) -> tuple[Claim, ...]:
    figure = f"fig2{letter}"
    return (
        Claim(
            name=f"2{letter}, rate",
            statement=f"The gain needs a small learning rate ({data})",
            experiment=figure,
            effect=effects.gain_of_a_small_rate,
            measure="gain over SGD with small η minus with large η",
        ),
        Claim(
            name=f"2{letter}, time",
            statement=f"The gain needs long enough training ({data})",
            experiment=figure,
            effect=effects.gain_of_time,
            measure="gain over SGD at the end minus at the first evaluation",
        ),
    )


def local_steps_claims(letter: str, data: str) -> tuple[Claim, ...]:
    figure = f"fig2{letter}"
    return (
        Claim(
            name=f"3{letter}, rise",
            statement=f"Accuracy improves with H up to a point ({data})",
            experiment=figure,
            effect=effects.rise_with_h,
            measure="slope of the accuracy over log₂ H, 1 to H",
            unit="points per doubling",
        ),
        Claim(
            name=f"3{letter}, fall",
            statement=f"Beyond that point a larger H is worse ({data})",
            experiment=figure,
            effect=effects.fall_beyond,
            measure="accuracy minus that of the largest H",
        ),
        Claim(
            name=f"3{letter}, 1/η",
            statement=f"The gain needs H = Ω(1/η) ({data})",
            experiment=figure,
            effect=effects.gain_of_long_rounds,
            measure="accuracy of 1/η ≤ H minus that of 1 < H < 1/η",
        ),
    )


def label_noise_claims(letter: str) -> tuple[Claim, ...]:
    figure = f"fig7{letter}"
    return (
        Claim(
            name=f"6{letter}, accuracy",
            statement="Under label noise Local SGD has higher accuracy at equal steps",
            experiment=figure,
            effect=effects.gain_throughout,
            measure="accuracy minus SGD's, mean over evaluations",
        ),
        Claim(
            name=f"6{letter}, sharpness",
            statement="Under label noise Local SGD has lower sharpness at equal steps",
            experiment=figure,
            effect=effects.flatter_throughout,
            measure="ln(trace of SGD's Hessian ÷ its own), mean over evaluations",
            unit="",
        ),
    )


CLAIMS = (
    switch_claim("a", "CIFAR-10"),
    switch_claim("b", "ImageNet"),
    *rate_and_time_claims("b", "CIFAR-10"),
    *rate_and_time_claims("c", "ImageNet"),
    Claim(
        name="2d",
        statement=(
            "With a large learning rate from random initialisation there is no gain (ImageNet)"
        ),
        experiment="fig2d",
        effect=effects.no_gain_at_the_end,
        measure=f"{effects.MARGIN} points minus the gain over SGD at the end",
    ),
    *local_steps_claims("e", "CIFAR-10"),
    *local_steps_claims("f", "ImageNet"),
    Claim(
        name="4",
        statement="Starting from random initialisation works too, with small η and enough time",
        experiment="fig2a",
        effect=effects.gain_at_the_end,
        measure="accuracy at the end minus SGD's",
    ),
    Claim(
        name="5",
        statement="At fixed B_loc a larger K improves accuracy: less diffusion, same drift",
        experiment="fig3a",
        effect=effects.rise_with_k,
        measure="slope of the accuracy over log₂ K",
        unit="points per doubling",
        compares="num_clients",
    ),
    *label_noise_claims("a"),
    *label_noise_claims("b"),
    Claim(
        name="7, order",
        statement="Sharpness decays faster with larger H, as 1 + (K − 1)ψ orders it",
        experiment="fig7a",
        effect=effects.flatter_with_h,
        measure="minus the slope of ln(trace of the Hessian) over log₂ H, all H",
        unit="per doubling",
    ),
)
THEORY = TheoryClaim(name="7, factor")


def judge(
    tables: Mapping[str, pd.DataFrame],
    test_local_steps: Mapping[str, int],
    theory: pd.DataFrame | None,
) -> pd.DataFrame:
    """Judge all claims, in order; ``tables`` and ``test_local_steps`` are by experiment."""
    found = [
        claim.judge(tables[claim.experiment], test_local_steps[claim.experiment])
        if claim.experiment in tables
        else claim.not_judged(note="this scale has no such experiment")
        for claim in CLAIMS
    ]
    return pd.DataFrame(map(asdict, [*with_verdicts(found), THEORY.judge(theory)]))


def write_claims(claims: pd.DataFrame, out: Path) -> None:
    """Write ``out``, a .csv, and beside it the same as a page of the report."""
    write_csv(claims, out)
    verdicts = Counter(claims["verdict"])
    counts = ", ".join(
        f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS if verdicts[verdict]
    )
    rule = (__doc__ or "").split("\n\n", 1)[1]
    sets = "Data sets are the paper's; below its scale others stand in for them."
    text = f"{counts}. {sets}\n\n{rule}\n\n{THEORY.name}: {RULE}".replace("``", "")
    write_page("The paper's claims", text, {"": page_table(claims)}, out.with_suffix(".html"))


def page_table(claims: pd.DataFrame) -> pd.DataFrame:
    """Format the claims for the page: effect and interval in one column, numbers rounded."""
    effect = [
        f"{row['effect']:.3g} [{row['low']:.3g}, {row['high']:.3g}] {row['unit']}".strip()
        if row["n"] > 1
        else ""
        for row in claims.to_dict("records")
    ]
    return pd.DataFrame(
        {
            "claim": claims["claim"],
            "the paper says": claims["says"],
            "measured": claims["measure"],
            "effect [95 % interval]": effect,
            "n": claims["n"],
            "p, Holm": claims["p_holm"],
            "verdict": claims["verdict"],
            "smallest detectable": claims["smallest_detectable"],
            "runs": claims["runs"],
            "note": claims["note"],
        }
    )
