"""Which way to execute the clients of a process is fastest here: found by trying.

The choice is kept in ``log_pth``, so that the same run started again repeats it: the ways add
numbers up in different orders, so that their results differ in the last bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.data.training import Batch
from trainer.distributed.world import World
from trainer.errors import UserError
from trainer.files.atomic import parse_json, write_json
from trainer.local_sgd.clients import ClientBank, Plan
from trainer.local_sgd.schedule import Round, Schedule
from trainer.models import model_spec
from trainer.run.memory import CPU, Need, fits, refusal
from trainer.settings.run import RunSettings

EXECUTION_FILE = "execution.json"
# Activations of one pass on a CPU. Beyond its caches larger passes gain nothing: one client of a
# ResNet exceeds this, all clients of a small network do not.
CPU_PASS_BYTES = 256 * 2**20
TRIAL_SECONDS = 0.1  # for each plan, in turns with the others
FEWEST_TRIALS = 3

MakeBank = Callable[[int, Plan], ClientBank]


@dataclass(frozen=True, kw_only=True)
class Plans:
    """The plan for rounds with H = 1, and for the others."""

    one_step: Plan
    several_steps: Plan

    def of(self, round: Round) -> Plan:
        return self.one_step if round.local_steps == 1 else self.several_steps

    def __str__(self) -> str:
        if self.one_step == self.several_steps:
            return str(self.one_step)
        return f"{self.several_steps}; H = 1: {self.one_step}"


def find_plans(
    settings: RunSettings,
    schedule: Schedule,
    batch: Batch,
    make_bank: MakeBank,
    world: World,
    kept: Plans | None = None,
) -> Plans:
    """The fastest plans for a run whose steps are like ``batch``; the same on all processes.

    ``make_bank`` gives a bank of so many clients to try a plan with. ``kept`` ones are not tried
    again. Raises UserError where there is too little memory for any, or for the kept ones.
    """
    kinds = {round.local_steps == 1 for round in schedule.rounds()}
    # With momentum of their own the clients are not equal after averaging. But where every H is 1,
    # the mean of their parameters depends on the mean of their momentum alone.
    own_momentum = settings.momentum > 0 and settings.momentum_averaging == "keep"
    fusible = not model_spec(settings.model).stochastic and (kinds == {True} or not own_momentum)
    need = _need(make_bank(1, Plan("serial")), batch)
    fit = world.least(_clients_that_fit(batch, need))
    found = {}
    for one_step in kinds:
        candidates = _candidates(settings, fit, fused=one_step and fusible)
        if kept is not None:
            candidates = [kept.one_step if one_step else kept.several_steps]
        possible = _with_memory(candidates, settings, need, len(batch.images), world)
        found[one_step] = _fastest(possible, batch, make_bank, world)
    either = next(iter(found.values()))
    plans = Plans(one_step=found.get(True, either), several_steps=found.get(False, either))
    return plans if fusible else Plans(one_step=either, several_steps=either)


def keep_plans(plans: Plans, settings: RunSettings, world: World) -> None:
    """For a later start of the same run: ``kept_plans``."""
    content = {"run": _identity(settings, world), **asdict(plans)}
    write_json(settings.log_pth / EXECUTION_FILE, content)


def kept_plans(settings: RunSettings, world: World) -> Plans | None:
    """What an earlier start of this very run chose, as the main process finds it."""
    plans = None
    if world.is_main:
        plans = _read(settings.log_pth / EXECUTION_FILE, _identity(settings, world))
    return world.from_main(plans)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    run: dict[str, Any]
    one_step: Plan
    several_steps: Plan


def _read(path: Path, identity: dict[str, Any]) -> Plans | None:
    try:
        kept = parse_json(path.read_bytes(), _Kept)
    except (OSError, ValueError):  # none or a damaged one: it is found anew
        return None
    plans = Plans(one_step=kept.one_step, several_steps=kept.several_steps)
    sizes = [plan.clients_per_pass for plan in (plans.one_step, plans.several_steps)]
    return plans if kept.run == identity and min(sizes) >= 1 else None


def _identity(settings: RunSettings, world: World) -> dict[str, Any]:
    return {
        "settings": settings.science(),
        "clients": settings.clients,
        "compile": settings.compile,
        "processes": world.size,
        "device": world.device.type,
    }


def _need(one: ClientBank, batch: Batch) -> Need:
    """Of a client, found with a bank of one."""
    parameters = one.parameters.memory.nbytes
    return Need(
        replica=parameters + one.momentum.memory.nbytes,
        gradients=parameters,
        activations=one.activation_bytes(batch),
    )


def _clients_that_fit(batch: Batch, need: Need) -> int:
    """In one pass on this process."""
    return min(max(1, _pass_bytes(batch.images.device) // need.activations), len(batch.images))


def _with_memory(
    plans: list[Plan], settings: RunSettings, need: Need, clients: int, world: World
) -> list[Plan]:
    """``plans``, or where their replicas do not fit, offloaded ones (``auto`` on a GPU).

    Raises UserError, on all processes, where none does.
    """
    way = plans[0].way
    replicas = 1 if way == "fused" else clients
    place = CPU if way == "offloaded" else world.device
    if world.least(fits(need, replicas, place)):
        return plans
    if settings.clients == "auto" and place.type == "cuda":
        return _with_memory([Plan("offloaded")], settings, need, clients, world)
    raise UserError(refusal(settings, need, replicas, place, world.size))


def _candidates(settings: RunSettings, fit: int, *, fused: bool) -> list[Plan]:
    """The plans that are possible, or of these the one that ``clients`` asks for."""
    serial = Plan("serial")
    if settings.clients != "auto":
        alone = settings.clients in ("serial", "offloaded")
        return [Plan(settings.clients, 1 if alone else fit)]
    if fused:
        return [Plan("fused", size) for size in sorted({1, fit})]
    one_by_one = model_spec(settings.model).stochastic or settings.mixed_precision
    return [serial] if fit == 1 or one_by_one else [serial, Plan("vectorized", fit)]


def _pass_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return CPU_PASS_BYTES


def _fastest(plans: list[Plan], batch: Batch, make_bank: MakeBank, world: World) -> Plan:
    """By the least time of some steps of as many clients as the largest pass has."""
    if len(plans) == 1:
        return plans[0]
    clients = max(plan.clients_per_pass for plan in plans)
    part = batch.of_clients(slice(clients))
    banks = [make_bank(clients, plan) for plan in plans]
    times: list[list[float]] = [[] for _ in plans]
    end = time.monotonic() + TRIAL_SECONDS * len(plans)
    while len(times[0]) <= FEWEST_TRIALS or time.monotonic() < end:
        for bank, taken in zip(banks, times, strict=True):
            taken.append(math.inf if math.inf in taken else _seconds(bank, part, world))
    # The first includes what is done once. Processes agree on the sum of what each found.
    least = torch.tensor([min(taken[1:]) for taken in times], device=world.device)
    return plans[int(world.sum_(least).argmin())]


def _seconds(bank: ClientBank, batch: Batch, world: World) -> float:
    """Of one step; infinite where the device's memory is too small for it."""
    start = time.perf_counter()
    try:
        bank.step(batch, lr=0.0)
    except torch.OutOfMemoryError:
        return math.inf
    world.synchronise()
    return time.perf_counter() - start
