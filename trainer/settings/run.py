"""Define the settings of a training run, and check them before any work.

Each setting is written once: name, type, default, bounds, help. The command line, the YAML file and
the JSON schema of the experiments all derive from these models (``trainer/settings/cli.py``,
``workflow/experiments.py``). Names are those of the authors' code
(https://github.com/hmgxr128/Local-SGD); nothing here imports torch, so that Snakemake starts fast.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import field_validator

from trainer.data.specs import DATASETS
from trainer.errors import UserError
from trainer.files.download import https, is_url
from trainer.models.registry import incompatibility, model_spec
from trainer.settings.base import execution_setting, local_path, setting
from trainer.settings.data import IMAGENET
from trainer.settings.optimizer import OptimizerSettings
from trainer.settings.runtime import RuntimeSettings

# Raised when a default or the arithmetic changes, so that the same settings give other numbers.
RESULTS_VERSION = 2
MOST_SUGGESTIONS = 256  # numbers of processes that an error lists


class RunSettings(RuntimeSettings, OptimizerSettings):
    """Configure one training run, with one seed."""

    # Start point: a checkpoint, or random initialisation
    resume: int = setting(0, "start", ge=0)
    """epoch of the start point"""
    resume_pth: str | None = execution_setting(None, "start")
    """checkpoint (state_dict) to start from, file or https URL; None: random initialisation"""
    resume_sha256: str | None = setting(None, "start", pattern="^[0-9a-f]{64}$")
    """SHA-256 that the checkpoint must have (a URL needs it); None: not checked"""
    eval_on_start: bool = setting(False, "start")
    """evaluate the initial model"""

    # Sharpness
    sharpness: bool = setting(False, "sharpness")
    """at each evaluation, estimate trace and largest eigenvalue of the training loss's Hessian"""
    sharpness_samples: int = setting(512, "sharpness", ge=1)
    """training samples for the estimates, drawn once per seed"""
    sharpness_probes: int = setting(64, "sharpness", ge=1)
    """random vectors for the trace estimate"""

    # Run
    seed: int = setting(0, "run", ge=0, lt=2**63)
    """seed of all randomness"""

    @field_validator("resume_pth")
    @classmethod
    def _start_is_a_file_or_https(cls, place: str | None) -> str | None:
        if place is None or is_url(place):
            return place and https(place)
        local = local_path(Path(place))
        return str(local) if place.startswith("~") else place

    @property
    def epochs_before_decays(self) -> int:
        """Return the start point's epoch for ImageNet, whose decays count from epoch 0."""
        return self.resume if self.dataset == IMAGENET else 0

    def resolved(self) -> dict[str, Any]:
        """Return all settings, plain, with the version of the results: settings.json."""
        return {"results_version": RESULTS_VERSION, **self.model_dump(mode="json")}

    def result_settings(self) -> dict[str, Any]:
        """Return the settings that decide the run's numbers, plain and sorted by name."""
        names = result_setting_names(type(self))
        values = self.model_dump(mode="json", include=names)
        return {name: values[name] for name in sorted(names)}

    def identity(self) -> dict[str, Any]:
        """Return the results' version and the non-default settings: if equal, numbers are equal.

        A new setting changes nobody's identity as long as its default changes no number.
        """
        values = self.result_settings()
        return {"results_version": RESULTS_VERSION} | {n: values[n] for n in self.non_default()}

    def non_default(self) -> list[str]:
        """List the settings that decide numbers and differ from their default, sorted."""
        return self.changed(*sorted(result_setting_names(type(self))))

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.clients in ("vectorized", "fused"):
            yield from self._separate_clients()
        if self.batch_size == 1 and self._only_one_sample_is_too_few():
            yield (
                f"batch_size 1 leaves a BatchNorm layer of model {self.model} one value per "
                f"channel at {self.data.image_size} pixels; set batch_size 2 or more"
            )
        for name in [] if self.sharpness else self.changed("sharpness_samples", "sharpness_probes"):
            yield f"{name} applies only to sharpness 1; set sharpness 1 or remove {name}"
        if self.train_subset and (reason := samples_suffice(self, self.train_subset)):
            yield f"train_subset {self.train_subset} is too small: {reason}"

    def _only_one_sample_is_too_few(self) -> bool:
        one, two = (incompatibility(self.model, self.data, samples) for samples in (1, 2))
        return one is not None and two is None

    def _separate_clients(self) -> Iterator[str]:
        if model_spec(self.model).stochastic:
            yield (
                f"clients {self.clients} would draw model {self.model}'s dropout for several "
                "clients at once, so that results would depend on the number of processes; set "
                "clients serial"
            )
        if self.clients == "vectorized" and self.mixed_precision:
            # autocast does not reach inside vmap
            yield (
                f"precision {self.precision} needs clients serial (or fused, for H = 1); set "
                "clients auto"
            )
        if self.clients == "fused" and self.optimizer == "adamw":
            yield (
                "clients fused averages gradients, but the mean of AdamW's updates is not the "
                "update by the mean gradient; set clients auto"
            )
        longest = max(phase.local_steps for phase in self.phases)
        if self.clients == "fused" and (self.h_rule != "constant" or longest > 1):
            h = f"H is {longest}" if self.h_rule == "constant" else f"h_rule {self.h_rule} raises H"
            yield f"clients fused needs H = 1 throughout, but {h}; set clients auto"


@cache
def result_setting_names(model: type[RunSettings]) -> set[str]:
    """Name the settings that decide a run's numbers.

    Cached, as a workflow of thousands of runs asks each of them several times.
    """
    extras = {name: field.json_schema_extra for name, field in model.model_fields.items()}
    return {name for name, extra in extras.items() if extra and extra["affects_results"]}  # type: ignore[index]


RESULT_SETTINGS = result_setting_names(RunSettings)


def samples_suffice(s: RunSettings, available: int) -> str | None:
    """Return None if ``available`` training samples are enough for the run, else why not."""
    if s.train_subset is not None and s.train_subset > available:
        return f"train_subset {s.train_subset} exceeds the {available} training samples; lower it"
    samples, total = s.train_subset or available, s.total_batch_size
    steps = s.steps_per_epoch or samples // total
    if steps == 0:
        return (
            f"total_batch_size {total} exceeds the {samples} training samples; lower it, or set "
            "replacement 1 and steps_per_epoch"
        )
    if steps * total > samples and not s.replacement:
        return (
            f"total_batch_size {total} × steps_per_epoch {steps} exceeds the {samples} training "
            "samples; lower one of them or set replacement 1"
        )
    if s.sharpness and s.sharpness_samples > samples:
        return (
            f"sharpness_samples {s.sharpness_samples} exceeds the {samples} training samples; "
            "lower it"
        )
    return None


def data_set_suffices(s: RunSettings) -> str | None:
    """Check the size of a known data set, before there is a file to count samples in.

    Not one of the ``conflicts``: files given by ``train_pth`` may hold any number.
    """
    size = DATASETS[s.dataset].count("train")
    return None if size is None else samples_suffice(s, size)


def check_start(settings: RunSettings) -> None:
    """Check that the start point is named and can be trusted; raises UserError otherwise.

    Experiments leave the path to the workflow, so that it is known only when the run begins.
    """
    for name in settings.changed("resume", "resume_sha256"):
        if settings.resume_pth is None:
            raise UserError(f"{name} describes a start point; set resume_pth or remove {name}")
    if settings.resume_pth and is_url(settings.resume_pth) and settings.resume_sha256 is None:
        raise UserError(f"resume_pth {settings.resume_pth}: a URL needs resume_sha256; set it")


def check_processes(settings: RunSettings, processes: int) -> None:
    """Check that ``processes`` is as expected and divides K; raises UserError otherwise."""
    if settings.processes not in (None, processes):
        raise UserError(
            f"processes is {settings.processes}, but {processes} started; with torchrun, nnodes "
            "times nproc_per_node must equal processes, and all nodes must connect"
        )
    k = settings.num_clients
    if k % processes:
        fits = [n for n in range(1, min(k, MOST_SUGGESTIONS) + 1) if k % n == 0]
        raise UserError(
            f"{processes} processes cannot share K = {k} clients evenly "
            f"(total_batch_size / batch_size); start {', '.join(map(str, fits))} processes"
        )
