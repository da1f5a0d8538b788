"""Settings that contradict each other, found before any work.

Each check returns None or one line that names the settings, the reason and the fix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from trainer.errors import UserError
from trainer.files.download import is_url
from trainer.models.registry import model_spec
from trainer.settings.data_checks import (
    bn_is_the_models,
    groups_divide_channels,
    images_are_the_data_sets,
    loader_can_read,
    model_fits_images,
    subset_suffices,
)

if TYPE_CHECKING:
    from trainer.settings.run import RunSettings

# The authors' scripts write a decay that is to never come as a very large epoch.
FAR_PAST_THE_END = 10
FEW = 256  # processes, that is


def changed(s: RunSettings, *names: str) -> list[str]:
    """Those of ``names`` whose value is not the default."""
    return [n for n in names if getattr(s, n) != type(s).model_fields[n].default]


def clients_are_whole(s: RunSettings) -> str | None:
    if s.total_batch_size % s.batch_size == 0:
        return None
    return (
        f"total_batch_size {s.total_batch_size} is not a multiple of batch_size {s.batch_size}; "
        "B = K · B_loc needs a whole number of clients K"
    )


def learning_rate_is_given_once(s: RunSettings) -> str | None:
    both = changed(s, "start_lr", "max_lr")
    if s.lr is None or not both:
        return None
    return f"lr and {' and '.join(both)} both set the learning rate; give one way"


def decays_leave_a_rate(s: RunSettings) -> str | None:
    count = sum(decay < s.epochs for decay in s.decays)
    try:
        last = s.gamma**count
    except OverflowError:
        last = math.inf
    if 0 < last < math.inf:
        return None
    return f"gamma {s.gamma:g} at {count} decays is beyond all floats; bring gamma nearer to 1"


def learning_rate_is_a_number(s: RunSettings) -> str | None:
    highest = s.peak_lr * max(phase.lr_factor for phase in s.phases)
    if highest < math.inf:
        return None
    names = changed(s, "lr", "start_lr", "max_lr", "total_batch_size", "gamma", "schedule")
    return f"{' and '.join(names)} make the learning rate infinite; lower {names[0]}"


def warm_up_is_complete(s: RunSettings) -> str | None:
    if not s.warm_up:
        if s.max_lr < 0:
            return None
        return f"max_lr {s.max_lr:g} is the warm-up's end; set warm_up 1, or leave max_lr out"
    if s.warmup_epochs <= s.total_epochs:
        return None
    return (
        f"warmup_epochs {s.warmup_epochs} is longer than the run ({s.total_epochs} epochs); "
        "lower warmup_epochs"
    )


def warm_up_goes_up(s: RunSettings) -> str | None:
    if not s.warm_up or s.peak_lr >= s.initial_lr:
        return None
    if s.lr is not None:
        return (
            f"total_batch_size {s.total_batch_size} is below 256, so that lr {s.lr:g} would warm "
            "down; set warm_up 0"
        )
    return (
        f"max_lr {s.max_lr:g} is below start_lr {s.start_lr:g}; "
        "a warm-up goes up: raise max_lr or make it negative for start_lr · K"
    )


def clients_can_be_computed_together(s: RunSettings) -> str | None:
    if s.clients in ("auto", "serial"):
        return None
    if model_spec(s.model).stochastic:
        return (
            f"clients {s.clients} would draw model {s.model}'s dropout for several clients at "
            "once, so that the run depended on the processes; set clients serial"
        )
    if s.clients == "vectorized" and s.mixed_precision:  # autocast does not reach inside vmap
        return (
            f"precision {s.precision} needs clients serial (or fused, for H = 1); set clients auto"
        )
    longest = max(phase.local_steps for phase in s.phases)
    if s.clients == "fused" and (s.h_rule != "constant" or longest > 1):
        h = f"H is {longest}" if s.h_rule == "constant" else f"h_rule {s.h_rule} raises H"
        return f"clients fused is for runs of H = 1 throughout, here {h}; set clients auto"
    return None


def nesterov_has_momentum(s: RunSettings) -> str | None:
    if not s.nesterov or s.momentum > 0:
        return None
    return "nesterov needs momentum > 0; set momentum or nesterov 0"


def momentum_to_average(s: RunSettings) -> str | None:
    if s.momentum > 0 or s.momentum_averaging == "keep":
        return None
    return f"momentum_averaging {s.momentum_averaging} needs momentum > 0; set momentum"


def wandb_is_there_to_save_to(s: RunSettings) -> str | None:
    if not s.wandb_save or s.wandb != "disabled":
        return None
    return "wandb_save 1 needs a W&B run; set wandb online or offline, or wandb_save 0"


def schedule_is_given_once(s: RunSettings) -> str | None:
    by_phase = [
        f"{name}{i}" for name in ("decay", "step", "eval_freq", "save_freq") for i in (1, 2, 3)
    ]
    both = changed(s, "epochs", "gamma", *by_phase)
    if s.schedule is None or not both:
        return None
    return f"schedule and {', '.join(both)} both say how long and how; give one way"


def decays_come_in_order(s: RunSettings) -> str | None:
    before = s.epochs_before_decays
    end = before + s.epochs
    coming = [(f"decay{i}", getattr(s, f"decay{i}")) for i in (1, 2, 3)]
    late = max(end, FAR_PAST_THE_END * s.epochs)
    coming = [(n, None if epoch is not None and epoch >= late else epoch) for n, epoch in coming]
    for name, epoch in coming:
        if epoch is not None and epoch <= before:
            return (
                f"{name} {epoch} is not after epoch {before}, where this run starts: decays of "
                "dataset imagenet count from epoch 0, as in the authors' code; raise it, or leave "
                "it out"
            )
        if epoch is not None and epoch >= end:
            length = f"{s.epochs} epochs" + (f" from epoch {before}" if before else "")
            return (
                f"{name} {epoch} is past the end ({length}) and would never come; "
                f"lower it, or leave it out"
            )
    for (first, a), (second, b) in pairwise(coming):
        if b is not None and a is None:
            return f"{second} {b} needs {first} before it; set {first}"
        if b is not None and a is not None and b <= a:
            return f"{second} {b} must come after {first} ({a}); raise {second}"
    return None


def cosine_has_no_decays(s: RunSettings) -> str | None:
    if s.lr_schedule == "step" or all(phase.lr_factor == 1 for phase in s.phases):
        return None
    return "lr_schedule cosine has no decays; leave decay1 and lr_factor out, or set gamma 1"


def h_follows_one_rule(s: RunSettings) -> str | None:
    if s.h_rule == "constant":
        extra = changed(s, "h_base", "alpha")
        return f"{extra[0]} is for h_rule qsr; set h_rule or leave it out" if extra else None
    if s.alpha is None:
        return "h_rule qsr needs alpha, the η below which H exceeds 1; set alpha"
    fixed = changed(s, "step1", "step2", "step3")
    return f"{fixed[0]} and h_rule qsr both say H; leave {fixed[0]} out" if fixed else None


CHECKS: tuple[Callable[[RunSettings], str | None], ...] = (
    clients_are_whole,
    # The phases of what these three refuse cannot be told.
    schedule_is_given_once,
    decays_come_in_order,
    decays_leave_a_rate,
    learning_rate_is_given_once,
    learning_rate_is_a_number,
    warm_up_is_complete,
    warm_up_goes_up,
    bn_is_the_models,
    clients_can_be_computed_together,
    groups_divide_channels,
    images_are_the_data_sets,
    loader_can_read,
    model_fits_images,
    nesterov_has_momentum,
    momentum_to_average,
    wandb_is_there_to_save_to,
    subset_suffices,
    cosine_has_no_decays,
    h_follows_one_rule,
)


def check_start(settings: RunSettings) -> None:
    """Raises UserError for a start point that is asked for and not named, or not to be trusted.

    Experiments leave the path to the workflow, so that this is known once the run begins.
    """
    for name in changed(settings, "resume", "resume_sha256"):
        if settings.resume_pth is None:
            raise UserError(f"{name} is the start point's; set resume_pth, or leave {name} out")
    if settings.resume_pth and is_url(settings.resume_pth) and settings.resume_sha256 is None:
        raise UserError(f"resume_pth {settings.resume_pth}: a URL needs resume_sha256; set it")


def check_processes(settings: RunSettings, processes: int) -> None:
    """Raises UserError for other ``processes`` than promised, or that do not divide the clients."""
    if settings.processes not in (None, processes):
        raise UserError(
            f"processes {settings.processes} were promised and {processes} started; with torchrun, "
            "nnodes times nproc_per_node must be that number, and all nodes must meet"
        )
    k = settings.num_clients
    if k % processes:
        fits = [n for n in range(1, min(k, FEW) + 1) if k % n == 0]
        raise UserError(
            f"{processes} processes cannot share K = {k} clients evenly "
            f"(total_batch_size / batch_size); start {', '.join(map(str, fits))} processes"
        )
