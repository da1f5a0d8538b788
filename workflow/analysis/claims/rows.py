"""List the rows of claims.csv: each claim, and before the first of its claims what pools some."""

from __future__ import annotations

from collections.abc import Sequence

from workflow.analysis.claims.measure import NamedClaim
from workflow.analysis.claims.theory_claim import TheoryRow
from workflow.analysis.claims.verdict import Row
from workflow.claims import SIMULATED, Stated


def claims_of(stated: Stated) -> list[NamedClaim]:
    """List the claims that experiments measure."""
    return [NamedClaim(n, c) for n, c in stated.claims.items() if c.effect != SIMULATED]


def rows_of(stated: Stated) -> list[Row | TheoryRow]:
    """List the rows in order, each at its part of its family's error rate."""
    rows: list[Row | TheoryRow] = []
    families, levels = stated.families, stated.levels

    def add(name: str, says: str, claims: Sequence[NamedClaim]) -> None:
        rows.append(Row(name, says, claims, families[name], levels[name]))

    for name, claim in stated.claims.items():
        for pooling, pooled in stated.pooled.items():
            if pooled.claims[0] == name:
                parts = [NamedClaim(each, stated.claims[each]) for each in pooled.claims]
                add(pooling, pooled.says, parts)
        if claim.effect == SIMULATED:
            family, level = families[name], levels[name]
            rows.append(TheoryRow(name=name, says=claim.says, family=family, level=level))
        else:
            add(name, claim.says, [NamedClaim(name, claim)])
    return rows
