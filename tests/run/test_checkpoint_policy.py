"""When a run is saved and stopped, by a clock of the test's own."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.option_runs import WORLD, covers
from trainer.local_sgd.schedule import Round
from trainer.run import preemption
from trainer.run.preemption import CheckpointPolicy, PreemptionGuard
from trainer.settings.run import RunSettings


class Clock:
    """Advance with the steps alone; time limits go by the real clock."""

    time = staticmethod(time.time)

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(preemption, "time", self)

    def monotonic(self) -> float:
        return self.now


def saves(
    clock: Clock, *, h: int, rounds: int, every: float, step: float, evaluation: float = 0.0
) -> list[tuple[int, float]]:
    """List the steps at which a run of ``rounds`` rounds is saved, with times since its start."""
    start, found = clock.now, []

    policy = CheckpointPolicy(WORLD, PreemptionGuard(), every, 0)
    for index in range(rounds):
        round = Round(
            index=index + 1, phase=0, start=index * h, stop=(index + 1) * h, local_steps=h,
            evaluate=evaluation > 0,
        )  # fmt: skip
        for at in range(round.start, round.stop):
            clock.now += step
            decision = policy.decide(at + 1, round)
            if decision and decision.save:
                found.append((at + 1, clock.now - start))
                policy.saved()
        if round.evaluate:
            clock.now += evaluation
            policy.evaluated(evaluation)
    return found


def test_short_rounds_are_saved_at_their_ends_when_due(monkeypatch: pytest.MonkeyPatch) -> None:
    found = saves(Clock(monkeypatch), h=10, rounds=1000, every=60, step=0.01)
    assert all(step % 10 == 0 for step, _ in found)
    times = [0, *(when for _, when in found)]
    assert len(found) == 1
    assert 60 <= times[1] <= 62


def test_long_rounds_are_saved_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    found = saves(Clock(monkeypatch), h=1000, rounds=1, every=60, step=1)
    assert [step for step, _ in found] == pytest.approx([120 * i for i in range(1, 9)], abs=10)


def test_a_round_that_ends_soon_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = saves(Clock(monkeypatch), h=100, rounds=3, every=60, step=1)
    assert [step for step, _ in found] == [100, 200, 300]


def test_a_long_evaluation_begins_from_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is not known to be long."""
    found = saves(Clock(monkeypatch), h=5, rounds=4, every=1e6, step=0.1, evaluation=20)
    assert [step for step, _ in found] == [10, 15, 20]
    assert not saves(Clock(monkeypatch), h=5, rounds=4, every=1e6, step=0.1, evaluation=10)


@covers("checkpoint_every")
def test_zero_is_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    found = saves(Clock(monkeypatch), h=7, rounds=3, every=0, step=0.001)
    assert [step for step, _ in found] == list(range(1, 22))
    assert RunSettings(checkpoint_every="0").checkpoint_every == 0


@given(
    h=st.integers(1, 40), rounds=st.integers(1, 40), every=st.floats(0.5, 30),
    step=st.floats(0.01, 3),
)  # fmt: skip
def test_no_more_is_lost_than_promised(h: int, rounds: int, every: float, step: float) -> None:
    """Twice the interval, and what passes until the next agreement."""
    with pytest.MonkeyPatch.context() as patch:
        found = saves(Clock(patch), h=h, rounds=rounds, every=every, step=step)
    times = [0.0, *(when for _, when in found), h * rounds * step]
    gaps = [b - a for a, b in pairwise(times)]
    assert max(gaps) <= 2 * every + 1.1 * max(preemption.PACE_SECONDS, step) + step
    assert all(gap >= every - 1e-6 for gap in gaps[:-1])


@pytest.mark.parametrize("seconds", [0.001, 0.1, 0.5, 3.0])
def test_the_pace_is_about_a_second(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """However fast the steps are."""
    clock = Clock(monkeypatch)
    asked: list[float] = []
    policy = CheckpointPolicy(WORLD, PreemptionGuard(), 1e9, 0)
    round = Round(index=1, phase=0, start=0, stop=10**6, local_steps=10**6, evaluate=False)
    for at in range(int(60 / seconds)):
        clock.now += seconds
        if policy.decide(at + 1, round):
            asked.append(clock.now)
    gaps = [b - a for a, b in pairwise(asked[1:])]
    assert all(gap <= max(1.01, seconds + 1e-6) for gap in gaps)
    assert sum(gaps) / len(gaps) == pytest.approx(max(1.0, seconds), rel=0.05)


def test_a_run_that_was_saved_counts_its_steps_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    asked: list[int] = []
    policy = CheckpointPolicy(WORLD, PreemptionGuard(), 1e9, 500)
    round = Round(index=1, phase=0, start=0, stop=10**6, local_steps=10**6, evaluate=False)
    for at in range(500, 600):
        clock.now += 0.1
        if policy.decide(at + 1, round):
            asked.append(at + 1)
    assert asked[:3] == [501, 511, 521]


def test_the_reason_of_a_stop_before_an_evaluation_is_its_own() -> None:
    """The job ends in 20 s, during an evaluation that takes 30."""
    policy = CheckpointPolicy(WORLD, PreemptionGuard(job_stops=time.time() + 20), 1e9, 0)
    policy.evaluated(30)
    round = Round(index=1, phase=0, start=0, stop=4, local_steps=4, evaluate=True)
    decision = policy.decide(4, round)
    assert decision and decision.stop
    assert policy.reason == "the Slurm job ends soon"


def test_a_time_limit_is_a_reason_beforehand() -> None:
    """So that no evaluation is begun that it would cut short."""
    assert PreemptionGuard().reason is None
    assert PreemptionGuard(1e-9).reason == "time_limit of 1e-09 minutes"
    assert PreemptionGuard(job_stops=1.0).reason == "the Slurm job ends soon"
    soon = PreemptionGuard(60)
    assert soon.reason is None
    assert soon.reason_within(3601) == "time_limit of 60 minutes"
