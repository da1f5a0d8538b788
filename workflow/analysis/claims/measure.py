"""Measure a claim on its experiment: the numbers that its verdict follows from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import log
from typing import Any

import pandas as pd

from trainer.errors import UserError
from workflow.analysis.claims.effects import resolution
from workflow.analysis.claims.registry import EFFECTS, Effect
from workflow.analysis.tables.evaluations import SETTING, has_diverged, missing_or_diverged
from workflow.claims import Claim
from workflow.entries import one_h_of
from workflow.experiments import Experiment, asked, matching
from workflow.figures import name_settings

SMALLEST_LOG_TRACE = log(1.1)  # a Hessian's trace that differs by less than 10 % is the same
TREATED, CONTROL = 2, 1  # what effects take for H where claims name two sets of runs themselves


@dataclass(frozen=True)
class ExperimentDesign:
    """Hold what an experiment's judgement was told before its data: H and effect, in points.

    ``local_steps`` is None where only claims that name their runs are about it. ``cooldown``: its
    runs end with one. ``experiment`` finds runs by their settings.
    """

    local_steps: int | None
    smallest_effect: float
    cooldown: bool = False
    experiment: Experiment | None = None

    @classmethod
    def of(cls, experiment: Experiment) -> ExperimentDesign:
        return cls(
            asked(experiment).judged_h,
            experiment.smallest_effect,
            cooldown=experiment.cooldown is not None,
            experiment=experiment,
        )

    def runs(self, wanted: dict[str, Any]) -> set[str]:
        """Return the ids of the runs that have ``wanted`` settings."""
        assert self.experiment is not None
        return {run.id for run in matching(self.experiment, wanted)}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Hold one number per seed, and what deciding on them takes.

    ``smallest``: the smallest effect of interest. ``compared``: the H or settings in words.
    ``least_spread``: the measure's resolution. ``obstacle``: why nothing can be decided, whatever
    the numbers are. ``incomplete`` names runs that are missing or diverged; ``unfinished``: some
    are missing.
    """

    values: pd.Series[float]
    smallest: float
    compared: str
    least_spread: float = 0.0
    obstacle: str = ""
    runs: str = ""
    incomplete: str = ""
    unfinished: bool = False


@dataclass(frozen=True)
class NamedClaim:
    """Measure the claim ``stated`` under ``name``."""

    name: str
    stated: Claim

    @property
    def experiment(self) -> str:
        return self.stated.experiment

    @property
    def effect(self) -> Effect:
        assert self.stated.effect != "simulated_drift", "judged by theory_claim.py"
        return EFFECTS[self.stated.effect]

    @property
    def after_cooldown(self) -> bool:
        return self.stated.effect == "gain_after_cooldown"

    @property
    def measure(self) -> str:
        """Put the effect into words."""
        control = "SGD's" if self.stated.control is None else "the control's"
        return self.stated.measure or self.effect.measure.format(control=control)

    def can_be_measured(self, designs: Mapping[str, ExperimentDesign]) -> bool:
        """Return whether the scale has what the claim is about."""
        design = designs.get(self.experiment)
        return design is not None and (design.cooldown or not self.after_cooldown)

    def measured(self, table: pd.DataFrame, design: ExperimentDesign) -> Measurement:
        """Measure ``table``. Raises UserError for a table without the runs that are compared."""
        effect, h, whole_table = self.effect, design.local_steps, table
        compared = f"H = {h}"
        if self.stated.treated is not None and self.stated.control is not None:
            table, h = self._arms(table, design), TREATED
            names = map(name_settings, (self.stated.treated, self.stated.control))
            compared = " against ".join(names)
        elif SETTING in table:  # runs by a rule of H are compared by claims that name them
            table = table[table[SETTING].map(one_h_of).notna()]
        assert h is not None, "stated.py asks for it"
        needed = {h} if effect.of_one_h else {CONTROL, h}
        requested = table.loc[table["role"] == "phase 2", "first_local_steps"]
        if missing := sorted(needed - set(requested)):
            raise UserError(
                f"{self.experiment}: its table has no runs of H = {missing[0]}, which the claims "
                "compare; give the tables of the same experiments"
            )
        finished = table[table["step"].notna()]
        asked_for = whole_table[whole_table["run"].isin(table["run"])]
        whole, image = design.smallest_effect, resolution(whole_table)
        if effect.quantity == "sharpness":
            whole, image = SMALLEST_LOG_TRACE, 0.0
        spanned = effect.doublings(table, h) if effect.doublings else 1.0
        all_h = effect.doublings is not None
        values = effect.function(table, h)
        obstacle = self._obstacle(table if all_h else table[requested_h(table, needed)])
        if values.empty and len(finished) == len(table):
            obstacle = f"{self.experiment} has no H on one side of what is compared; add one"
        return Measurement(
            values=values,
            smallest=(self.stated.smallest_effect or whole) / spanned,
            compared=compared,
            least_spread=image / spanned,
            obstacle=obstacle,
            runs=f"{finished['run'].nunique()} of {table['run'].nunique()} of {self.experiment}",
            incomplete=missing_or_diverged(asked_for),
            unfinished=len(finished) < len(table),
        )

    def _arms(self, table: pd.DataFrame, design: ExperimentDesign) -> pd.DataFrame:
        """Select the runs of both arms; set their H to what effects take for it."""
        assert self.stated.treated is not None and self.stated.control is not None
        parts = []
        for wanted, h in ((self.stated.control, CONTROL), (self.stated.treated, TREATED)):
            rows = table[table["run"].isin(design.runs(wanted)) & (table["role"] != "phase 1")]
            if rows.empty:
                raise UserError(
                    f"{self.experiment}: its table has no runs of {name_settings(wanted)}, which "
                    f"claim {self.name} compares; give the table of the same experiment"
                )
            parts.append(rows.assign(first_local_steps=h))
        return pd.concat(parts, ignore_index=True)

    def _obstacle(self, compared: pd.DataFrame) -> str:
        """Explain why a measure of sharpness cannot be decided: no seed is left out silently."""
        seeds = compared.loc[has_diverged(compared), "seed"].unique()
        if self.effect.quantity == "accuracy" or not len(seeds):
            return ""
        named = ", ".join(map(str, sorted(seeds)))
        return f"a run that diverged has no sharpness (seed {named})"


def requested_h(table: pd.DataFrame, local_steps: Collection[int]) -> pd.Series[bool]:
    return table["first_local_steps"].isin(local_steps) & (table["role"] == "phase 2")
