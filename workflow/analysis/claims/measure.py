"""Measure a claim on its experiment: the numbers that its verdict follows from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log
from typing import Literal

import pandas as pd

from trainer.errors import UserError
from workflow.analysis.claims.effects import resolution
from workflow.analysis.tables.evaluations import has_diverged, missing_or_diverged
from workflow.experiments import Comparison, Experiment, test_local_steps

SMALLEST_LOG_TRACE = log(1.1)  # a Hessian's trace that differs by less than 10 % is the same


@dataclass(frozen=True)
class ExperimentDesign:
    """Hold what an experiment's judgement was told before its data: H and effect, in points.

    ``cooldown``: its runs end with one.
    """

    local_steps: int
    smallest_effect: float
    cooldown: bool = False

    @classmethod
    def of(cls, experiment: Experiment) -> ExperimentDesign:
        return cls(
            test_local_steps(experiment),
            experiment.smallest_effect,
            cooldown=experiment.cooldown is not None,
        )


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Hold one number per seed, and what deciding on them takes.

    ``smallest``: the smallest effect of interest. ``least_spread``: the measure's resolution.
    ``obstacle``: why nothing can be decided, whatever the numbers are.
    """

    values: pd.Series[float]
    smallest: float
    local_steps: int
    least_spread: float = 0.0
    obstacle: str = ""
    runs: str = ""
    incomplete: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """State a claim; ``effect`` maps a table and the H to test to one number per seed.

    A slope's ``doublings`` are those that its fit spans. ``no_gain``: the claim is that the effect
    is below the smallest of interest. ``after_cooldown``: only experiments with one measure it.
    """

    name: str
    statement: str
    experiment: str
    effect: Callable[[pd.DataFrame, int], pd.Series[float]]
    measure: str
    unit: str = "points"
    compares: Comparison = "local_steps"
    quantity: Literal["accuracy", "sharpness"] = "accuracy"
    doublings: Callable[[pd.DataFrame, int], float] | None = None
    no_gain: bool = False
    after_cooldown: bool = False

    def can_be_measured(self, designs: Mapping[str, ExperimentDesign]) -> bool:
        """Return whether the scale has what the claim is about."""
        design = designs.get(self.experiment)
        return design is not None and (design.cooldown or not self.after_cooldown)

    def measured(self, table: pd.DataFrame, design: ExperimentDesign) -> Measurement:
        """Measure ``table``. Raises UserError for a table without the H that the claim compares."""
        h = design.local_steps
        compared = {h} if self.compares == "num_clients" else {1, h}
        requested = table.loc[table["role"] == "phase 2", "first_local_steps"]
        if missing := sorted(compared - set(requested)):
            raise UserError(
                f"{self.experiment}: its table has no runs of H = {missing[0]}, which the claims "
                "compare; give the tables of the same experiments"
            )
        finished = table[table["step"].notna()]
        whole, image = design.smallest_effect, resolution(table)
        if self.quantity == "sharpness":
            whole, image = SMALLEST_LOG_TRACE, 0.0
        spanned = self.doublings(table, h) if self.doublings else 1.0
        all_h = self.doublings is not None
        return Measurement(
            values=self.effect(table, h),
            smallest=whole / spanned,
            local_steps=h,
            least_spread=image / spanned,
            obstacle=self._obstacle(table if all_h else table[requested_h(table, compared)]),
            runs=f"{finished['run'].nunique()} of {table['run'].nunique()} of {self.experiment}",
            incomplete=missing_or_diverged(table),
        )

    def _obstacle(self, compared: pd.DataFrame) -> str:
        """Explain why a measure of sharpness cannot be decided: no seed is left out silently."""
        seeds = compared.loc[has_diverged(compared), "seed"].unique()
        if self.quantity == "accuracy" or not len(seeds):
            return ""
        named = ", ".join(map(str, sorted(seeds)))
        return f"a run that diverged has no sharpness (seed {named})"


def requested_h(table: pd.DataFrame, local_steps: set[int]) -> pd.Series[bool]:
    return table["first_local_steps"].isin(local_steps) & (table["role"] == "phase 2")
