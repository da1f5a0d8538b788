"""The settings of each sub-command; a user's mistakes are found here, before any work.

Each setting is written once: name, type, default, bounds, help. The command line, the YAML file and
the JSON schema of the experiments all derive from these models (``trainer/cli.py``,
``workflow/experiments.py``). Names are those of the authors' code
(https://github.com/hmgxr128/Local-SGD); nothing here imports torch, so that Snakemake starts fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from trainer.data.specs import DATASETS
from trainer.errors import UserError
from trainer.models import MODELS, SMALLEST_GROUPNORM
from trainer.settings import Settings, known, setting

MAX_PHASES = 3


def known_dataset(name: str) -> str:
    return known("dataset", name, tuple(DATASETS))


class RunSettings(Settings):
    """One training run: a configuration with one seed."""

    # Data
    dataset: str = setting("digits", "data set", "data")
    data_pth: Path = setting(
        Path("resources/digits"),
        "directory with train.beton and test.beton",
        "data",
        science=False,
    )
    train_subset: int | None = setting(
        None, "train on this many samples, drawn per seed; None: on all", "data", ge=1
    )
    aug: bool = setting(
        True, "data augmentation (random crop with padding, and flip where it fits)", "data"
    )
    replacement: bool = setting(False, "sample with replacement", "data")
    label_noise: bool = setting(False, "resample every label at every step", "data")
    noise_p: float = setting(
        0.1, "label noise: a label is uniform over the other classes with this probability", "data",
        ge=0, lt=1,
    )  # fmt: skip

    # Model
    model: str = setting("mlp", "architecture", "model")
    bn: bool | None = setting(
        None,
        "the model has BatchNorm: re-estimate its statistics before evaluation; None: as it is",
        "model",
    )
    bn_batches: int = setting(
        100, "training batches for the re-estimation, over all processes", "model", ge=1
    )

    n_groups: int = setting(
        8, "groups of GroupNorm, for architectures that have it (names in _gn)", "model"
    )

    # Start
    resume: int = setting(0, "epoch of the start point", "start", ge=0)
    resume_pth: Path | None = setting(
        None,
        "checkpoint (state_dict) to start from; None: random initialisation",
        "start",
        science=False,
    )
    resume_sha256: str | None = setting(
        None,
        "SHA-256 that the checkpoint must have; None: not checked",
        "start",
        pattern="^[0-9a-f]{64}$",
    )
    eval_on_start: bool = setting(False, "evaluate the initial model", "start")

    # Clients
    batch_size: int = setting(128, "local batch size B_loc", "clients", ge=1)
    total_batch_size: int = setting(
        128, "total batch size B = K · B_loc; K, the number of clients, follows", "clients", ge=1
    )
    clients: Literal["auto", "vectorized", "serial"] = setting(
        "auto",
        "how a process executes its clients: in one pass, or one after the other; "
        "auto: as suits the model",
        "clients",
        science=False,
    )

    # Schedule
    epochs: int = setting(300, "epochs to train from the start point", "schedule", ge=1)
    steps_per_epoch: int | None = setting(
        None, "steps in one epoch; None: ⌊training samples / B⌋", "schedule", ge=1
    )
    decay1: int | None = setting(None, "epoch of the first decay; None: no decay", "schedule", ge=1)
    decay2: int | None = setting(
        None, "epoch of the second decay; None: no decay", "schedule", ge=1
    )
    gamma: float = setting(0.1, "factor at each decay", "schedule", gt=0)
    step1: int = setting(1, "H, the local steps of a round, in phase 1", "schedule", ge=1)
    step2: int = setting(1, "H in phase 2 (after the first decay)", "schedule", ge=1)
    step3: int = setting(1, "H in phase 3 (after the second decay)", "schedule", ge=1)
    eval_freq1: int = setting(1, "evaluate every so many rounds in phase 1", "schedule", ge=1)
    eval_freq2: int = setting(1, "the same in phase 2", "schedule", ge=1)
    eval_freq3: int = setting(1, "the same in phase 3", "schedule", ge=1)

    # Optimizer
    start_lr: float = setting(
        0.01,
        "with warm-up: initial learning rate; without: the learning rate is start_lr · K",
        "optimizer",
        gt=0,
    )
    max_lr: float = setting(
        -1.0,
        "learning rate at the end of the warm-up; negative: start_lr · K",
        "optimizer",
    )
    warm_up: bool = setting(False, "linear learning rate warm-up", "optimizer")
    warmup_epochs: int = setting(5, "length of the warm-up", "optimizer", ge=0)
    wd: float = setting(5e-4, "weight decay", "optimizer", ge=0)
    group_weight: bool = setting(
        False, "no weight decay on normalisation layers and biases", "optimizer"
    )
    momentum: float = setting(0.0, "momentum", "optimizer", ge=0, lt=1)
    nesterov: bool = setting(False, "Nesterov momentum", "optimizer")
    precision: Literal["fp32", "fp64"] = setting("fp32", "arithmetic", "optimizer")

    # Run
    seed: int = setting(0, "seed of all randomness", "run", ge=0, lt=2**63)
    log_pth: Path = setting(
        Path("results/checkpoints/run"), "directory of the run in progress", "run", science=False
    )
    out: Path | None = setting(
        None,
        "directory that gets metrics.jsonl and model.pt once the run is complete; None: log_pth",
        "run",
        science=False,
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "device", "run", science=False)
    backend: Literal["auto", "gloo", "nccl"] = setting(
        "auto", "communication; auto: nccl on GPU, gloo on CPU", "run", science=False
    )
    debug: bool = setting(False, "print every evaluation to the console", "run", science=False)

    _dataset_is_known = field_validator("dataset")(known_dataset)

    @field_validator("model")
    @classmethod
    def _model_is_known(cls, name: str) -> str:
        return known("model", name, tuple(MODELS))

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if self.total_batch_size % self.batch_size:
            raise ValueError(
                f"total_batch_size {self.total_batch_size} is not a multiple of batch_size "
                f"{self.batch_size}; B = K · B_loc needs a whole number of clients K"
            )
        if self.warm_up and 0 <= self.max_lr < self.start_lr:
            raise ValueError(
                f"max_lr {self.max_lr:g} is below start_lr {self.start_lr:g}; "
                "a warm-up goes up: raise max_lr or make it negative for start_lr · K"
            )
        if self.bn is not None and self.bn != MODELS[self.model].batchnorm:
            has = "has" if MODELS[self.model].batchnorm else "has no"
            raise ValueError(
                f"bn {int(self.bn)} contradicts model {self.model}, which {has} BatchNorm; "
                f"leave bn out or set it to {int(not self.bn)}"
            )
        channels = SMALLEST_GROUPNORM
        if MODELS[self.model].groupnorm and (self.n_groups < 1 or channels % self.n_groups):
            fits = ", ".join(str(n) for n in range(1, channels + 1) if channels % n == 0)
            raise ValueError(
                f"n_groups {self.n_groups} does not divide the {channels} channels of "
                f"{self.model}'s first layers; choose one of {fits}"
            )
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0; set momentum or nesterov 0")
        if self.decay2 is not None and (self.decay1 is None or self.decay2 <= self.decay1):
            raise ValueError(
                f"decay2 {self.decay2} must come after decay1 ({self.decay1}); raise decay2"
            )
        if MODELS[self.model].image_size not in (None, DATASETS[self.dataset].image_size):
            raise ValueError(
                f"model {self.model} is made for images of {MODELS[self.model].image_size} pixels, "
                f"dataset {self.dataset} has {DATASETS[self.dataset].image_size}; "
                "choose another model or dataset"
            )
        return self

    @property
    def num_clients(self) -> int:
        """K."""
        return self.total_batch_size // self.batch_size

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up, before any decay; start_lr · K unless max_lr is set."""
        if self.warm_up and self.max_lr >= 0:
            return self.max_lr
        return self.start_lr * self.num_clients

    def science(self) -> dict[str, Any]:
        """The settings that decide the run's numbers, plain and sorted by name."""
        values = self.model_dump(mode="json")
        return {name: values[name] for name in sorted(values) if is_science(name)}


def is_science(name: str) -> bool:
    extra = RunSettings.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return bool(extra["science"])


def check_processes(settings: RunSettings, processes: int) -> None:
    """Raises UserError when ``processes`` cannot share the clients evenly."""
    k = settings.num_clients
    if k % processes:
        fits = [n for n in range(1, k + 1) if k % n == 0]
        raise UserError(
            f"{processes} processes cannot share K = {k} clients evenly "
            f"(total_batch_size / batch_size); start {', '.join(map(str, fits))} processes"
        )


class PrepareSettings(Settings):
    """Raw data to the one layout that ``beton`` reads."""

    dataset: str = setting("digits", "data set", "data")
    source: Path | None = setting(
        None,
        "cifar10: the official archive or a folder train/<class>/*, test/<class>/*; None: download",
        "data",
    )
    out: Path = setting(Path("resources/digits"), "directory to write to", "data")

    _dataset_is_known = field_validator("dataset")(known_dataset)


class BetonSettings(Settings):
    """Prepared arrays to FFCV's .beton files."""

    data_pth: Path = setting(Path("resources/digits"), "directory that `prepare` wrote", "data")
    num_workers: int = setting(1, "writer processes", "data", ge=1)
