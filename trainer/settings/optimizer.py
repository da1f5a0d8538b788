"""Define batch sizes, learning rate and SGD."""

import math
from collections.abc import Iterator
from typing import Literal

from trainer.settings.base import setting
from trainer.settings.data import IMAGENET, DataSettings
from trainer.settings.schedule import ScheduleSettings


class OptimizerSettings(ScheduleSettings, DataSettings):
    """Set the batch sizes and each client's optimizer."""

    # Clients
    batch_size: int = setting(128, "clients", ge=1)
    """local batch size B_loc"""
    total_batch_size: int = setting(128, "clients", ge=1)
    """total batch size B = K · B_loc; K, the number of clients, follows"""

    # Optimizer
    lr: float | None = setting(None, "optimizer", gt=0)
    """learning rate for B = 256: the learning rate is B · lr / 256, warmed up from lr (Goyal et al.
    2017); None: use start_lr"""
    start_lr: float = setting(0.01, "optimizer", gt=0)
    """with warm-up: initial learning rate; without: the learning rate is start_lr · K"""
    max_lr: float = setting(-1.0, "optimizer")
    """learning rate at the end of the warm-up; negative: start_lr · K"""
    warm_up: bool = setting(False, "optimizer")
    """linear learning rate warm-up"""
    warmup_epochs: int = setting(5, "optimizer", ge=0)
    """length of the warm-up"""
    lr_schedule: Literal["step", "cosine"] = setting("step", "optimizer")
    """after the warm-up: constant except for decays, or half a cosine to 0"""
    wd: float = setting(5e-4, "optimizer", ge=0)
    """weight decay"""
    group_weight: bool = setting(lambda given: given["dataset"] == IMAGENET, "optimizer")
    """no weight decay on normalisation layers and biases; default, as the authors': 1 for dataset
    imagenet, else 0"""
    optimizer: Literal["sgd", "adamw"] = setting("sgd", "optimizer")
    """each client's optimizer"""
    momentum: float = setting(0.0, "optimizer", ge=0, lt=1)
    """momentum of optimizer sgd"""
    nesterov: bool = setting(False, "optimizer")
    """Nesterov momentum"""
    beta1: float = setting(0.9, "optimizer", ge=0, lt=1)
    """decay of the first moment of optimizer adamw"""
    beta2: float = setting(0.999, "optimizer", ge=0, lt=1)
    """decay of the second moment of optimizer adamw"""
    eps: float = setting(1e-8, "optimizer", gt=0)
    """ε of optimizer adamw, added to the root of the second moment"""
    momentum_averaging: Literal["keep", "average", "reset"] = setting("keep", "optimizer")
    """each client's momentum, or adamw's two moments, at averaging: kept, averaged like the
    parameters, or set to 0, where adamw's count of updates starts again, too"""
    outer_lr: float = setting(1.0, "optimizer", gt=0)
    """learning rate of the outer optimizer, SGD, whose gradient at averaging is what the clients
    moved; 1 without momentum: plain averaging"""
    outer_momentum: float = setting(0.0, "optimizer", ge=0, lt=1)
    """momentum of the outer optimizer"""
    outer_nesterov: bool = setting(False, "optimizer")
    """Nesterov momentum of the outer optimizer, as in DiLoCo (https://arxiv.org/abs/2311.08105)"""
    outer_slowmo: bool = setting(False, "optimizer")
    """outer gradient divided by η, outer learning rate multiplied by it, as in SlowMo
    (https://arxiv.org/abs/1910.00643): a decay of η scales the steps of the outer momentum, too"""
    precision: Literal["fp32", "fp64", "bf16", "fp16"] = setting("fp32", "optimizer")
    """arithmetic; bf16, fp16: mixed, with training's forward passes in bfloat16 or float16 (the
    loss scaled by a constant) and the rest in fp32"""

    @property
    def num_clients(self) -> int:
        """Return K."""
        return self.total_batch_size // self.batch_size

    @property
    def mixed_precision(self) -> str | None:
        """Name the torch dtype of training's forward passes; None: that of the parameters."""
        return {"bf16": "bfloat16", "fp16": "float16"}.get(self.precision)

    @property
    def peak_lr_setting(self) -> Literal["lr", "max_lr", "start_lr"]:
        """Name the setting that the learning rate after warm-up follows from."""
        if self.lr is not None:
            return "lr"
        return "max_lr" if self.warm_up and self.max_lr >= 0 else "start_lr"

    @property
    def peak_lr(self) -> float:
        """Return η after warm-up, before any decay: B · lr / 256, max_lr or start_lr · K."""
        if self.lr is not None:
            return self.lr * self.total_batch_size / 256
        return self.max_lr if self.peak_lr_setting == "max_lr" else self.start_lr * self.num_clients

    @property
    def initial_lr(self) -> float:
        """Return η at the beginning of the warm-up."""
        return self.start_lr if self.lr is None else self.lr

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.total_batch_size % self.batch_size != 0:
            yield (
                f"total_batch_size {self.total_batch_size} is not a multiple of batch_size "
                f"{self.batch_size}; B = K · B_loc needs a whole number of clients K"
            )
        both = self.changed("start_lr", "max_lr")
        if self.lr is not None and both:
            yield f"lr and {' and '.join(both)} both set the learning rate; set one or the other"
        if self.peak_lr * max(phase.lr_factor for phase in self.phases) == math.inf:
            names = ("lr", "start_lr", "max_lr", "total_batch_size", "gamma", "schedule")
            given = self.changed(*names)
            yield f"{' and '.join(given)} make the learning rate infinite; lower {given[0]}"
        if self.warm_up:
            yield from self._incomplete_warm_up()
        elif self.max_lr >= 0:
            yield (
                f"max_lr {self.max_lr:g} applies only to a warm-up; set warm_up 1 or remove max_lr"
            )
        if self.nesterov and self.momentum == 0:
            yield "nesterov needs momentum > 0; set momentum or nesterov 0"
        adamw, policy = self.optimizer == "adamw", self.momentum_averaging
        if policy != "keep" and self.momentum == 0 and not adamw:
            yield f"momentum_averaging {policy} needs momentum > 0; set momentum"
        if adamw and self.momentum > 0:
            yield "momentum applies only to optimizer sgd; remove momentum, or set beta1 instead"
        for name in [] if adamw else self.changed("beta1", "beta2", "eps"):
            yield f"{name} applies only to optimizer adamw; set optimizer adamw or remove {name}"
        for name in self.changed("outer_nesterov", "outer_slowmo"):
            if self.outer_momentum == 0:
                yield f"{name} needs outer_momentum > 0; set outer_momentum or {name} 0"
        if self.lr_schedule == "cosine" and any(phase.lr_factor != 1 for phase in self.phases):
            yield "lr_schedule cosine has no decays; remove decay1 and lr_factor, or set gamma 1"

    def _incomplete_warm_up(self) -> Iterator[str]:
        if self.warmup_epochs > self.total_epochs:
            yield (
                f"warmup_epochs {self.warmup_epochs} is longer than the run ({self.total_epochs} "
                "epochs); lower warmup_epochs"
            )
        if self.peak_lr < self.initial_lr and self.lr is not None:
            yield (
                f"total_batch_size {self.total_batch_size} is below 256, so that lr {self.lr:g} "
                "would decrease during warm-up; set warm_up 0"
            )
        if self.peak_lr < self.initial_lr:
            yield (
                f"max_lr {self.max_lr:g} is below start_lr {self.start_lr:g}, but a warm-up must "
                "rise; raise max_lr or make it negative for start_lr · K"
            )
