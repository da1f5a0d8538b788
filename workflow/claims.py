"""Define ``claims:`` of workflow/paper.yaml and of experiments files. Imports nothing heavy."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from trainer.settings.base import Settings
from workflow.figures import Figure

ERROR_RATE = 0.05  # of a table's verdicts on one set of questions
OWN = "own"

# The functions of analysis/claims/effects.py that measure two sets of runs
Difference = Literal[
    "gain_at_the_end", "gain_after_cooldown", "gain_throughout", "flatter_throughout",
]  # fmt: skip
DIFFERENCES: tuple[str, ...] = get_args(Difference)
# … and those that compare H = 1 with several H, K or η
OfGrid = Literal[
    "gain_of_a_small_rate", "gain_of_time", "rise_with_h", "fall_beyond", "gain_of_long_rounds",
    "rise_with_k", "flatter_with_h",
]  # fmt: skip
SIMULATED: Literal["simulated_drift"] = "simulated_drift"
THEORY = "theory"  # the simulation's table, its only experiment, and the figure drawn from it
EffectName = Difference | OfGrid | Literal["simulated_drift"]


class Claim(Settings):
    """State what is measured on an experiment, one number per seed, and what decides on it."""

    says: str = Field(description="the claim, in a sentence")
    experiment: str = Field(description="whose runs it is judged on")
    effect: EffectName = Field(
        description="what is measured: a function of workflow/analysis/claims/effects.py"
    )
    treated: dict[str, Any] | None = Field(
        None,
        description="settings that tell the treated runs from the others, as in the experiment's "
        "`runs`; null: H is the experiment's judged_h",
    )
    control: dict[str, Any] | None = Field(
        None, description="settings that tell the control's runs from the others; null: H = 1"
    )
    measure: str | None = Field(
        None, description="the effect in words, for the table; null: the usual ones"
    )
    direction: Literal["gain", "no_gain", "equivalence"] = Field(
        "gain",
        description="the effect is above 0; below the smallest of interest; or smaller than that, "
        "whatever its sign",
    )
    smallest_effect: float | None = Field(
        None,
        description="smallest effect of interest, chosen before the judged seeds, in points of "
        "accuracy (slopes: over all that is fitted) or as ln of a ratio of traces; null: the "
        "experiment's smallest_effect, ln 1.1 for traces",
        gt=0,
        allow_inf_nan=False,
    )
    family: str = Field(OWN, description="the claims that share an error rate")

    @model_validator(mode="after")
    def _has_both_arms_or_none(self) -> Self:
        given = [name for name in ("treated", "control") if getattr(self, name) is not None]
        if len(given) == 1:
            other = "control" if given == ["treated"] else "treated"
            raise ValueError(f"{given[0]} needs {other} beside it; add {other}, or remove both")
        if given and self.effect not in DIFFERENCES:
            raise ValueError(
                f"treated and control do not fit effect {self.effect}, which compares H; remove "
                f"them, or choose one of {', '.join(DIFFERENCES)}"
            )
        return self


class Pooled(Settings):
    """State a row that pools claims of the same effect."""

    says: str = Field(description="the claim, in a sentence")
    claims: list[str] = Field(description="names of the claims", min_length=2)
    family: str = Field(OWN, description="the claims that share an error rate")


class Stated(Settings):
    """Hold figures and claims, which workflow/paper.yaml and experiments files write alike."""

    figures: dict[str, Figure] = Field(default={}, description="by name, a target of Snakemake")
    claims: dict[str, Claim] = Field(default={}, description="by name")
    pooled: dict[str, Pooled] = Field(default={}, description="by name: rows that pool claims")

    @property
    def error_rates(self) -> dict[str, float]:
        """Return the error rate of each family."""
        return {OWN: ERROR_RATE}

    @property
    def families(self) -> dict[str, str]:
        """Map the names of all rows to their families."""
        of_claims = {name: claim.family for name, claim in self.claims.items()}
        return of_claims | {name: pooled.family for name, pooled in self.pooled.items()}

    @property
    def levels(self) -> dict[str, float]:
        """Divide each family's error rate among its rows, whatever of it can be judged."""
        count = Counter(self.families.values())
        return {name: self.error_rates[of] / count[of] for name, of in self.families.items()}

    @model_validator(mode="after")
    def _rows_are_known(self) -> Self:
        for name, family in self.families.items():
            if family not in self.error_rates:
                key, known = (
                    "pooled" if name in self.pooled else "claims",
                    ", ".join(self.error_rates),
                )
                raise ValueError(f"{key}.{name}.family: unknown {family!r}; choose one of {known}")
        for name, pooled in self.pooled.items():
            if name in self.claims:
                raise ValueError(f"pooled.{name}: a claim has this name, too; choose another")
            if lacking := [each for each in pooled.claims if each not in self.claims]:
                raise ValueError(f"pooled.{name}.claims: there is no claim {lacking[0]!r}; add it")
            kinds = {(self.claims[n].effect, self.claims[n].direction) for n in pooled.claims}
            if len(kinds) > 1:
                raise ValueError(
                    f"pooled.{name}.claims: they differ in effect or direction; pool equal ones"
                )
        return self


class Paper(Stated):
    """Hold the content of workflow/paper.yaml, which all scales share."""

    rates: dict[str, float] = Field(description="error rate of each family of claims")
    theory_caption: str = Field(description="caption of the simulation's figure")

    @property
    def error_rates(self) -> dict[str, float]:
        return self.rates
