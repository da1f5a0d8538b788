"""A run's copy on Weights & Biases. The truth is metrics.jsonl; nothing reads this copy."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainer.config import RunSettings
from trainer.files import atomic
from trainer.metrics import Evaluation

if TYPE_CHECKING:
    import wandb

PROJECT: Final = "local-sgd-generalization"
SECONDS: Final = 60  # to start, and to end; training does not wait longer for the server
ID_FILE: Final = "wandb_id"


class WandbLog:
    """Sends what the main process records; off when ``settings.wandb`` is ``disabled``.

    The run's id is kept in ``log_pth`` until the run is complete, so that a run that was killed and
    is started again goes on in the same place. Whatever W&B raises becomes one warning, after which
    training goes on without it.
    """

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._id_file = settings.log_pth / ID_FILE
        self._run: wandb.Run | None = None
        if settings.wandb != "disabled":
            self._run = self._try(self._start)

    def evaluated(self, evaluation: Evaluation) -> None:
        """Logged under its own step: a line that is sent twice counts once."""
        values = {key: value for key, value in asdict(evaluation).items() if value is not None}
        if self._run is not None:
            self._try(self._run.log, values, step=evaluation.step)

    def saved(self, path: Path) -> None:
        """A checkpoint that was written; sent when ``wandb_save``."""
        if self._run is not None and self._settings.wandb_save:
            self._try(self._run.save, path, base_path=path.parent, policy="now")

    def close(self, *, complete: bool) -> None:
        if self._run is not None:
            self._try(self._run.finish, exit_code=0 if complete else 1)
        if complete:
            self._id_file.unlink(missing_ok=True)

    def _start(self) -> wandb.Run:
        import wandb

        s = self._settings
        if s.wandb == "online" and not wandb.login(prompt=False):
            raise RuntimeError("not logged in; run `wandb login`, or set wandb offline")
        return wandb.init(
            mode=s.wandb,
            entity=s.wandb_entity,  # None: WANDB_ENTITY, as for the next two
            project=s.wandb_project or os.environ.get("WANDB_PROJECT", PROJECT),
            group=s.wandb_group,
            name=(s.out or s.log_pth).name,
            id=self._id(),
            resume="allow",
            dir=s.log_pth,
            config=s.model_dump(mode="json"),
            settings=wandb.Settings(
                silent=True,
                console="off",
                save_code=False,
                disable_code=True,
                disable_git=True,
                disable_job_creation=True,
                x_disable_meta=True,
                x_disable_stats=True,
                init_timeout=SECONDS,
                finish_timeout=SECONDS,
                finish_timeout_raises=True,
            ),
        )

    def _id(self) -> str:
        if not self._id_file.exists():
            with atomic(self._id_file) as temporary:
                temporary.write_text(uuid.uuid4().hex[:12])
        return self._id_file.read_text()

    def _try(self, action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return action(*arguments, **options)
        except Exception as error:  # W&B's own, the network's, the disk's: none is worth a run
            reason = str(error).strip().splitlines()
            print(
                f"warning: wandb: {reason[0] if reason else type(error).__name__}; training goes "
                "on without it",
                file=sys.stderr,
                flush=True,
            )
            self._run = None
            return None
