"""What the main process writes down of a run while it goes on, and when it is complete."""

from __future__ import annotations

import json
import sys
import time

from torch import nn

from trainer.distributed.world import World
from trainer.files.atomic import atomic, make_ready, write_json
from trainer.files.state_dict import SavedModels, save_model
from trainer.local_sgd.schedule import Round
from trainer.run.checkpoint import Record
from trainer.run.execution import Plans, keep_plans
from trainer.settings.run import RunSettings
from trainer.tracking.metrics import PARTIAL, Evaluation, MetricsFile, Progress, provenance
from trainer.tracking.wandb_log import WandbLog


class Recorder:
    """Metrics, models on the way, progress and the copy on W&B of one run.

    ``begun``: what was recorded of its first ``done`` steps, of ``steps``.
    """

    def __init__(
        self,
        settings: RunSettings,
        world: World,
        plans: Plans,
        steps: int,
        done: int = 0,
        begun: Record | None = None,
    ) -> None:
        begun = begun or Record()
        self._settings = settings
        self._world = world
        self._started = time.monotonic() - begun.seconds
        self._starts = begun.starts + 1
        self._out = settings.out or settings.log_pth
        for folder in (self._out, settings.log_pth):  # now rather than after days
            make_ready(folder)
        keep_plans(plans, settings, world)
        self._plans = plans
        self._metrics = MetricsFile(settings.log_pth / PARTIAL, begun.metrics)
        self._models = SavedModels(settings.log_pth)
        self._wandb = WandbLog.start(settings)
        for line in begun.metrics.splitlines():
            self._wandb.log(Evaluation(**json.loads(line)))
        self._progress = Progress(steps, done)

    @property
    def record(self) -> Record:
        """Of what has been done so far."""
        seconds = time.monotonic() - self._started
        return Record(metrics=self._metrics.text, seconds=seconds, starts=self._starts)

    def started(self, model: nn.Module) -> None:
        if self._settings.resume_pth is None:
            self._wandb.save(self._models.initial(model))

    def finished(
        self, round: Round, epoch: float, model: nn.Module, evaluation: Evaluation | None
    ) -> None:
        """``model`` is the averaged one where ``round`` is evaluated, saved or a phase's last."""
        if evaluation is not None:
            self._metrics.write(evaluation)
            self._wandb.log(evaluation)
            self._progress.evaluated(evaluation)
            if self._settings.debug:
                print(evaluation, file=sys.stderr, flush=True)
            self._wandb.save(self._models.latest(model))
        if round.decay:
            self._wandb.save(self._models.at_decay(model, epoch))
        if round.save:
            self._wandb.save(self._models.at_round(model, epoch, round.index))
        self._progress.stepped(round.stop)

    def diverged(self, evaluation: Evaluation) -> None:
        """The last line of a run that did."""
        self._metrics.write(evaluation)
        self._wandb.log(evaluation)

    def close(self, *, complete: bool) -> None:
        self._progress.close()
        self._metrics.close()
        self._wandb.finish(complete)

    def publish(self, model: nn.Module) -> None:
        """The run's files under their final names. metrics.jsonl stands for all: it comes last."""
        out = self._out
        record = self.record
        (out / "metrics.jsonl").unlink(missing_ok=True)  # of an earlier run
        save_model(out / "model.pt", model)
        write_json(out / "settings.json", self._settings.model_dump(mode="json"))
        write_json(
            out / "provenance.json",
            provenance(
                record.seconds,
                record.starts,
                self._world.size,
                str(self._world.device),
                str(self._plans),
            ),
        )
        with atomic(out / "metrics.jsonl") as temporary:
            temporary.write_text(record.metrics, "utf-8")
        self._metrics.path.unlink()
