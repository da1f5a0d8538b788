"""Read the tables of figures and claims, and check them line by line."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from trainer.errors import UserError
from trainer.files.atomic import first_problem, reading
from workflow.claims import THEORY

REMAKE = "remove it, run again"
AtLeast1 = Annotated[int, Field(ge=1)]
AtLeast0 = Annotated[int, Field(ge=0)]


class _Line(BaseModel):
    """Hold what is read of a table's line; further columns are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class EvaluationLine(_Line):
    """Hold a line of an experiment's table; a run that is missing has no evaluation."""

    experiment: str
    role: Literal["phase 1", "phase 2", "cooldown"]
    run: Annotated[str, Field(min_length=1)]
    seed: AtLeast0
    num_clients: AtLeast1
    batch_size: AtLeast1
    peak_lr: Annotated[float, Field(gt=0)]
    first_local_steps: AtLeast1
    first_epoch: AtLeast0
    step: AtLeast0 | None
    epoch: float | None
    lr: Annotated[float, Field(ge=0)] | None
    test_accuracy: Annotated[float, Field(ge=0, le=1)] | None
    bytes_sent: Annotated[float, Field(ge=0)] | None
    round: AtLeast0 | None
    hessian_trace: float | None
    diverged: bool | None
    setting: str | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        of_evaluation = (self.step, self.epoch, self.lr, self.test_accuracy, self.bytes_sent)
        if None in of_evaluation and of_evaluation != (None,) * 5:
            raise ValueError("an evaluation is not whole")
        return self


class SimulationLine(_Line):
    """Hold a line of the simulation's table."""

    model: Literal["valley", "circle"]
    quantity: str
    num_clients: AtLeast1
    local_steps: AtLeast1
    argument: Annotated[float, Field(gt=0)]
    batch: AtLeast0
    replicas: AtLeast1
    measured: float
    slow_sde: float
    exact: float
    sgd_limit: float
    k_fold_limit: float


def read_tables(paths: list[Path]) -> dict[str, pd.DataFrame]:
    """Read tables by experiment, which names the file."""
    return {path.stem: read_table(path) for path in paths}


def read_table(path: Path) -> pd.DataFrame:
    """Read a table exactly as it was written. Raises UserError when it is damaged."""
    with reading(path, REMAKE):
        content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")  # spreadsheets write a byte order mark
        _check(text, path.stem)
        return pd.read_csv(io.StringIO(text))
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8; save it so, or {REMAKE}") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({error}); {REMAKE}") from None


def _check(text: str, name: str) -> None:
    """Raise ValueError unless ``text`` is the complete table ``name``."""
    if not text.endswith("\n") or "\0" in text:
        raise ValueError("its end is missing" if "\0" not in text else "it holds zero bytes")
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(csv.DictReader(io.StringIO(text), strict=True), start=2):
        if None in line or None in line.values():
            raise ValueError(f"line {number} has another number of values than the first")
        lines.append({key: value or None for key, value in line.items()})
    if not lines:
        raise ValueError("it has no lines")
    try:
        if name == THEORY:
            _check_simulation(TypeAdapter(list[SimulationLine]).validate_python(lines))
        else:
            _check_evaluations(TypeAdapter(list[EvaluationLine]).validate_python(lines), name)
    except ValidationError as failure:
        raise ValueError(f"row {first_problem(failure)}") from None


def _check_simulation(lines: list[SimulationLine]) -> None:
    """Check that each model and quantity has all K with all H, in equally many batches."""
    batches = Counter((x.model, x.quantity, x.num_clients, x.local_steps) for x in lines)
    kinds = defaultdict(list)
    for model, quantity, k, h in batches:
        kinds[model, quantity].append((k, h))
    grids = [
        set(product(*map(set, zip(*each, strict=True)))) == set(each) for each in kinds.values()
    ]
    if len({model for model, _ in kinds}) < 2 or not all(grids) or len(set(batches.values())) > 1:
        raise ValueError("some of it is missing")


def _check_evaluations(lines: list[EvaluationLine], experiment: str) -> None:
    """Check that all seeds have all settings, evaluated at the same steps, diverged or missing."""
    if odd := {line.experiment for line in lines} - {experiment}:
        raise ValueError(f"it is of experiment {min(odd)}")
    if len({(line.run, line.step) for line in lines}) < len(lines):
        raise ValueError("an evaluation is there twice")
    seeds: dict[Any, set[int]] = defaultdict(set)
    steps: dict[Any, set[int | None]] = defaultdict(set)
    for x in lines:
        setting = (x.role, x.first_local_steps, x.peak_lr, x.num_clients, x.setting)
        if x.role != "cooldown":  # which a run that diverged does not reach
            seeds[setting].add(x.seed)
        steps[setting, x.run].add(x.step)
    if len(set(map(frozenset, seeds.values()))) > 1:
        raise ValueError("runs of some seeds are not in it")
    early = {x.run for x in lines if x.diverged or x.step is None}
    whole = {key: found for key, found in steps.items() if key[1] not in early}
    ways = {(setting, frozenset(found)) for (setting, _), found in whole.items()}
    if len(ways) > len({setting for setting, _ in ways}):
        raise ValueError("evaluations of some seeds are not in it")
