"""Test schedules against closed formulas and torch's own schedulers."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.run.build import make_schedule
from trainer.settings.run import RunSettings

OF_ALL: dict[str, Any] = {"epochs": st.integers(7, 12), "eval_freq1": st.integers(1, 9)}
WARM_UP: dict[str, Any] = {"warm_up": st.booleans(), "warmup_epochs": st.integers(0, 7)}
settings = (
    st.builds(RunSettings, **OF_ALL, **WARM_UP, step1=st.integers(1, 50))
    | st.builds(
        RunSettings,
        **OF_ALL,
        **WARM_UP,
        decay1=st.integers(1, 6) | st.integers(120, 10**6),
        step1=st.integers(1, 50),
        step2=st.integers(1, 50),
        eval_freq2=st.integers(1, 9),
        gamma=st.sampled_from([0.1, 0.5]),
    )
    | st.builds(
        RunSettings,
        **OF_ALL,
        **WARM_UP,
        h_rule=st.sampled_from(["inverse", "qsr", "cubic"]),
        h_base=st.integers(1, 5),
        alpha=st.floats(0.001, 0.1),
        lr_schedule=st.sampled_from(["step", "cosine"]),
    )
    | st.builds(
        RunSettings,
        **OF_ALL,
        h_rule=st.just("post-local"),
        h_base=st.integers(2, 9),
        switch=st.integers(1, 6),
        lr_schedule=st.sampled_from(["step", "cosine"]),
    )
)
steps_per_epoch = st.integers(1, 13)


@given(settings, steps_per_epoch)
def test_rounds_take_every_step_once_and_end_with_their_phase(
    settings: RunSettings, steps: int
) -> None:
    schedule = make_schedule(settings, steps)
    rounds = list(schedule.rounds())
    taken = [step for round in rounds for step in range(round.start, round.stop)]
    assert taken == list(range(settings.epochs * steps))
    assert [round.index for round in rounds] == list(range(1, len(rounds) + 1))
    for round in rounds:
        phase = schedule.phases[round.phase]
        assert phase.start <= round.start < round.stop <= phase.stop
        whole = round.stop - round.start == round.local_steps
        if settings.h_rule == "constant":
            assert round.local_steps == phase.local_steps
        assert whole or round.stop == phase.stop


@given(settings, steps_per_epoch)
def test_every_eval_freq_th_round_of_a_phase_is_evaluated_and_the_last(
    settings: RunSettings, steps: int
) -> None:
    schedule = make_schedule(settings, steps)
    rounds = list(schedule.rounds())
    assert rounds[-1].evaluate
    for i, phase in enumerate(schedule.phases):
        of_phase = [round for round in rounds if round.phase == i]
        asked = [round.index for round in of_phase[phase.eval_freq - 1 :: phase.eval_freq]]
        evaluated = [r.index for r in of_phase if r.evaluate and r is not rounds[-1]]
        assert evaluated == [index for index in asked if index != rounds[-1].index]


@given(settings, steps_per_epoch)
def test_phases_begin_at_the_decays(settings: RunSettings, steps: int) -> None:
    phases = make_schedule(settings, steps).phases
    decays = settings.decay1 is not None and settings.decay1 < settings.epochs
    assert len(phases) == 1 + decays
    if decays:
        assert phases[1].start == settings.decay1 * steps
        assert (phases[0].local_steps, phases[1].local_steps) == (settings.step1, settings.step2)


@pytest.mark.parametrize(("warm_up", "decay"), [(False, 12), (True, 12), (True, 3)])
def test_learning_rate_is_that_of_torchs_linear_warm_up_and_decays(
    warm_up: bool, decay: int
) -> None:
    chosen = RunSettings(
        epochs=30, decay1=decay, decay2=20, gamma=0.1, warm_up=warm_up, warmup_epochs=5,
        start_lr=0.1, max_lr=3.2 if warm_up else -1, batch_size=8, total_batch_size=64,
    )  # fmt: skip
    steps, peak = 7, 3.2 if warm_up else 0.1 * 8
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    schedulers: list[torch.optim.lr_scheduler.LRScheduler] = [
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [decay * steps, 20 * steps], gamma=0.1)
    ]
    if warm_up:
        schedulers.append(
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.1 / 3.2, total_iters=5 * steps)
        )
    schedule = make_schedule(chosen, steps)
    for step in range(schedule.steps):
        assert schedule.lr(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_cosine_is_torchs() -> None:
    chosen = RunSettings(epochs=6, lr_schedule="cosine", start_lr=0.3, wd=0)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6 * 5)
    schedule = make_schedule(chosen, 5)
    for step in range(schedule.steps):
        assert schedule.lr(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_cosine_begins_where_the_warm_up_ends() -> None:
    chosen = RunSettings(
        epochs=6, lr_schedule="cosine", warm_up=True, warmup_epochs=2, start_lr=0.1, max_lr=0.5
    )
    schedule = make_schedule(chosen, 5)
    assert schedule.lr(0) == pytest.approx(0.1)
    assert schedule.lr(10) == pytest.approx(0.5)
    assert schedule.lr(20) == pytest.approx(0.25)
    assert schedule.lr(9) < schedule.lr(10) > schedule.lr(11)


def test_flags_and_list_say_the_same() -> None:
    flags = RunSettings(
        epochs=9, decay1=2, decay2=5, decay3=8, gamma=0.5, step1=3, step2=4, step3=5,
        eval_freq1=1, eval_freq2=2, eval_freq3=3,
    )  # fmt: skip
    listed = RunSettings.model_validate(
        {
            "schedule": [
                {"epochs": 2, "local_steps": 3},
                {"epochs": 3, "lr_factor": 0.5, "local_steps": 4, "eval_freq": 2},
                {"epochs": 3, "lr_factor": 0.25, "local_steps": 5, "eval_freq": 3},
                {"epochs": 1, "lr_factor": 0.125, "local_steps": 5, "eval_freq": 3},
            ]
        }
    )
    assert make_schedule(flags, 7) == make_schedule(listed, 7)
    assert flags.total_epochs == listed.total_epochs == 9


def test_a_list_takes_any_number_of_phases() -> None:
    phases = [{"epochs": i, "local_steps": i} for i in range(1, 8)]
    schedule = make_schedule(RunSettings.model_validate({"schedule": phases}), 2)
    assert [p.local_steps for p in schedule.phases] == [1, 2, 3, 4, 5, 6, 7]
    assert schedule.steps == 2 * 28


def test_imagenets_learning_rate_is_goyals() -> None:
    chosen = RunSettings(
        lr=0.1, total_batch_size=8192, batch_size=32, warm_up=True, warmup_epochs=5, epochs=90
    )
    schedule = make_schedule(chosen, 156)
    assert chosen.peak_lr == pytest.approx(3.2)
    assert schedule.lr(0) == pytest.approx(0.1)
    assert schedule.lr(5 * 156) == pytest.approx(3.2)


@given(settings, steps_per_epoch, st.integers(0, 200))
def test_rounds_from_a_step_on_are_the_last_ones_of_all(
    settings: RunSettings, steps: int, start: int
) -> None:
    schedule = make_schedule(settings, steps)
    every = list(schedule.rounds())
    assert list(schedule.rounds(start)) == [round for round in every if round.stop > start]
    assert schedule.averages_every_step == all(round.local_steps == 1 for round in every)


def test_millions_of_rounds_are_skipped_in_one_leap() -> None:
    schedule = make_schedule(RunSettings(epochs=500_000), 12)
    last = next(schedule.rounds(5_999_999))
    assert (last.index, last.start, last.stop) == (6_000_000, 5_999_999, 6_000_000)
