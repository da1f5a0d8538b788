"""Format reference verdicts as the Markdown tables of README.md and docs/claims.md."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from workflow.claims import OWN, THEORY
from workflow.paper import paper

CORES = 2
CONTROLS = "controls"
VERDICTS = ("supported", "contradicted", "no effect", "inconclusive")
ALWAYS_COUNTED = ("supported", "contradicted")

Row = Mapping[Hashable, Any]


def results_table(scales: Mapping[str, pd.DataFrame]) -> str:
    """Tabulate the primary claims and the controls: effect and verdict at each scale.

    ``scales``: claims.csv by scale; one that measured none of these rows gets no column. Where a
    primary claim pools panels and not all were run, those that were stand in its place; beside it
    they stand if it is supported and one of them is not.
    """
    rows = {name: dict(_by_claim(claims)) for name, claims in scales.items()}
    lines = list(_headlines())
    cells = {
        name: [_cell(of_scale, candidates) for _, candidates in lines]
        for name, of_scale in rows.items()
    }
    shown = {name: column for name, column in cells.items() if any(column)}
    head = ["claim", *(f"`{name}`" for name in shown)]
    table = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for number, (says, _) in enumerate(lines):
        values = [column[number] or "–" for column in shown.values()]
        table.append("| " + " | ".join([says, *values]) + " |")
    return "\n".join([*table, "", *(_count(name, rows[name]) for name in shown)])


def _headlines() -> Iterator[tuple[str, list[str]]]:
    """Yield what each row says and the claims that can fill it, preferred first."""
    stated = paper()
    controls = [name for name, claim in stated.claims.items() if claim.family == CONTROLS]
    primary = {n: p.says for n, p in stated.pooled.items() if p.family == "primary"}
    primary |= {n: c.says for n, c in stated.claims.items() if c.family == "primary"}
    for name in sorted(primary):
        pooled = stated.pooled[name].claims if name in stated.pooled else []
        yield f"{name.split(',')[0]}. {primary[name]}", [name, *pooled]
        if of_this := [control for control in controls if control.startswith(name)]:
            says = stated.claims[of_this[0]].says.split(" (")[0]
            yield f"{name}, small η. {says}", of_this


def _by_claim(claims: pd.DataFrame) -> Iterator[tuple[str, Row]]:
    for row in claims.to_dict("records"):
        yield str(row["claim"]), row


def _cell(rows: Mapping[str, Row], candidates: list[str]) -> str:
    """Show a row's result: pooled, with its panels if it is supported and one of them is not."""
    measured = [rows[name] for name in candidates if name in rows and not _lacks_effect(rows[name])]
    if measured and measured[0]["claim"] in paper().pooled:
        pooled, *panels = measured
        doubtful = any(panel["verdict"] != "supported" for panel in panels)
        measured = measured if pooled["verdict"] == "supported" and doubtful else [pooled]
    return "; ".join(
        f"{'' if row['family'] == 'primary' else row['claim'] + ': '}{_numbers(row)}, "
        f"**{row['verdict']}**"
        for row in measured
    )


def _count(scale: str, rows: Mapping[str, Row]) -> str:
    """Count the verdicts of a scale's rows; the simulated theory needs no run of any scale."""
    of_paper = [row for row in rows.values() if row["family"] != OWN and row["target"] != THEORY]
    without = sum(map(_lacks_effect, of_paper))
    counts = f"- `{scale}`: {_verdicts(of_paper, ALWAYS_COUNTED)}, {without} without a result"
    own = _verdicts([row for row in rows.values() if row["family"] == OWN])
    return f"{counts}; of its own claims {own}." if own else f"{counts}."


def _verdicts(rows: Iterable[Row], always: Container[str] = ()) -> str:
    judged = [row["verdict"] for row in rows if not _lacks_effect(row)]
    shown = [verdict for verdict in VERDICTS if verdict in judged or verdict in always]
    return ", ".join(f"{judged.count(verdict)} {verdict}" for verdict in shown)


def claims_table(claims: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Tabulate all rows that have a result, one line per claim, and name the others.

    The time is that of all runs of the target's experiments on two cores, without their start-up;
    the theory's target has no runs.
    """
    per_experiment = runs.assign(experiment=runs["experiments"].str.split()).explode("experiment")
    seconds = per_experiment.groupby("experiment")["seconds"].sum()
    head = (
        "| claim | experiment | time | measured: effect [interval], n | p, corrected | "
        "smallest effect of interest: power | verdict |"
    )
    lines, without = [head, "|" + " --- |" * head.count(" |")], []
    for claim in claims.to_dict("records"):
        if _lacks_effect(claim):
            without.append(str(claim["claim"]))
            continue
        targets = str(claim["target"]).split()
        spent = sum(seconds[target] for target in targets if target in seconds)
        time = f"{max(1, round(spent / CORES / 60))} min" if spent else "–"
        name, says = f"{claim['claim']}. {claim['says']}", claim["verdict"]
        if claim["family"] == "primary":
            name, says = f"**{name}**", f"**{says}**"
        lines.append(
            f"| {name} | {' '.join(f'`{target}`' for target in targets)} | {time} | "
            f"{_format_effect(claim)} | {_format_p(claim['p_corrected'])} | "
            f"{_format_power(claim)} | {says} |"
        )
    if without:
        lines += ["", f"Without a result (`note` in claims.csv says why): {'; '.join(without)}."]
    return "\n".join(lines)


def _lacks_effect(claim: Row) -> bool:
    return bool(pd.isna(claim["effect"]))


def _format_effect(claim: Row) -> str:
    measure = str(claim["measure"]).replace("|", "\\|")
    return f"{measure}: {_numbers(claim)}, n = {claim['n']}"


def _numbers(claim: Row) -> str:
    effect, low, high = (f"{float(f'{claim[name]:.2g}'):g}" for name in ("effect", "low", "high"))
    return f"{effect} [{low}, {high}]{_unit(claim)}"


def _format_p(p: float) -> str:
    return "" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.2g}"


def _format_power(claim: Row) -> str:
    if pd.isna(claim["power"]):
        return ""
    return f"{claim['smallest']:.2g}{_unit(claim)}: {claim['power']:.0%}"


def _unit(claim: Row) -> str:
    return f" {claim['unit']}" if isinstance(claim["unit"], str) and claim["unit"] else ""
