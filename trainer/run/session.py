"""Start or resume a run: take its lock, train it, publish its files."""

import hashlib
import json
import time
from contextlib import ExitStack

from trainer.data.beton.sidecar import read_sidecar
from trainer.distributed import slurm
from trainer.distributed.launcher_variables import started_by_torchrun
from trainer.distributed.world import World
from trainer.errors import StoppedError, UserError, report
from trainer.files.atomic import sha256
from trainer.run import engine
from trainer.run.build import start_file
from trainer.run.checkpoint import Checkpoints
from trainer.run.lock import RunLockedError, hold_lock
from trainer.run.preemption import CheckpointPolicy, PreemptionGuard
from trainer.run.training_run import TrainingRun
from trainer.settings.run import RESULTS_VERSION, RunSettings
from trainer.tracking.metrics import METRICS
from trainer.tracking.provenance import revision
from trainer.tracking.recorder import Recorder

POLL_SECONDS = 1.0


def train(settings: RunSettings, world: World) -> None:
    """Train one run, or what is left of it, and publish its files in ``out``.

    Before that they are in ``log_pth``, the metrics as ``metrics.partial.jsonl``. Raises UserError
    if another process trains into ``log_pth``, StoppedError once the run was asked to stop.
    """
    guard = PreemptionGuard(
        settings.time_limit,
        by_torchrun=started_by_torchrun(),
        job_stops=slurm.stop_time() if world.is_main else None,
    )
    with ExitStack() as stack:
        stack.enter_context(guard.listening())
        if _begin(settings, world, guard, stack):
            return
        run = TrainingRun(settings, world)
        checkpoints = Checkpoints(settings.log_pth, world, _fingerprint(settings))
        checkpoint = checkpoints.newest()
        if checkpoint is not None:
            run.restore(checkpoint)
        policy = CheckpointPolicy(world, guard, 60 * settings.checkpoint_every, run.done)
        recorder = None
        if world.is_main:
            report(f"{run.describe()}\ncode: {revision()}")
            recorder = Recorder(
                settings,
                world,
                execution=str(run.clients.execution),
                steps=run.schedule.steps,
                done=run.done,
                begun=checkpoint.progress if checkpoint else None,
            )
        try:
            engine.train(run, policy, checkpoints, recorder)
            if recorder is not None:
                recorder.publish(run.model)
        finally:
            if recorder is not None:
                recorder.close()
        if world.is_main:
            checkpoints.remove()


def _begin(settings: RunSettings, world: World, guard: PreemptionGuard, stack: ExitStack) -> bool:
    """Take the lock until ``stack`` closes, and download the start point, on the main process.

    Returns whether another process, waited for, has completed the run meanwhile. Raises UserError,
    on all processes, if the run cannot begin.
    """
    before, waited = _identify_published(settings), False
    while True:
        outcome: Exception | bool | None = None
        if world.is_main:
            try:
                stack.enter_context(hold_lock(settings.log_pth))
                outcome = waited and _has_completed(settings, before)
                start_file(settings)
            except UserError as error:
                outcome = error
                if settings.wait and isinstance(error, RunLockedError):
                    if not waited:
                        report(f"waiting: {error}")
                    waited = True
                    time.sleep(POLL_SECONDS)
                    outcome = StoppedError(guard.reason) if guard.reason else None
        outcome = world.broadcast(outcome)  # so that all processes end if one must
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is not None:
            return outcome


def _identify_published(settings: RunSettings) -> tuple[int, int, int] | None:
    """Return a tuple that changes with the metrics.jsonl in ``out``; None if there is none.

    Its time is compared only with earlier times of that file, never with a clock.
    """
    try:
        found = (settings.published_pth / METRICS).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _has_completed(settings: RunSettings, before: tuple[int, int, int] | None) -> bool:
    """Check whether this run's files have appeared in ``out`` since ``before`` was taken."""
    if _identify_published(settings) in (None, before):
        return False
    try:
        made = json.loads((settings.published_pth / "settings.json").read_text("utf-8"))
        version = made.pop("results_version", None)
        return version == RESULTS_VERSION and (
            RunSettings(**made).identity() == settings.identity()
        )
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _fingerprint(settings: RunSettings) -> str:
    """Fingerprint settings, data and start point; a checkpoint is resumed only if it matches."""
    start = start_file(settings)
    content = [
        settings.identity(),
        [read_sidecar(beton).sha256 for beton in settings.betons],
        sha256(start) if start else None,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
