"""Schedules against closed formulas and torch's own schedulers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import RunSettings
from trainer.schedule import make_schedule

settings = st.builds(
    RunSettings,
    epochs=st.integers(1, 12),
    decay1=st.none() | st.integers(1, 6),
    step1=st.integers(1, 50),
    step2=st.integers(1, 50),
    eval_freq1=st.integers(1, 9),
    eval_freq2=st.integers(1, 9),
    gamma=st.sampled_from([0.1, 0.5]),
    warm_up=st.booleans(),
    warmup_epochs=st.integers(0, 14),
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
        whole = round.stop - round.start == phase.local_steps
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


@pytest.mark.parametrize("warm_up", [False, True])
def test_learning_rate_is_that_of_torchs_linear_warm_up_and_decays(warm_up: bool) -> None:
    chosen = RunSettings(
        epochs=30, decay1=12, decay2=20, gamma=0.1, warm_up=warm_up, warmup_epochs=5,
        start_lr=0.1, max_lr=3.2 if warm_up else -1, batch_size=8, total_batch_size=64,
    )  # fmt: skip
    steps, peak = 7, 3.2 if warm_up else 0.1 * 8
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    schedulers: list[torch.optim.lr_scheduler.LRScheduler] = [
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [12 * steps, 20 * steps], gamma=0.1)
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
