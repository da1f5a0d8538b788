"""Hold a run's data, clients and model on this process; restore, check and score them."""

import math
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from trainer.data.images import ImageSet
from trainer.data.training import Batch, TrainingSet
from trainer.distributed.world import World
from trainer.errors import DivergedError, UserError
from trainer.local_sgd.algorithm import Step, local_sgd
from trainer.local_sgd.averaging import Averaging
from trainer.local_sgd.evaluation import Evaluator, Scores, TrainLoss, reestimate_batchnorm
from trainer.local_sgd.schedule import Round
from trainer.local_sgd.sharpness import Sharpness, sharpness
from trainer.local_sgd.weight_averaging import WeightAverage
from trainer.models.registry import model_spec
from trainer.run.allocator import keep_freed_memory
from trainer.run.arithmetic import full_float32
from trainer.run.build import (
    initial_model,
    load_data,
    make_bank,
    make_outer,
    make_sampler,
    make_schedule,
)
from trainer.run.checkpoint import Checkpoint, ClientState
from trainer.run.execution import SERIAL, choose_execution
from trainer.run.memory import check_batches
from trainer.settings.run import RunSettings
from trainer.tracking.metrics import Evaluation


class TrainingRun:
    """Hold everything that a run's settings ask for on this process."""

    def __init__(
        self,
        settings: RunSettings,
        world: World,
        data: tuple[TrainingSet, ImageSet] | None = None,
    ) -> None:
        """Take the samples to train and to evaluate on from ``data``; None: the settings' files."""
        self.settings = settings
        self.world = world
        if world.device.type == "cpu":
            keep_freed_memory()
        self.training, test = data or load_data(settings, world.device)
        self.evaluate = Evaluator(test, world)
        self.sampler = make_sampler(settings, len(self.training))
        check_batches(settings, self.sampler.steps_per_epoch, world.size)
        self.schedule = make_schedule(settings, self.sampler.steps_per_epoch)
        self.model = initial_model(settings).to(world.device)
        self.own_clients = world.own_clients(settings.num_clients)
        self.done = 0  # steps taken by earlier starts
        one = make_bank(settings, 1, SERIAL, world.device)
        batch = next(self.batches())
        execution = choose_execution(settings, self.schedule, one, batch, world)
        self.clients = make_bank(settings, len(self.own_clients), execution, world.device)
        self.clients.parameters.assign(nn.utils.parameters_to_vector(self.model.parameters()))
        policy, outer = settings.momentum_averaging, make_outer(settings)
        self.average = Averaging(self.clients, world, policy, outer)
        self.mean = None
        if self.schedule.averages_weights:
            self.mean = WeightAverage(self.clients, self.average, settings.ema_decay)
        self.loss = TrainLoss(world)

    def batches(self) -> Iterator[Batch]:
        """Yield this process's share of the batches, from the next step on."""
        return self.training.batches(
            self.sampler, self.own_clients, self.done, self.settings.resume
        )

    def steps(self) -> Iterator[Step]:
        """Run Algorithm 1 from the next step on."""
        batches = self.batches()
        steps = local_sgd(self.clients, self.average, self.schedule, batches, self.done)
        return steps if self.mean is None else self.mean.follow(steps)

    def state(self, step: Step) -> ClientState:
        """Return this process's share of the state after ``step``."""
        parameters, momentum = self.clients.state(averaged=step.ends_round)
        return ClientState(
            clients=self.own_clients,
            parameters=parameters,
            momentum=momentum,
            updates=self.clients.updates,
            outer=self.average.outer.state if self.average.outer else {},
            mean=self.mean.state if self.mean else {},
            loss_sum=self.loss.total,
            loss_steps=self.loss.steps,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore ``checkpoint``. One saved at a round's end precedes the round's evaluation."""
        state = checkpoint.state(self.own_clients)
        self.done = checkpoint.step
        self.clients.begin(self.last_round())
        self.clients.restore(state.parameters, state.momentum, state.updates)
        if self.average.outer:
            self.average.outer.restore(state.outer)
        if self.mean:
            self.mean.restore(state.mean)
        self.loss = TrainLoss(self.world, state.loss_sum, state.loss_steps)

    def last_round(self) -> Round:
        """Return the round of the last step taken."""
        return next(self.schedule.rounds(self.done - 1))

    def check(self, step: Step, *, thorough: bool) -> None:
        """Raise if training must not continue from the state after ``step``.

        Raises DivergedError for losses and, if ``thorough``, parameters that are not finite;
        UserError if processes hold different parameters after averaging.
        """
        before, finite = step.done - self.loss.steps, self.loss.finite_steps()
        if finite < self.loss.steps:
            raise self._diverged("the loss is", before + finite + 1, step.round, step.ends_round)
        if not thorough:
            return
        if not self.world.all_min(int(self.clients.parameters.memory.isfinite().all())):
            raise self._diverged("parameters are", step.done, step.round, step.ends_round)
        mean = self.mean.state.values() if self.mean else ()
        if step.ends_round and not self.average.processes_agree(*mean):
            raise UserError(
                f"processes hold different parameters after averaging at step {step.done}: a fault "
                "of memory or network; start the run again, it resumes from its last checkpoint"
            )

    def describe(self) -> str:
        """Say in one line what is about to be trained."""
        s, sampler = self.settings, self.sampler
        dropped = "" if s.replacement else f" ({sampler.dropped} dropped)"
        return (
            f"{s.dataset}, {s.model} of {self.clients.parameters.size:,} parameters, "
            f"K = {s.num_clients} clients on {self.world.size} process(es), {self.world.device}, "
            f"executed {self.clients.execution}; "
            f"epochs of {sampler.steps_per_epoch} steps of B = {s.total_batch_size} from "
            f"{sampler.num_samples} samples{dropped}; {self.schedule.steps} steps"
        )

    def epoch(self, step: int) -> float:
        """Convert ``step`` to epochs, counted from the start point's epoch."""
        return self.settings.resume + step / self.sampler.steps_per_epoch

    def export(self, round: Round) -> None:
        """Copy the averaged model after ``round`` into ``self.model``, ready to be evaluated."""
        (self.mean or self.clients).export(self.model)
        if model_spec(self.settings.model).batchnorm:
            reestimate_batchnorm(
                self.model,
                self.training,
                self.world,
                seed=self.settings.seed,
                step=round.stop,
                num_batches=self.settings.bn_batches,
                batch_size=self.settings.batch_size,
            )

    def score(self, round: Round) -> Evaluation:
        """Score ``self.model``, exported after ``round``.

        Raises DivergedError for a loss, or a Hessian, that is not finite.
        """
        scores = self.evaluate(self.model)
        if not math.isfinite(scores.loss):
            raise self._diverged("the test loss is", round.stop, round, averaged=True)
        sharp = self._sharpness()
        if sharp is not None and not math.isfinite(sharp.trace + sharp.largest_eigenvalue):
            raise self._diverged("the Hessian is", round.stop, round, averaged=True)
        return replace(
            self._evaluation(round, round.stop, scores),
            train_loss=self.loss.mean(self.settings.num_clients),
            test_loss=scores.loss,
            hessian_trace=sharp.trace if sharp else None,
            hessian_largest_eigenvalue=sharp.largest_eigenvalue if sharp else None,
        )

    def score_diverged(self, error: DivergedError) -> Evaluation:
        """Average, where that is not done, and score the result: the run's last record."""
        round = next(self.schedule.rounds(error.step - 1))
        if not error.averaged:
            self.average(self._lr(error.step))
            if self.mean:
                self.mean.update(round)
        self.export(round)
        scores = self.evaluate(self.model)
        return replace(self._evaluation(round, error.step, scores), diverged=True)

    def _evaluation(self, round: Round, step: int, scores: Scores) -> Evaluation:
        """Build a metrics.jsonl record without the losses."""
        return Evaluation(
            step=step,
            round=round.index,
            phase=round.phase,
            epoch=self.epoch(step),
            lr=self._lr(step),
            local_steps=round.local_steps,
            train_loss=None,
            test_loss=None,
            test_accuracy=scores.accuracy,
            test_top5_accuracy=scores.top5,
            bytes_sent=round.index * self.average.bytes,
        )

    def _lr(self, step: int) -> float:
        """Return the learning rate of the last of the first ``step`` steps."""
        return self.schedule.lr(max(step - 1, 0))

    def _diverged(self, what: str, step: int, round: Round, averaged: bool) -> DivergedError:
        overflow = ", or set precision bf16" if self.settings.precision == "fp16" else ""
        return DivergedError(
            f"{what} not finite at step {step} (lr {self._lr(step):g}, H {round.local_steps}): "
            f"training diverged; lower {self.settings.peak_lr_setting}, or H{overflow}",
            step,
            averaged=averaged,
        )

    def _sharpness(self) -> Sharpness | None:
        """Measure the averaged model's sharpness on the main process; all hold the same model."""
        if not self.settings.sharpness:
            return None
        found = None
        if self.world.is_main:
            with full_float32():
                found = sharpness(
                    self.model,
                    self.training,
                    samples=self.settings.sharpness_samples,
                    probes=self.settings.sharpness_probes,
                    seed=self.settings.seed,
                )
        return self.world.broadcast(found)
