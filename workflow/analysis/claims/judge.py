"""The paper's claims, each judged by a rule that was stated before its data.

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
from workflow.analysis.claims.theory_claim import TheoryClaim
from workflow.analysis.claims.verdict import VERDICTS, Claim, with_verdicts
from workflow.analysis.pages.html import write_page
from workflow.analysis.tables.build import write_csv


def after_the_switch(letter: str, data: str) -> Claim:
    return Claim(
        name=f"1{letter}",
        says=f"Post-local SGD reaches higher test accuracy than SGD after the switch ({data})",
        experiment=f"fig1{letter}",
        effect=effects.gain_at_the_end,
        measure="accuracy at the end minus SGD's",
    )


def needs(letter: str, data: str) -> tuple[Claim, ...]:
    figure = f"fig2{letter}"
    return (
        Claim(
            name=f"2{letter}, rate",
            says=f"The gain needs a small learning rate ({data})",
            experiment=figure,
            effect=effects.gain_of_a_small_rate,
            measure="gain over SGD with small η minus with large η",
        ),
        Claim(
            name=f"2{letter}, time",
            says=f"The gain needs long enough training ({data})",
            experiment=figure,
            effect=effects.gain_of_time,
            measure="gain over SGD at the end minus at the first evaluation",
        ),
    )


def over_h(letter: str, data: str) -> tuple[Claim, ...]:
    figure = f"fig2{letter}"
    return (
        Claim(
            name=f"3{letter}, rise",
            says=f"Accuracy improves with H up to a point ({data})",
            experiment=figure,
            effect=effects.rise_with_h,
            measure="slope of the accuracy over log₂ H, 1 to H",
            unit="points per doubling",
        ),
        Claim(
            name=f"3{letter}, fall",
            says=f"Beyond that point a larger H is worse ({data})",
            experiment=figure,
            effect=effects.fall_beyond,
            measure="accuracy minus that of the largest H",
        ),
        Claim(
            name=f"3{letter}, 1/η",
            says=f"The gain needs H = Ω(1/η) ({data})",
            experiment=figure,
            effect=effects.gain_of_long_rounds,
            measure="accuracy of 1/η ≤ H minus that of 1 < H < 1/η",
        ),
    )


def label_noise(letter: str) -> tuple[Claim, ...]:
    figure = f"fig7{letter}"
    return (
        Claim(
            name=f"6{letter}, accuracy",
            says="Under label noise Local SGD has higher accuracy at equal steps",
            experiment=figure,
            effect=effects.gain_throughout,
            measure="accuracy minus SGD's, mean over evaluations",
        ),
        Claim(
            name=f"6{letter}, sharpness",
            says="Under label noise Local SGD has lower sharpness at equal steps",
            experiment=figure,
            effect=effects.flatter_throughout,
            measure="ln(trace of SGD's Hessian ÷ its own), mean over evaluations",
            unit="",
        ),
    )


CLAIMS = (
    after_the_switch("a", "CIFAR-10"),
    after_the_switch("b", "ImageNet"),
    *needs("b", "CIFAR-10"),
    *needs("c", "ImageNet"),
    Claim(
        name="2d",
        says="With a large learning rate from random initialisation there is no gain (ImageNet)",
        experiment="fig2d",
        effect=effects.no_gain_at_the_end,
        measure=f"{effects.MARGIN} points minus the gain over SGD at the end",
    ),
    *over_h("e", "CIFAR-10"),
    *over_h("f", "ImageNet"),
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
    *label_noise("a"),
    *label_noise("b"),
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
    found = [
        claim.judge(tables[claim.experiment], judged_h[claim.experiment])
        if claim.experiment in tables
        else claim.blank(note="this scale has no such experiment")
        for claim in CLAIMS
    ]
    return pd.DataFrame(map(asdict, [*with_verdicts(found), THEORY.judge(theory)]))


def write_claims(claims: pd.DataFrame, out: Path) -> None:
    """``out``, a .csv, and the same as a page of the report beside it."""
    write_csv(claims, out)
    said = Counter(claims["verdict"])
    counts = ", ".join(f"{said[verdict]} {verdict}" for verdict in VERDICTS if said[verdict])
    rule = (__doc__ or "").split("\n\n", 1)[1]
    sets = "Data sets are the paper's; below its scale others stand in for them."
    text = f"{counts}. {sets}\n\n{rule}\n\n{THEORY.name}: {TheoryClaim.__doc__}"
    text = text.replace("``", "")
    write_page("The paper's claims", text, {"": page_table(claims)}, out.with_suffix(".html"))


def page_table(claims: pd.DataFrame) -> pd.DataFrame:
    """For people: effect and interval in one column, numbers rounded."""
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
