"""Record a run on the main process while it trains, and publish its files at the end."""

import json
import time

from torch import nn

from trainer.distributed.world import World
from trainer.errors import report
from trainer.files.atomic import atomic, prepare_output_folder, write_json
from trainer.files.state_dict import SavedModels, save_model
from trainer.local_sgd.schedule import Round
from trainer.settings.run import RunSettings
from trainer.tracking.metrics import METRICS, PARTIAL, Evaluation, MetricsFile, RunProgress
from trainer.tracking.progress import Progress
from trainer.tracking.provenance import provenance
from trainer.tracking.wandb_log import WandbLog


class Recorder:
    """Record one run's metrics, intermediate models and progress, in files and on W&B.

    ``begun``: what earlier starts recorded of the first ``done`` of ``steps`` steps.
    """

    def __init__(
        self,
        settings: RunSettings,
        world: World,
        execution: str,
        steps: int,
        done: int = 0,
        begun: RunProgress | None = None,
    ) -> None:
        begun = begun or RunProgress()
        self._settings = settings
        self._world = world
        self._started = time.monotonic() - begun.seconds
        self._starts = begun.starts + 1
        self._out = settings.published_pth
        for folder in (self._out, settings.log_pth):  # fail now rather than after days
            prepare_output_folder(folder)
        self._execution = execution
        self._metrics = MetricsFile(settings.log_pth / PARTIAL, begun.metrics)
        self._models = SavedModels(settings.log_pth)
        self._wandb = WandbLog(settings)
        for line in begun.metrics.splitlines():
            self._wandb.log(Evaluation(**json.loads(line)))
        self._bar = Progress(steps, done)
        self._published = False

    @property
    def progress(self) -> RunProgress:
        """Return what has been recorded so far."""
        seconds = time.monotonic() - self._started
        return RunProgress(metrics=self._metrics.text, seconds=seconds, starts=self._starts)

    def started(self, model: nn.Module) -> None:
        """Record the initial model, unless it is the start point."""
        if self._settings.resume_pth is None:
            self._wandb.save(self._models.initial(model))

    def finished(
        self, round: Round, epoch: float, model: nn.Module, evaluation: Evaluation | None
    ) -> None:
        """Record the end of ``round``; where it exports, ``model`` is the averaged one."""
        if evaluation is not None:
            self._metrics.write(evaluation)
            self._wandb.log(evaluation)
            self._bar.evaluated(evaluation)
            if self._settings.debug:
                report(str(evaluation))
            self._wandb.save(self._models.latest(model))
        if round.decay:
            self._wandb.save(self._models.at_decay(model, epoch))
        if round.save:
            self._wandb.save(self._models.at_round(model, epoch, round.index))
        self._bar.stepped(round.stop)

    def diverged(self, evaluation: Evaluation) -> None:
        """Record the last evaluation of a run that diverged."""
        self._metrics.write(evaluation)
        self._wandb.log(evaluation)

    def close(self) -> None:
        self._bar.close()
        self._metrics.close()
        self._wandb.finish(complete=self._published)

    def publish(self, model: nn.Module) -> None:
        """Write the run's final files; metrics.jsonl comes last, as the sign that all are there."""
        out, world, progress = self._out, self._world, self.progress
        made = provenance(
            progress.seconds, progress.starts, world.size, world.device_name, self._execution
        )
        (out / METRICS).unlink(missing_ok=True)  # an earlier run's
        save_model(out / "model.pt", model)
        write_json(out / "settings.json", self._settings.resolved())
        write_json(out / "provenance.json", made)
        with atomic(out / METRICS) as temporary:
            temporary.write_text(progress.metrics, "utf-8")
        self._metrics.path.unlink()
        self._published = True
