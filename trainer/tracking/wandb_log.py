"""Copy a run's metrics to Weights & Biases; metrics.jsonl stays authoritative."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from trainer.errors import report
from trainer.files.atomic import atomic
from trainer.settings.run import RunSettings
from trainer.tracking.metrics import Evaluation
from trainer.tracking.provenance import PROJECT

if TYPE_CHECKING:
    import wandb

T = TypeVar("T")

ID_FILE = "wandb_id"
# Limits what a server that does not answer costs a run, at its start and at its end.
INIT_SECONDS = 30
FINISH_SECONDS = 30
# wandb would report its errors, with stack traces, to the server.
NO_REPORTS = ("WANDB_ERROR_REPORTING", "false")


class WandbLog:
    """Log the main process's run to W&B; training never fails because of W&B.

    The first failure is one warning on stderr; nothing is logged after it. ``log_pth`` keeps the
    run's id until the run is complete, so that a killed run continues the same W&B run when it is
    started again. It must then log its rows again from the first one on: W&B ignores steps that it
    has, and only the last start of an offline run is uploaded (``trainer.tracking.wandb_sync``).
    """

    def __init__(self, settings: RunSettings) -> None:
        """Start or continue the W&B run of ``settings``, unless W&B is disabled."""
        self._settings = settings
        self._run: wandb.Run | None = None
        if settings.wandb != "disabled":
            self._run = self._attempt(lambda: _init(settings))

    def log(self, evaluation: Evaluation) -> None:
        """Log the line that metrics.jsonl gets, without nulls, at its own step."""
        values = {key: value for key, value in asdict(evaluation).items() if value is not None}
        if run := self._run:
            # Without commit, a row would wait for the next one and be lost with a killed process.
            self._attempt(lambda: run.log(values, step=evaluation.step, commit=True))

    def save(self, path: Path) -> None:
        """Save the checkpoint ``path`` as a file of the W&B run, if ``wandb_save``."""
        if (run := self._run) and self._settings.wandb_save:
            path = path.absolute()
            self._attempt(lambda: run.save(path, path.parent, policy="now", glob=False))

    def finish(self, *, complete: bool) -> None:
        """End the W&B run as finished, or as failed so that a restart continues it."""
        if run := self._run:
            self._attempt(lambda: run.finish(exit_code=0 if complete else 1))
        if complete and self._run is not None:  # an incomplete copy must not be uploaded
            self._attempt(lambda: (self._settings.log_pth / ID_FILE).unlink(missing_ok=True))
        self._run = None

    def _attempt(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except Exception as error:
            self._run = None
            reason = " ".join(str(error).split()) or type(error).__name__
            warning = f"warning: wandb: {reason}; training continues without it"
            report(warning)
            return None


def _init(settings: RunSettings) -> wandb.Run:
    os.environ.setdefault(*NO_REPORTS)
    import wandb  # slow to import, so only where it is used

    # Print nothing, and send nothing but settings and metrics.
    quiet = wandb.Settings(
        silent=True,
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="",
        program="trainer",
        save_code=False,
        symlink=False,  # keep a checkpoint that is replaced or deleted later
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=0.1,  # seconds; a killed process loses no older rows
    )
    online = settings.wandb == "online"
    wandb.setup(settings=quiet)
    if online and not wandb.login(prompt=False, verify=False):
        raise RuntimeError("no API key; run `wandb login` or set WANDB_API_KEY")
    return wandb.init(
        mode=settings.wandb,
        dir=settings.log_pth,
        id=_run_id(settings),
        # `wandb sync` would renumber the steps of an offline run that says it was resumed.
        resume="allow" if online else None,
        name=settings.published_pth.resolve().name,
        entity=settings.wandb_entity,
        project=settings.wandb_project or os.environ.get("WANDB_PROJECT") or PROJECT,
        group=settings.wandb_group,
        config=settings.resolved(),
        settings=quiet,
    )


def _run_id(settings: RunSettings) -> str:
    """Return the id that these settings left in ``log_pth``, or leave a new one there."""
    file = settings.log_pth / ID_FILE
    content = json.dumps([settings.identity(), settings.resume_pth])
    digest = hashlib.sha256(content.encode()).hexdigest()
    if file.exists():
        run_id, _, of = file.read_text("utf-8").partition(" ")
        if of == digest:
            return run_id
    run_id = uuid.uuid4().hex[:12]
    with atomic(file) as temporary:
        temporary.write_text(f"{run_id} {digest}", "utf-8")
    return run_id
