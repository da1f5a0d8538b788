"""Tables of the scale workstation, as docs/cifar10.md speaks of them."""

from __future__ import annotations

import pandas as pd

from tests.docs.reference import REFERENCE

WORKSTATION = REFERENCE / "workstation"
UNTIL_END, UNTIL_COOLED = ["phase 2"], ["phase 2", "cooldown"]
PHASES = (UNTIL_END, UNTIL_COOLED)


def table(experiment: str) -> pd.DataFrame:
    return pd.read_csv(WORKSTATION / f"tables/{experiment}.csv")


def at(experiment: str, step: int, value: str) -> pd.DataFrame:
    """Return ``value`` at ``step`` after the switch: a row per seed, a column per H."""
    rows = table(experiment)
    rows = rows[rows["role"].isin(UNTIL_COOLED) & (rows["step"] == step)]
    return rows.pivot(index="seed", columns="first_local_steps", values=value)


def claims() -> pd.DataFrame:
    return pd.read_csv(WORKSTATION / "claims.csv").set_index("claim")


def row(name: str, *cells: str) -> str:
    return f"| {name} | {' | '.join(cells)} |"
