"""The training loop: Local SGD as in Algorithm 1 of https://arxiv.org/abs/2303.01215."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import torch
from torch import nn

from trainer.assembly import initial_model, load_data, make_bank, make_sampler, start_file
from trainer.averaging import Averaging
from trainer.clients import ClientBank, Plan
from trainer.config import RunSettings
from trainer.data.training import Batch
from trainer.errors import UserError
from trainer.evaluation import Evaluator, reestimate_batchnorm
from trainer.execution import Plans, find_plans, kept_plans
from trainer.metrics import Evaluation
from trainer.models import model_spec
from trainer.processes import World
from trainer.recorder import Recorder
from trainer.run_lock import running
from trainer.schedule import Round, make_schedule
from trainer.sharpness import Sharpness, sharpness


class Run:
    """A training run on this process: everything that its settings ask for, ready to start."""

    def __init__(self, settings: RunSettings, world: World, plans: Plans | None = None) -> None:
        self.settings = settings
        self.world = world
        self.training, test = load_data(settings, world.device)
        self.evaluate = Evaluator(test, world)
        self.sampler = make_sampler(settings, len(self.training))
        self.schedule = make_schedule(settings, self.sampler.steps_per_epoch)
        self.model = initial_model(settings).to(world.device)
        self.clients = world.own_clients(settings.num_clients)

        def bank(num_clients: int, plan: Plan) -> ClientBank:
            return make_bank(settings, num_clients, plan, world.device)

        first = next(self._batches())
        self.plans = find_plans(settings, self.schedule, first, bank, world, plans)
        self.bank = bank(len(self.clients), self.plans.several_steps)
        self.bank.parameters.assign(nn.utils.parameters_to_vector(self.model.parameters()))
        self.average = Averaging(self.bank, world, settings.momentum_averaging)
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=world.device)
        self._loss_steps = 0

    def train(self, recorder: Recorder | None) -> None:
        """All rounds of the schedule; the last leaves the averaged model in ``self.model``.

        Raises UserError at an evaluation that finds the loss no longer finite.
        """
        if recorder is not None:
            recorder.started(self.model)
        if self.settings.eval_on_start:
            self._finish(self.schedule.before_the_first(), recorder)
        batches = self._batches()
        for round in self.schedule.rounds():
            self.bank.execute(self.plans.of(round))
            for step in range(round.start, round.stop):
                losses = self.bank.step(next(batches), self.schedule.lr(step))
                self._loss_sum += losses.sum()
                self._loss_steps += 1
            self.average()
            self._finish(round, recorder)

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

    def _batches(self) -> Iterator[Batch]:
        return self.training.batches(self.sampler, self.clients, 0, self.settings.resume)

    def _finish(self, round: Round, recorder: Recorder | None) -> None:
        """What follows the averaging: an evaluation, a saved model, or nothing."""
        if round.evaluate or round.save or round.decay:
            self._export(round)
        evaluation = self._evaluation(round) if round.evaluate else None
        if recorder is not None:
            recorder.finished(round, self._epoch(round), self.model, evaluation)

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

    def _epoch(self, round: Round) -> float:
        """Counted from the start point's on, at the end of ``round``."""
        return self.settings.resume + round.stop / self.sampler.steps_per_epoch

    def _evaluation(self, round: Round) -> Evaluation:
        """``self.model`` after ``round``, scored. Raises UserError for a loss not finite."""
        scores = self.evaluate(self.model)
        train_loss = self._mean_train_loss()
        lr = self.schedule.lr(max(round.stop - 1, 0))
        if not math.isfinite((train_loss or 0.0) + scores.loss):
            overflow = ", or set precision bf16" if self.settings.precision == "fp16" else ""
            raise UserError(
                f"the loss is not finite at step {round.stop} (lr {lr:g}, H {round.local_steps}): "
                f"training diverged; lower start_lr or max_lr, or H{overflow}"
            )
        sharp = self._sharpness()
        return Evaluation(
            step=round.stop,
            round=round.index,
            phase=round.phase,
            epoch=self._epoch(round),
            lr=lr,
            local_steps=round.local_steps,
            train_loss=train_loss,
            test_loss=scores.loss,
            test_accuracy=scores.accuracy,
            test_top5_accuracy=scores.top5,
            bytes_sent=round.index * self.average.bytes,
            hessian_trace=sharp.trace if sharp else None,
            hessian_largest_eigenvalue=sharp.largest_eigenvalue if sharp else None,
        )

    def _sharpness(self) -> Sharpness | None:
        """Of the averaged model, on the main process: the others hold the same model."""
        if not (self.settings.sharpness and self.world.is_main):
            return None
        return sharpness(
            self.model,
            self.training,
            samples=self.settings.sharpness_samples,
            probes=self.settings.sharpness_probes,
            seed=self.settings.seed,
        )

    def _mean_train_loss(self) -> float | None:
        if self._loss_steps == 0:
            return None
        total = self.world.sum_(self._loss_sum).item()
        mean = total / (self._loss_steps * self.settings.num_clients)
        self._loss_sum.zero_()
        self._loss_steps = 0
        return mean


def train(settings: RunSettings, world: World) -> None:
    """The whole run. Its files appear in ``out`` under their final names once it is complete.

    In progress, the metrics are in ``log_pth`` as ``metrics.partial.jsonl``. Raises UserError when
    another process trains into ``log_pth``.
    """
    with ExitStack() as stack:
        refusal = None
        if world.is_main:  # it alone writes, and downloads what the others find there
            try:
                stack.enter_context(running(settings.log_pth))
                start_file(settings)
            except UserError as error:
                refusal = str(error)
        if refusal := world.from_main(refusal):  # all end, none waits for the others
            raise UserError(refusal)
        run = Run(settings, world, kept_plans(settings, world))
        if not world.is_main:
            run.train(recorder=None)
            return
        print(run.describe(), file=sys.stderr, flush=True)
        recorder = Recorder(settings, world, run.schedule.steps, run.plans)
        complete = False
        try:
            run.train(recorder)
            recorder.publish(run.model)
            complete = True
        finally:
            recorder.close(complete=complete)
