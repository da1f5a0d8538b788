"""Build the parts of a run from its settings: data, sampler, schedule, start point, clients."""

import os
import shutil
from collections import deque
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trainer.data.beton.reader import read_beton, read_index
from trainer.data.beton.sidecar import read_sidecar
from trainer.data.images import Images, ImageSet
from trainer.data.memory import MemoryImages
from trainer.data.sampling import Sampler, train_subset
from trainer.data.training import TrainingSet
from trainer.errors import UserError
from trainer.files.checksum import Checksum
from trainer.files.download import download, is_url
from trainer.files.state_dict import load_model
from trainer.local_sgd.clients import ClientBank, Execution
from trainer.local_sgd.h_rules import OwnRule
from trainer.local_sgd.optimizer import SGD, AdamW
from trainer.local_sgd.outer import Outer
from trainer.local_sgd.schedule import Phase, Schedule
from trainer.models.registry import build, model_spec
from trainer.settings.run import RunSettings, samples_suffice


def load_data(settings: RunSettings, device: torch.device) -> tuple[TrainingSet, ImageSet]:
    """Load the training samples that this run may use, and those that it is evaluated on."""
    images, evaluated = (_images(settings, path, device) for path in settings.betons)
    available = len(images.labels)
    if reason := samples_suffice(settings, available):
        raise UserError(reason)
    if settings.train_subset is not None:
        chosen = train_subset(settings.seed, available, settings.train_subset)
        if settings.evaluate_on == "held_out":
            if available == len(chosen):
                raise UserError(
                    f"evaluate_on held_out: train_subset {available} takes all training "
                    "samples, so that none are held out; lower train_subset"
                )
            evaluated = images.subset(np.setdiff1d(np.arange(available), chosen))
        images = images.subset(chosen)
    return make_data(settings, images, evaluated, device)


def make_data(
    settings: RunSettings, images: Images, evaluated: Images, device: torch.device
) -> tuple[TrainingSet, ImageSet]:
    """Train on ``images`` and evaluate on ``evaluated`` as the settings say."""
    spec, dtype = settings.data, _dtype(settings)
    training = TrainingSet(
        images,
        spec,
        device,
        dtype,
        augmented=settings.aug,
        noise_p=settings.noise_p if settings.label_noise else 0.0,
        workers=settings.nw,
    )
    return training, ImageSet(evaluated, spec, device, dtype)


def _images(settings: RunSettings, path: Path, device: torch.device) -> Images:
    spec = settings.data
    if settings.streamed:
        from trainer.data.stream import StreamedImages

        index = read_index(path)
        shape = (spec.image_size, spec.image_size, 3) if spec.of_files else index.one_shape
        workers, pinned = max(1, settings.nw), device.type == "cuda"
        images: Images = StreamedImages(path, index, spec.image_size, workers, pinned=pinned)
    else:
        samples = read_beton(path)
        shape = samples.shape
        images = MemoryImages(samples, device)
    wanted = (spec.image_size, spec.image_size, spec.channels)
    if shape != wanted:
        raise UserError(
            f"{path}: images of shape {shape}, dataset {settings.dataset} has {wanted}; check "
            "dataset and the path"
        )
    if (found := len(read_sidecar(path).samples_per_class)) != spec.num_classes:
        raise UserError(
            f"{path}: {found} classes, {spec.num_classes} were asked for; check dataset "
            f"{settings.dataset} and num_classes"
        )
    return images


def make_sampler(settings: RunSettings, num_samples: int) -> Sampler:
    """Build the sampler of ``num_samples`` samples; by default an epoch takes all whole steps."""
    return Sampler(
        seed=settings.seed,
        num_samples=num_samples,
        num_clients=settings.num_clients,
        batch_size=settings.batch_size,
        steps_per_epoch=settings.steps_per_epoch or num_samples // settings.total_batch_size,
        replacement=settings.replacement,
    )


def start_file(settings: RunSettings) -> Path | None:
    """Return the start point's file on this machine; download it first if it is a URL."""
    path = settings.resume_pth
    if path is not None and is_url(path):
        assert settings.resume_sha256 is not None, "check_start asks for it"
        return download(path, Checksum("SHA-256", settings.resume_sha256))
    return Path(path) if path else None


def initial_model(settings: RunSettings) -> nn.Module:
    """Build the model on the CPU: from the start point or, without one, from the seed alone."""
    model = _build(settings)  # in its type before loading, which converts to it
    if start := start_file(settings):
        load_model(start, model, settings.resume_sha256)
    return model


def make_schedule(settings: RunSettings, steps_per_epoch: int) -> Schedule:
    """Build the schedule of ``settings`` for epochs of ``steps_per_epoch`` steps.

    Raises UserError if a user's rule for H fails anywhere in the run.
    """
    stops = list(accumulate(phase.epochs * steps_per_epoch for phase in settings.phases))
    phases = tuple(
        Phase(start=start, stop=stop, **phase.model_dump(exclude={"epochs"}))
        for phase, start, stop in zip(settings.phases, [0, *stops], stops, strict=False)
    )
    schedule = Schedule(
        phases=phases,
        peak_lr=settings.peak_lr,
        initial_lr=settings.initial_lr,
        warmup_steps=settings.warmup_epochs * steps_per_epoch if settings.warm_up else 0,
        cosine=settings.lr_schedule == "cosine",
        h_rule=settings.rule(steps_per_epoch),
    )
    if isinstance(schedule.h_rule, OwnRule):
        deque(schedule.rounds(), maxlen=0)  # better now than in the middle of the run
    return schedule


def make_bank(
    settings: RunSettings, num_clients: int, execution: Execution, device: torch.device
) -> ClientBank:
    """Build a bank of ``num_clients`` clients, with the seed's initial parameters.

    Raises UserError if ``compile`` lacks a compiler.
    """
    if settings.compile:
        _check_compiler(device)
    mixed = settings.mixed_precision
    return ClientBank(
        _build(settings).to(device),
        num_clients,
        _make_optimizer(settings),
        execution,
        stochastic=model_spec(settings.model).stochastic,
        autocast=getattr(torch, mixed) if mixed else None,
        compiled=settings.compile,
    )


def _check_compiler(device: torch.device) -> None:
    """Raise UserError if what `torch.compile` compiles for ``device`` by is not there."""
    language, compiler, programs = "C++", "g++", [os.environ.get("CXX", "g++")]
    if device.type == "cuda":  # Triton's: triton/runtime/build.py
        language, compiler, programs = "C", "gcc", [os.environ.get("CC", "gcc"), "clang"]
    if not any(map(shutil.which, programs)):
        raise UserError(
            f"compile 1 needs a {language} compiler: install {compiler}, or set compile 0"
        )


def _make_optimizer(settings: RunSettings) -> SGD | AdamW:
    if settings.optimizer == "adamw":
        return AdamW(
            weight_decay=settings.wd,
            group_weight=settings.group_weight,
            beta1=settings.beta1,
            beta2=settings.beta2,
            eps=settings.eps,
        )
    return SGD(
        weight_decay=settings.wd,
        group_weight=settings.group_weight,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
    )


def make_outer(settings: RunSettings) -> Outer:
    """Build the outer optimizer's settings."""
    return Outer(
        lr=settings.outer_lr,
        momentum=settings.outer_momentum,
        nesterov=settings.outer_nesterov,
        slowmo=settings.outer_slowmo,
    )


def _dtype(settings: RunSettings) -> torch.dtype:
    """Return the type of parameters and images."""
    return torch.float64 if settings.precision == "fp64" else torch.float32


def _build(settings: RunSettings) -> nn.Module:
    model = build(settings.model, settings.data, settings.seed, settings.n_groups)
    return model.to(_dtype(settings))
