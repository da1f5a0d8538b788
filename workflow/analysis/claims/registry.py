"""Describe each effect that claims can measure: the numbers' words, unit and resolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd

from workflow.analysis.claims import effects
from workflow.claims import Difference, OfGrid


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Describe an effect; ``function`` maps a table and the H to test to one number per seed.

    ``measure`` is it in words, with {control} for whose runs are subtracted. A slope's
    ``doublings`` are those that its fit spans. ``of_one_h``: it compares runs of the tested H with
    one another, not with H = 1.
    """

    function: Callable[[pd.DataFrame, int], pd.Series[float]]
    measure: str
    unit: str = "points"
    quantity: Literal["accuracy", "sharpness"] = "accuracy"
    doublings: Callable[[pd.DataFrame, int], float] | None = None
    of_one_h: bool = False


EFFECTS: Mapping[Difference | OfGrid, Effect] = {
    "gain_at_the_end": Effect(
        function=effects.gain_at_the_end, measure="accuracy at the end minus {control}"
    ),
    "gain_after_cooldown": Effect(
        function=effects.gain_after_cooldown, measure="accuracy after the cool-down minus {control}"
    ),
    "gain_throughout": Effect(
        function=effects.gain_throughout,
        measure="accuracy minus {control}, mean over evaluations",
    ),
    "flatter_throughout": Effect(
        function=effects.flatter_throughout,
        measure="ln(trace of {control} Hessian ÷ its own), mean over evaluations",
        unit="",
        quantity="sharpness",
    ),
    "gain_of_a_small_rate": Effect(
        function=effects.gain_of_a_small_rate,
        measure="gain over SGD with small η minus with large η",
    ),
    "gain_of_time": Effect(
        function=effects.gain_of_time,
        measure="gain over SGD at the end minus at the first evaluation",
    ),
    "rise_with_h": Effect(
        function=effects.rise_with_h,
        measure="slope of the accuracy over log₂ H, 1 to H",
        unit="points per doubling",
        doublings=effects.doublings_up_to,
    ),
    "fall_beyond": Effect(
        function=effects.fall_beyond, measure="accuracy minus that of the largest H"
    ),
    "gain_of_long_rounds": Effect(
        function=effects.gain_of_long_rounds,
        measure="accuracy of 1/η ≤ H minus that of 1 < H < 1/η",
    ),
    "rise_with_k": Effect(
        function=effects.rise_with_k,
        measure="slope of the accuracy over log₂ K",
        unit="points per doubling",
        doublings=effects.doublings_of_k,
        of_one_h=True,
    ),
    "flatter_with_h": Effect(
        function=effects.flatter_with_h,
        measure="minus the slope of ln(trace of the Hessian) over log₂ H, all H",
        unit="per doubling",
        quantity="sharpness",
        doublings=effects.doublings_of_h,
    ),
}
assert set(EFFECTS) == {*get_args(Difference), *get_args(OfGrid)}
