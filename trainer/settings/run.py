"""The settings of a training run; a user's mistakes are found here, before any work.

Each setting is written once: name, type, default, bounds, help. The command line, the YAML file and
the JSON schema of the experiments all derive from these models (``trainer/settings/cli.py``,
``workflow/experiments.py``). Names are those of the authors' code
(https://github.com/hmgxr128/Local-SGD); nothing here imports torch, so that Snakemake starts fast.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from trainer.files.download import https, is_url
from trainer.settings.base import local_path, setting
from trainer.settings.checks import CHECKS
from trainer.settings.data import DataSettings
from trainer.settings.interruption import InterruptionSettings
from trainer.settings.schedule import ScheduleSettings
from trainer.settings.wandb import WandbSettings

Device = Literal["auto", "cpu", "cuda"]
# The authors have two trainers of different habits: train_cifar, and for this one train_imagenet
IMAGENET = "imagenet"
# Raised when a default or the arithmetic changes, so that the same settings give other numbers.
RESULTS_VERSION = 1


class RunSettings(WandbSettings, InterruptionSettings, ScheduleSettings, DataSettings):
    """One training run: a configuration with one seed."""

    # Start
    resume: int = setting(0, "epoch of the start point", "start", ge=0)
    resume_pth: str | None = setting(
        None,
        "checkpoint (state_dict) to start from, file or https URL; None: random initialisation",
        "start",
        affects_results=False,
    )
    resume_sha256: str | None = setting(
        None,
        "SHA-256 that the checkpoint must have (a URL needs it); None: not checked",
        "start",
        pattern="^[0-9a-f]{64}$",
    )
    eval_on_start: bool = setting(False, "evaluate the initial model", "start")

    # Sharpness
    sharpness: bool = setting(
        False,
        "at each evaluation, trace and largest eigenvalue of the training loss's Hessian",
        "sharpness",
    )
    sharpness_samples: int = setting(
        512, "on the first so many training samples", "sharpness", ge=1
    )
    sharpness_probes: int = setting(64, "random vectors of the trace's estimate", "sharpness", ge=1)

    # Clients
    batch_size: int = setting(128, "local batch size B_loc", "clients", ge=1)
    total_batch_size: int = setting(
        128, "total batch size B = K · B_loc; K, the number of clients, follows", "clients", ge=1
    )
    clients: Literal["auto", "vectorized", "serial", "fused"] = setting(
        "auto",
        "how a process executes its clients: in one pass, one after the other, or (H = 1) as one "
        "replica; auto: by a rule from model, batch, H and device",
        "clients",
        affects_results=False,
    )
    compile: bool = setting(
        False,
        "compile the model's passes by torch.compile: a minute at the start, then faster steps of "
        "large models",
        "clients",
        affects_results=False,
    )

    # Optimizer
    lr: float | None = setting(
        None,
        "learning rate for B = 256: the learning rate is B · lr / 256, warmed up from lr "
        "(Goyal et al. 2017); None: by start_lr",
        "optimizer",
        gt=0,
    )
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
    lr_schedule: Literal["step", "cosine"] = setting(
        "step", "after the warm-up: constant but for the decays, or half a cosine to 0", "optimizer"
    )
    wd: float = setting(5e-4, "weight decay", "optimizer", ge=0)
    group_weight: bool = setting(
        lambda given: given["dataset"] == IMAGENET,
        "no weight decay on normalisation layers and biases; default, as the authors': 1 for "
        "dataset imagenet, else 0",
        "optimizer",
    )
    momentum: float = setting(0.0, "momentum", "optimizer", ge=0, lt=1)
    nesterov: bool = setting(False, "Nesterov momentum", "optimizer")
    momentum_averaging: Literal["keep", "average", "reset"] = setting(
        "keep",
        "each client's momentum at averaging: kept, averaged as the parameters are, or set to 0",
        "optimizer",
    )
    precision: Literal["fp32", "fp64", "bf16", "fp16"] = setting(
        "fp32",
        "arithmetic; bf16, fp16: mixed, training's forward passes in bfloat16 or float16 (its loss "
        "scaled by a constant), the rest in fp32",
        "optimizer",
    )

    # Run
    seed: int = setting(0, "seed of all randomness", "run", ge=0, lt=2**63)
    log_pth: Path = setting(
        Path("results/checkpoints/run"),
        "directory for checkpoints: at initialisation, at every decay, after the latest evaluation",
        "run",
        affects_results=False,
    )
    out: Path | None = setting(
        None,
        "directory that gets metrics.jsonl and model.pt once the run is complete; None: log_pth",
        "run",
        affects_results=False,
    )
    device: Device = setting(
        "auto",
        "auto: a GPU where there is one; each process needs its own",
        "run",
        affects_results=False,
    )
    processes: int | None = setting(
        None,
        "the run's processes on all its nodes, a promise: with more or fewer it is an error; "
        "None: as many as torchrun starts",
        "run",
        affects_results=False,
        ge=1,
    )
    backend: Literal["auto", "gloo", "nccl"] = setting(
        "auto", "communication; auto: nccl on GPU, gloo on CPU", "run", affects_results=False
    )
    debug: bool = setting(
        False, "print every evaluation to the console", "run", affects_results=False
    )

    @field_validator("resume_pth")
    @classmethod
    def _start_is_a_file_or_https(cls, place: str | None) -> str | None:
        if place is None:
            return None
        if is_url(place):
            return https(place)
        local = local_path(Path(place))
        return str(local) if place.startswith("~") else place

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        for check in CHECKS:
            if message := check(self):
                raise ValueError(message)
        return self

    @property
    def epochs_before_decays(self) -> int:
        """Epochs that decays count and this run does not train: ImageNet's count from epoch 0."""
        return self.resume if self.dataset == IMAGENET else 0

    @property
    def decays(self) -> list[int]:
        return [decay - self.epochs_before_decays for decay in super().decays]

    @property
    def num_clients(self) -> int:
        """K."""
        return self.total_batch_size // self.batch_size

    @property
    def mixed_precision(self) -> str | None:
        """PyTorch's name for the type of training's forward passes, if not the parameters'."""
        return {"bf16": "bfloat16", "fp16": "float16"}.get(self.precision)

    @property
    def peak_lr(self) -> float:
        """η after warm-up, before any decay: B · lr / 256, max_lr or start_lr · K."""
        if self.lr is not None:
            return self.lr * self.total_batch_size / 256
        if self.warm_up and self.max_lr >= 0:
            return self.max_lr
        return self.start_lr * self.num_clients

    @property
    def initial_lr(self) -> float:
        """η at the beginning of the warm-up."""
        return self.start_lr if self.lr is None else self.lr

    def resolved(self) -> dict[str, Any]:
        """Return all settings, plain, with the version of the results: settings.json."""
        return {"results_version": RESULTS_VERSION, **self.model_dump(mode="json")}

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that decide the run's numbers, plain and sorted by name."""
        names = result_setting_names(type(self))
        values = self.model_dump(mode="json", include=names)
        return {name: values[name] for name in sorted(names)}

    def identity(self) -> dict[str, Any]:
        """Return what tells this run's numbers from others': the version, and what is not default.

        A new setting changes nobody's identity as long as its default changes no number.
        """
        values = self.result_settings()
        return {"results_version": RESULTS_VERSION} | {n: values[n] for n in self.non_default()}

    def non_default(self) -> list[str]:
        """List the settings that decide numbers and differ from their default, sorted."""
        names = sorted(result_setting_names(type(self)))
        return [name for name in names if getattr(self, name) != self._default(name)]

    def _default(self, name: str) -> Any:
        """Return the default of ``name``, which may follow from the settings before it."""
        field = type(self).model_fields[name]
        return field.get_default(call_default_factory=True, validated_data=self.__dict__)


@cache
def result_setting_names(model: type[RunSettings]) -> set[str]:
    """Name the settings that decide a run's numbers.

    Once and for all: a workflow of thousands of runs asks each for its content, and more than once.
    """
    extras = {name: field.json_schema_extra for name, field in model.model_fields.items()}
    return {name for name, extra in extras.items() if extra and extra["affects_results"]}  # type: ignore[index]


RESULT_SETTINGS = result_setting_names(RunSettings)
