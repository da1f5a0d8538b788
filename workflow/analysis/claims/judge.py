"""Judge claims, the paper's and a user's, each by a rule that was stated before its data.

A claim is one number per seed (``effects.py``), on seeds that had no part in choosing the
experiment. Rows 1, 2, 3 and 6 pool two panels: the mean of the panels' means, its squared standard
error a quarter of the sum of theirs, degrees of freedom by Welch and Satterthwaite. Where panels
share seeds, a positive covariance of their means adds to the error, and the degrees of freedom are
those of the smaller panel. Rows 1 to 6 and the order of 7 are primary; all others, the simulation
of 7 among them, are panels. The error rate of all of these is 5 %: half for each of the two
families, divided by its number of rows, also of those that could not be judged (Bonferroni). The
controls, which the paper does not have, are a third family with an error rate of 5 % of its own,
and so are the claims of an experiments file, own.
A verdict of three ways needs intervals that hold at once, which a step-down correction such as
Holm's does not give; nor do its thresholds hold for the two hypotheses, difference and equivalence,
of a row.

Each row has Student's t interval at confidence 1 − level, which alone decides, with s the smallest
effect of interest. ``no effect``: it lies between −s and s, whatever its sign (two one-sided
tests); else ``supported``: above 0; ``contradicted``: below 0; ``inconclusive``: neither. A claim
that there is no gain is supported by an interval below s, contradicted by one above s; one of
equivalence is supported by an interval between −s and s, contradicted by one that lies outside. For
accuracies, s is the experiment's ``smallest_effect``; for slopes, the rise over all that is fitted
equals it; for traces of the Hessian, it is 10 %.

p is that of the t-test against 0 (no gain: one-sided, against s; equivalence: the larger of two
against −s and s), corrected so that below 0.05 means decided. Power is the probability that the
row's test finds an effect of s with this n and spread (no gain, equivalence: that it supports the
claim where the effect is 0); the smallest detectable effect is
found with 90 % power. The spread of accuracies counts as at least one test image; other numbers
without spread decide nothing. A run that diverged counts with the accuracy that it ended with, at
the end and at all later evaluations; it has no sharpness, so a claim about that is then
``inconclusive``. So is any claim while runs of its experiment are missing: the seeds that are
finished may be a choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from workflow.analysis.claims.measure import ExperimentDesign, Measurement
from workflow.analysis.claims.rows import claims_of, rows_of
from workflow.analysis.claims.theory_claim import RULE, TheoryRow
from workflow.analysis.claims.verdict import NOT_JUDGED, VERDICTS, Judgement, Row
from workflow.analysis.pages.html import write_page
from workflow.analysis.tables.build import write_csv
from workflow.claims import SIMULATED, Stated
from workflow.paper import paper


def judge(
    tables: Mapping[str, pd.DataFrame],
    designs: Mapping[str, ExperimentDesign],
    theory: pd.DataFrame | None,
    design_of: Callable[[str, Sequence[str]], str] = lambda row, experiments: "",
    own: Stated | None = None,
) -> pd.DataFrame:
    """Judge all claims: the ``own`` of an experiments file first, then the paper's, in order.

    ``tables`` and ``designs`` are by experiment. ``design_of``: returns the commit that fixed the
    design of a row on experiments, empty where unknown.
    """
    judged = []
    for stated in (own, paper()):
        if stated is not None:
            measured = {
                claim.name: claim.measured(tables[claim.experiment], designs[claim.experiment])
                for claim in claims_of(stated)
                if claim.experiment in tables and claim.can_be_measured(designs)
            }
            judged += judge_measurements(rows_of(stated), measured, theory, designs)
    commits = [
        design_of(line.claim, [name for name in line.target.split() if name in designs])
        if line.verdict != NOT_JUDGED
        else ""
        for line in judged
    ]
    return pd.DataFrame(map(asdict, judged)).assign(design=commits)


def judge_measurements(
    rows: Sequence[Row | TheoryRow],
    measured: Mapping[str, Measurement],
    theory: pd.DataFrame | None,
    designs: Mapping[str, ExperimentDesign] | None = None,
) -> list[Judgement]:
    """Judge ``rows`` on what was measured, by claim, and on the simulation's table.

    ``designs``: of the experiments that the scale has, which need not have been run.
    """
    return [
        row.judge(theory) if isinstance(row, TheoryRow) else row.judge(measured, designs)
        for row in rows
    ]


def write_claims(claims: pd.DataFrame, out: Path) -> None:
    """Write ``out``, a .csv, and beside it the same as a page of the report."""
    write_csv(claims, out)
    verdicts = Counter(claims["verdict"])
    counts = ", ".join(
        f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS if verdicts[verdict]
    )
    rule = (__doc__ or "").split("\n\n", 1)[1]
    simulated = next(name for name, c in paper().claims.items() if c.effect == SIMULATED)
    sets = "Data sets are the paper's; below its scale others stand in for them."
    text = f"{counts}. {sets}\n\n{rule}\n\n{simulated}: {RULE}".replace("``", "")
    write_page("Claims", text, {"": page_table(claims)}, out.with_suffix(".html"))


def page_table(claims: pd.DataFrame) -> pd.DataFrame:
    """Format the claims for the page: effect and interval in one column, numbers rounded."""
    effect = [
        ""
        if pd.isna(row["effect"])
        else f"{row['effect']:.3g} [{row['low']:.3g}, {row['high']:.3g}] {row['unit']}".strip()
        for row in claims.to_dict("records")
    ]
    return pd.DataFrame(
        {
            "claim": claims["claim"],
            "family": claims["family"],
            "statement": claims["says"],
            "measured": claims["measure"],
            "effect [interval at 1 − level]": effect,
            "level": claims["level"],
            "n": claims["n"],
            "p, corrected": claims["p_corrected"],
            "verdict": claims["verdict"],
            "smallest of interest": claims["smallest"],
            "power to find it": claims["power"],
            "smallest detectable": claims["smallest_detectable"],
            "runs": claims["runs"],
            "note": claims["note"],
            "design, commit": claims["design"].str[:7],
        }
    )
