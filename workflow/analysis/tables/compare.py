"""Compare tables with those of another machine: means over seeds, setting by setting.

Single runs differ between machines, since rounding errors grow over thousands of steps; their means
over seeds must not.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from trainer.errors import UserError
from workflow.analysis.tables.build import write_csv
from workflow.analysis.tables.evaluations import SETTING, SETTINGS, last_evaluations, settings_of
from workflow.analysis.tables.read import read_table

# Absolute and relative tolerances of a mean of last evaluations. With other instructions
# (ATEN_CPU_CAPABILITY=default), the means differed by up to 0.0006 and 0.001 %.
TOLERANCES = {"test_accuracy": (0.004, 0.0), "hessian_trace": (0.0, 0.05)}
BY = ["experiment", "role", *SETTINGS, SETTING]


def compare(tables: Mapping[str, pd.DataFrame], reference: Path, out: Path) -> str:
    """Write every mean beside its reference to ``out``; return one line for the terminal.

    An experiment without a reference table is named. Raises UserError naming the means that differ.
    """
    references = {name: reference / f"{name}.csv" for name in tables}
    there = {name: path for name, path in references.items() if path.exists()}
    if not there:
        missing = ", ".join(map(str, references.values()))
        raise UserError(f"{missing}: missing; there is nothing to compare with")
    parts = [_compare_means(tables[name], read_table(path)) for name, path in there.items()]
    whole = pd.concat(parts, ignore_index=True)
    write_csv(whole, out)
    outside = whole[~whole["within"]]
    if len(outside):
        differences = "; ".join(
            _describe_difference(row) for row in outside.head(5).to_dict("records")
        )
        more = f" and {len(outside) - 5} more in {out}" if len(outside) > 5 else ""
        raise UserError(
            f"{len(outside)} of {len(whole)} means differ from {reference}: {differences}{more}"
        )
    farthest = ((whole["mean_here"] - whole["mean_reference"]).abs() / whole["tolerance"]).max()
    return (
        f"all {len(whole)} means agree with {reference}, the farthest differs by {farthest:.0%} of "
        f"its tolerance; {out}{_without_reference(tables.keys() - there.keys())}"
    )


def _without_reference(names: Collection[str]) -> str:
    return f"; not compared, for want of a table there: {', '.join(sorted(names))}" if names else ""


def _compare_means(table: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    both = [_mean_over_seeds(each) for each in (table, reference)]
    joined = both[0].add_suffix("_here").join(both[1].add_suffix("_reference"), how="outer")
    joined = joined.reset_index()
    absolute = joined["quantity"].map({name: a for name, (a, _) in TOLERANCES.items()})
    relative = joined["quantity"].map({name: r for name, (_, r) in TOLERANCES.items()})
    allowed = absolute + relative * joined["mean_reference"].abs()
    difference = (joined["mean_here"] - joined["mean_reference"]).abs()
    # A mean that only one side has is NaN here, and so counts as different.
    return joined.assign(tolerance=allowed, within=difference <= allowed)


def _mean_over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return columns n and mean of last evaluations, indexed by ``BY`` and quantity."""
    ends = last_evaluations(table[table["step"].notna()])
    if settings_of(ends) == SETTINGS:
        ends = ends.assign(**{SETTING: ""})
    long = ends.melt(id_vars=[*BY, "seed"], value_vars=list(TOLERANCES), var_name="quantity")
    groups = long.dropna(subset=["value"]).groupby([*BY, "quantity"])["value"]
    return pd.DataFrame({"n": groups.count(), "mean": groups.mean()})


def _describe_difference(row: Mapping[Hashable, Any]) -> str:
    h = row[SETTING] or f"H = {row['first_local_steps']}"
    return (
        f"{row['experiment']} {row['role']} {h} η = {row['peak_lr']:g} "
        f"K = {row['num_clients']}: {row['quantity']} {row['mean_here']:.4g}, there "
        f"{row['mean_reference']:.4g} ± {row['tolerance']:.2g}"
    )
