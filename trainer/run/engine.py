"""Run Algorithm 1 to its end; evaluate, save and stop between its steps."""

import time

from trainer.errors import DivergedError, StoppedError, UserError, report
from trainer.local_sgd.algorithm import Step
from trainer.local_sgd.schedule import Round
from trainer.run.checkpoint import Checkpoints
from trainer.run.preemption import CheckpointPolicy
from trainer.run.training_run import TrainingRun
from trainer.tracking.recorder import Recorder


def train(
    run: TrainingRun, policy: CheckpointPolicy, checkpoints: Checkpoints, recorder: Recorder | None
) -> None:
    """Train to the end; where allowed, record divergence as the result.

    The main process has the ``recorder``. Leaves the averaged model in ``run.model``. Raises
    StoppedError once the run was asked to stop, and its state is saved.
    """
    try:
        _begin(run, policy, recorder)
        for step in run.steps():
            run.loss.add(step.losses)
            if decision := policy.decide(step.done, step.round):
                run.check(step, thorough=decision.before_use)
                if decision.save or decision.stop:
                    _save(step, run, checkpoints, recorder, required=decision.stop)
                    policy.saved()
                if decision.stop:
                    raise StoppedError(
                        f"{policy.reason}; saved at step {step.done}, start it again to resume"
                    )
            if step.ends_round:
                _finish_round(step.round, run, policy, recorder)
    except DivergedError as error:
        if not run.settings.allow_divergence:
            raise UserError(f"{error}; {checkpoints.last()}") from None
        evaluation = run.score_diverged(error)
        if recorder is not None:
            report(f"diverged: {error}")
            recorder.diverged(evaluation)


def _begin(run: TrainingRun, policy: CheckpointPolicy, recorder: Recorder | None) -> None:
    """Do what is due before the first step of this start."""
    if run.done == 0:
        if recorder is not None:
            recorder.started(run.model)
        if run.settings.eval_on_start:
            _finish_round(run.schedule.initial_round(), run, policy, recorder)
    elif (last := run.last_round()).stop == run.done:  # saved before its evaluation
        _finish_round(last, run, policy, recorder)


def _finish_round(
    round: Round, run: TrainingRun, policy: CheckpointPolicy, recorder: Recorder | None
) -> None:
    """Export, evaluate and record the averaged model after ``round``, as the schedule says."""
    started = time.monotonic()
    if round.exported:
        run.export(round)
    evaluation = run.score(round) if round.evaluate else None
    if recorder is not None:
        recorder.finished(round, run.epoch(round.stop), run.model, evaluation)
    if round.evaluate:
        policy.evaluated(time.monotonic() - started)


def _save(
    step: Step,
    run: TrainingRun,
    checkpoints: Checkpoints,
    recorder: Recorder | None,
    *,
    required: bool,
) -> None:
    """Save a checkpoint; if that fails, raise UserError where it is ``required``, else warn."""
    progress = recorder.progress if recorder is not None else None
    try:
        checkpoints.save(step.done, run.state(step), progress)
    except UserError as error:
        if required:
            raise
        if run.world.is_main:
            report(f"warning: {error}; training continues")
