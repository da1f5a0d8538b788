"""One start of a run, from the lock to the files that it leaves; a run may take several."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from trainer.data.beton.reader import noted_digest
from trainer.distributed import slurm
from trainer.distributed.world import World
from trainer.errors import DivergedError, UserError
from trainer.files.atomic import sha256
from trainer.local_sgd.schedule import Round
from trainer.run.build import start_file
from trainer.run.checkpoint import Checkpoints
from trainer.run.engine import Run
from trainer.run.execution import kept_plans
from trainer.run.lock import HeldError, running
from trainer.run.pauses import Pauses
from trainer.run.preemption import StoppedError, StopRequest, started_by_torchrun
from trainer.settings.run import RunSettings
from trainer.tracking.recorder import Recorder
from trainer.tracking.revision import revision

LOOK_SECONDS = 1.0


def train(settings: RunSettings, world: World) -> None:
    """The whole run, or what is left of it: it goes on from its newest checkpoint.

    Its files appear in ``out`` under their final names once it is complete. In progress, the
    metrics are in ``log_pth`` as ``metrics.partial.jsonl``. Raises UserError when another process
    trains into ``log_pth``, StoppedError once it has been asked to stop.
    """
    request = StopRequest(
        settings.time_limit,
        by_torchrun=started_by_torchrun(),
        job_stops=slurm.stop_time() if world.is_main else None,
    )
    with ExitStack() as stack:
        stack.enter_context(request.listening())
        if _begin(settings, world, request, stack):
            return
        run = Run(settings, world, kept_plans(settings, world))
        checkpoints = Checkpoints(settings.log_pth, world, _identity(settings))
        checkpoint = checkpoints.newest()
        if checkpoint is not None:
            run.restore(checkpoint)
        recorder = None
        if world.is_main:
            begun = checkpoint.record if checkpoint else None
            print(f"{run.describe()}\ncode: {revision()}", file=sys.stderr, flush=True)
            recorder = Recorder(settings, world, run.plans, run.schedule.steps, run.done, begun)

        def save(step: int, round: Round) -> None:
            record = recorder.record if recorder is not None else None
            checkpoints.save(step, run.share(step, round), record)

        every = 60 * settings.checkpoint_every
        pauses = Pauses(world, request, every, run.done, run.check, save)
        complete = False
        try:
            _train(run, recorder, pauses, checkpoints)
            if recorder is not None:
                recorder.publish(run.model)
            complete = True
        finally:
            if recorder is not None:
                recorder.close(complete=complete)
        if world.is_main:
            checkpoints.remove()


def _train(run: Run, recorder: Recorder | None, pauses: Pauses, checkpoints: Checkpoints) -> None:
    """To the end of the run, which may be that it diverged, if it may."""
    try:
        run.train(recorder, pauses)
    except DivergedError as error:
        if not run.settings.allow_divergence:
            raise UserError(f"{error}; {checkpoints.last()}") from None
        evaluation = run.score_diverged(error)
        if recorder is not None:
            print(f"diverged: {error}", file=sys.stderr, flush=True)
            recorder.diverged(evaluation)


def _begin(settings: RunSettings, world: World, request: StopRequest, stack: ExitStack) -> bool:
    """Takes the lock for as long as ``stack``, and gets the start point, on the main process.

    It alone writes, and downloads what the others find there. Returns whether the run was
    completed by another process that was waited for. Raises UserError, on all processes, when the
    run cannot begin.
    """
    before, waited = _published(settings), False
    while True:
        outcome: Exception | bool | None = None
        if world.is_main:
            try:
                stack.enter_context(running(settings.log_pth))
                outcome = waited and _completed(settings, before)
                start_file(settings)
            except HeldError as error:
                outcome = error
                if settings.wait:
                    if not waited:
                        waited = True
                        print(f"waiting: {error}", file=sys.stderr, flush=True)
                    time.sleep(LOOK_SECONDS)
                    outcome = StoppedError(request.reason) if request.reason else None
            except UserError as error:
                outcome = error
        outcome = world.from_main(outcome)  # all end, none waits for the others
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is not None:
            return outcome


def _published(settings: RunSettings) -> tuple[int, int, int] | None:
    """Identify the metrics.jsonl that is now in ``out``: another file there is another tuple.

    Its time is compared with other times of that file alone, never with a clock's.
    """
    try:
        found = (_out(settings) / "metrics.jsonl").stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _completed(settings: RunSettings, before: tuple[int, int, int] | None) -> bool:
    """Whether this very run's files have appeared in ``out`` since ``before`` was taken."""
    if _published(settings) in (None, before):
        return False
    try:
        content = (_out(settings) / "settings.json").read_text("utf-8")
        made = RunSettings.model_validate_json(content)
    except (OSError, ValueError):
        return False
    return made.science() == settings.science()


def _out(settings: RunSettings) -> Path:
    return settings.out or settings.log_pth


def _identity(settings: RunSettings) -> str:
    """Of a run whose checkpoints can be gone on from: settings, data and start point."""
    start = start_file(settings)
    content = [
        settings.science(),
        [noted_digest(beton) for beton in settings.betons],
        sha256(start) if start else None,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
