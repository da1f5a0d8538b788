"""Let a run end with a cool-down: a last phase that all runs of an experiment go through alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.errors import UserError
from trainer.settings.run import RunSettings
from trainer.settings.schedule import PHASE_OPTIONS, PhaseSettings


def with_cooldown(
    values: Mapping[str, Any], settings: RunSettings, cooldown: PhaseSettings, where: str
) -> dict[str, Any]:
    """Return ``values``, of which ``settings`` were made, with ``cooldown`` as a further phase.

    Raises UserError, which begins with ``where``, unless the end before it is evaluated, since
    claims compare that.
    """
    if settings.steps_per_epoch is None:
        raise UserError(f"{where}cooldown needs steps_per_epoch; set it")
    last = settings.phases[-1]
    rounds = -(-last.epochs * settings.steps_per_epoch // last.local_steps)
    if rounds % last.eval_freq:
        raise UserError(
            f"{where}cooldown begins after {rounds} rounds of H = {last.local_steps}, which would "
            f"not be evaluated; choose an eval_freq1 that divides {rounds} instead of "
            f"{last.eval_freq}"
        )
    others = {name: value for name, value in values.items() if name not in PHASE_OPTIONS}
    return {**others, "schedule": [*settings.phases, cooldown]}
