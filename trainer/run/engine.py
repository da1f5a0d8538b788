"""The training loop: Local SGD as in Algorithm 1 of https://arxiv.org/abs/2303.01215."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from trainer.data.training import Batch
from trainer.distributed.world import World
from trainer.errors import DivergedError, UserError
from trainer.local_sgd.averaging import Averaging
from trainer.local_sgd.clients import ClientBank, Plan
from trainer.local_sgd.evaluation import Evaluator, Scores, reestimate_batchnorm
from trainer.local_sgd.schedule import Round, make_schedule
from trainer.local_sgd.sharpness import Sharpness, sharpness
from trainer.local_sgd.train_loss import TrainLoss
from trainer.models import model_spec
from trainer.run.build import initial_model, load_data, make_bank, make_sampler
from trainer.run.checkpoint import Checkpoint, Share
from trainer.run.execution import Plans, find_plans
from trainer.run.memory import check_batches
from trainer.run.pauses import Pauses
from trainer.settings.run import RunSettings
from trainer.tracking.metrics import Evaluation
from trainer.tracking.recorder import Recorder


class Run:
    """A training run on this process: everything that its settings ask for, ready to start."""

    def __init__(self, settings: RunSettings, world: World, plans: Plans | None = None) -> None:
        self.settings = settings
        self.world = world
        self.training, test = load_data(settings, world.device)
        self.evaluate = Evaluator(test, world)
        self.sampler = make_sampler(settings, len(self.training))
        check_batches(settings, self.sampler.steps_per_epoch, world.size)
        self.schedule = make_schedule(settings, self.sampler.steps_per_epoch)
        self.model = initial_model(settings).to(world.device)
        self.clients = world.own_clients(settings.num_clients)
        self.done = 0  # steps before this start

        def bank(num_clients: int, plan: Plan) -> ClientBank:
            return make_bank(settings, num_clients, plan, world.device)

        first = next(self._batches())
        self.plans = find_plans(settings, self.schedule, first, bank, world, plans)
        self.bank = bank(len(self.clients), self.plans.several_steps)
        self.bank.parameters.assign(nn.utils.parameters_to_vector(self.model.parameters()))
        self.average = Averaging(self.bank, world, settings.momentum_averaging)
        self.loss = TrainLoss(world)

    def train(self, recorder: Recorder | None, pauses: Pauses) -> None:
        """All rounds that are not done yet; the last leaves the averaged model in ``self.model``.

        Raises DivergedError once the loss or the parameters are not finite.
        """
        if self.done == 0:
            if recorder is not None:
                recorder.started(self.model)
            if self.settings.eval_on_start:
                self._finish(self.schedule.before_the_first(), recorder, pauses)
        batches = self._batches()
        for round in self.schedule.rounds():
            if round.stop < self.done:
                continue
            self.bank.execute(self.plans.of(round))
            for step in range(max(round.start, self.done), round.stop):
                self.loss.add(self.bank.step(next(batches), self.schedule.lr(step)))
                if step + 1 == round.stop:
                    self.average()
                pauses.after(step + 1, round)
            self._finish(round, recorder, pauses)

    def share(self, step: int, round: Round) -> Share:
        """This process's share of the state after ``step`` steps, the last in ``round``."""
        parameters, momentum = self.bank.state(averaged=step == round.stop)
        return Share(
            clients=self.clients,
            parameters=parameters,
            momentum=momentum,
            loss_sum=self.loss.total,
            loss_steps=self.loss.steps,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from there; a round's end is then still to be evaluated."""
        share = checkpoint.share(self.clients)
        self.done = checkpoint.step
        round = next(round for round in self.schedule.rounds() if round.stop >= self.done)
        self.bank.execute(self.plans.of(round))
        self.bank.restore(share.parameters, share.momentum)
        self.loss = TrainLoss(self.world, share.loss_sum, share.loss_steps)

    def check(self, step: int, round: Round, thorough: bool) -> None:
        """Raises where the state after ``step`` steps, in ``round``, is not to go on from.

        DivergedError for a loss that is not finite and, where ``thorough``, parameters. UserError
        for processes that have different ones after averaging.
        """
        before, finite = step - self.loss.steps, self.loss.finite_steps()
        if finite < self.loss.steps:
            raise self._diverged("the loss is", before + finite + 1, round)
        if not thorough:
            return
        if not self.world.least(int(self.bank.parameters.memory.isfinite().all())):
            raise self._diverged("parameters are", step, round)
        if step == round.stop and not self.average.is_the_same():
            raise UserError(
                f"processes hold different parameters after averaging at step {step}: a fault of "
                "memory or network; start the run again, it goes on from its last checkpoint"
            )

    def describe(self) -> str:
        """What is about to be trained, in one line."""
        s, sampler = self.settings, self.sampler
        dropped = "" if s.replacement else f" ({sampler.dropped} dropped)"
        return (
            f"{s.dataset}, {s.model} of {self.bank.parameters.size:,} parameters, "
            f"K = {s.num_clients} clients on {self.world.size} process(es), {self.world.device}, "
            f"executed {self.plans}; "
            f"epochs of {sampler.steps_per_epoch} steps of B = {s.total_batch_size} from "
            f"{sampler.num_samples} samples{dropped}; {self.schedule.steps} steps"
        )

    def score_diverged(self, error: DivergedError) -> Evaluation:
        """The last line of a run that ended so: the accuracy of what its parameters now are."""
        rounds = self.schedule.rounds()
        round = next(round for round in rounds if round.stop >= error.step)
        self.average()
        self._export(round)
        return replace(self._line(round, error.step, self.evaluate(self.model)), diverged=True)

    def _batches(self) -> Iterator[Batch]:
        return self.training.batches(self.sampler, self.clients, self.done, self.settings.resume)

    def _finish(self, round: Round, recorder: Recorder | None, pauses: Pauses) -> None:
        """What follows the averaging: an evaluation, a saved model, or nothing."""
        started = time.monotonic()
        if round.exported:
            self._export(round)
        evaluation = self._evaluation(round) if round.evaluate else None
        if recorder is not None:
            recorder.finished(round, self._epoch(round.stop), self.model, evaluation)
        if round.evaluate:
            pauses.evaluated(time.monotonic() - started)

    def _export(self, round: Round) -> None:
        """``self.model`` becomes the averaged model after ``round``, ready to be evaluated."""
        self.bank.export(self.model)
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

    def _epoch(self, step: int) -> float:
        """Counted from the start point's on, after ``step`` steps."""
        return self.settings.resume + step / self.sampler.steps_per_epoch

    def _lr(self, step: int) -> float:
        """Of the last of ``step`` steps."""
        return self.schedule.lr(max(step - 1, 0))

    def _evaluation(self, round: Round) -> Evaluation:
        """``self.model`` after ``round``, scored.

        Raises DivergedError for a loss, or a Hessian, that is not finite.
        """
        scores = self.evaluate(self.model)
        if not math.isfinite(scores.loss):
            raise self._diverged("the test loss is", round.stop, round)
        sharp = self._sharpness()
        if sharp is not None and not math.isfinite(sharp.trace + sharp.largest_eigenvalue):
            raise self._diverged("the Hessian is", round.stop, round)
        return replace(
            self._line(round, round.stop, scores),
            train_loss=self.loss.mean(self.settings.num_clients),
            test_loss=scores.loss,
            hessian_trace=sharp.trace if sharp else None,
            hessian_largest_eigenvalue=sharp.largest_eigenvalue if sharp else None,
        )

    def _line(self, round: Round, step: int, scores: Scores) -> Evaluation:
        """Of metrics.jsonl, without what a run that diverged lacks."""
        return Evaluation(
            step=step,
            round=round.index,
            phase=round.phase,
            epoch=self._epoch(step),
            lr=self._lr(step),
            local_steps=round.local_steps,
            train_loss=None,
            test_loss=None,
            test_accuracy=scores.accuracy,
            test_top5_accuracy=scores.top5,
            bytes_sent=round.index * self.average.bytes,
        )

    def _diverged(self, what: str, step: int, round: Round) -> DivergedError:
        overflow = ", or set precision bf16" if self.settings.precision == "fp16" else ""
        return DivergedError(
            f"{what} not finite at step {step} (lr {self._lr(step):g}, H {round.local_steps}): "
            f"training diverged; lower start_lr or max_lr, or H{overflow}",
            step,
        )

    def _sharpness(self) -> Sharpness | None:
        """Of the averaged model, by the main process: the others hold the same model."""
        if not self.settings.sharpness:
            return None
        found = None
        if self.world.is_main:
            found = sharpness(
                self.model,
                self.training,
                samples=self.settings.sharpness_samples,
                probes=self.settings.sharpness_probes,
                seed=self.settings.seed,
            )
        return self.world.from_main(found)
