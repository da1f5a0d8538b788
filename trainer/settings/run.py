"""Define the settings of a training run, and check them before any work.

Each setting is written once: name, type, default, bounds, help. The command line, the YAML file and
the JSON schema of the experiments all derive from these models (``trainer/settings/cli.py``,
``workflow/experiments.py``). Names are those of the authors' code
(https://github.com/hmgxr128/Local-SGD); nothing here imports torch, so that Snakemake starts fast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Self

from pydantic import model_validator

from trainer.data.specs import DATASETS
from trainer.errors import UserError
from trainer.models.registry import model_spec
from trainer.settings.base import setting
from trainer.settings.data import (
    IMAGENET,
    bn_is_the_models,
    groups_divide_channels,
    images_are_the_data_sets,
    loader_can_read,
    model_fits_images,
    samples_are_held_out,
)
from trainer.settings.optimizer import (
    OptimizerSettings,
    clients_are_whole,
    cosine_has_no_decays,
    learning_rate_is_a_number,
    learning_rate_is_given_once,
    momentum_to_average,
    nesterov_has_momentum,
    warm_up_goes_up,
    warm_up_is_complete,
)
from trainer.settings.runtime import RuntimeSettings, wandb_is_there_to_save_to
from trainer.settings.schedule import (
    decays_come_in_order,
    decays_leave_a_rate,
    h_follows_one_rule,
    schedule_is_given_once,
)
from trainer.settings.start import StartSettings

# Raised when a default or the arithmetic changes, so that the same settings give other numbers.
RESULTS_VERSION = 1
MOST_SUGGESTIONS = 256  # numbers of processes that an error lists


class RunSettings(StartSettings, RuntimeSettings, OptimizerSettings):
    """Configure one training run, with one seed."""

    # Sharpness
    sharpness: bool = setting(
        False,
        "at each evaluation, estimate trace and largest eigenvalue of the training loss's Hessian",
        "sharpness",
    )
    sharpness_samples: int = setting(
        512, "training samples for the estimates: the first ones", "sharpness", ge=1
    )
    sharpness_probes: int = setting(64, "random vectors for the trace estimate", "sharpness", ge=1)

    # Run
    seed: int = setting(0, "seed of all randomness", "run", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        for check in CHECKS:
            if message := check(self):
                raise ValueError(message)
        return self

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
        names = sorted(result_setting_names(type(self)))
        return [name for name in names if getattr(self, name) != self._default(name)]

    def _default(self, name: str) -> Any:
        """Return the default of ``name``, which may depend on the settings before it."""
        field = type(self).model_fields[name]
        return field.get_default(call_default_factory=True, validated_data=self.__dict__)


@cache
def result_setting_names(model: type[RunSettings]) -> set[str]:
    """Name the settings that decide a run's numbers.

    Cached, as a workflow of thousands of runs asks each of them several times.
    """
    extras = {name: field.json_schema_extra for name, field in model.model_fields.items()}
    return {name for name, extra in extras.items() if extra and extra["affects_results"]}  # type: ignore[index]


RESULT_SETTINGS = result_setting_names(RunSettings)


def clients_can_be_computed_together(s: RunSettings) -> str | None:
    if s.clients in ("auto", "serial"):
        return None
    if model_spec(s.model).stochastic:
        return (
            f"clients {s.clients} would draw model {s.model}'s dropout for several clients at "
            "once, so that results would depend on the number of processes; set clients serial"
        )
    if s.clients == "vectorized" and s.mixed_precision:  # autocast does not reach inside vmap
        return (
            f"precision {s.precision} needs clients serial (or fused, for H = 1); set clients auto"
        )
    longest = max(phase.local_steps for phase in s.phases)
    if s.clients == "fused" and (s.h_rule != "constant" or longest > 1):
        h = f"H is {longest}" if s.h_rule == "constant" else f"h_rule {s.h_rule} raises H"
        return f"clients fused needs H = 1 throughout, but {h}; set clients auto"
    return None


def subset_suffices(s: RunSettings) -> str | None:
    reason = s.train_subset and _check_samples(s, s.train_subset)
    return f"train_subset {s.train_subset} is too small: {reason}" if reason else None


def samples_suffice(s: RunSettings, available: int) -> str | None:
    """Return None if ``available`` training samples are enough for the run, else why not."""
    if s.train_subset is not None and s.train_subset > available:
        return f"train_subset {s.train_subset} exceeds the {available} training samples; lower it"
    if s.evaluate_on == "held_out" and s.train_subset == available:
        return (
            f"evaluate_on held_out: train_subset {available} leaves out none of the training "
            "samples; lower it"
        )
    return _check_samples(s, s.train_subset or available)


def data_set_suffices(s: RunSettings) -> str | None:
    """Check the size of a known data set, before there is a file to count samples in.

    Not one of ``CHECKS``: files given by ``train_pth`` may hold any number.
    """
    size = DATASETS[s.dataset].count("train")
    return None if size is None else samples_suffice(s, size)


def _check_samples(s: RunSettings, num_samples: int) -> str | None:
    total = s.total_batch_size
    steps = s.steps_per_epoch or num_samples // total
    if steps == 0:
        return (
            f"total_batch_size {total} exceeds the {num_samples} training samples; lower it, or "
            "set replacement 1 and steps_per_epoch"
        )
    if steps * total > num_samples and not s.replacement:
        return (
            f"total_batch_size {total} × steps_per_epoch {steps} exceeds the "
            f"{num_samples} training samples; lower one of them or set replacement 1"
        )
    if s.sharpness and s.sharpness_samples > num_samples:
        return (
            f"sharpness_samples {s.sharpness_samples} exceeds the {num_samples} "
            "training samples; lower it"
        )
    return None


# Each returns None, or one line that names the settings, the reason and the fix.
CHECKS: tuple[Callable[[RunSettings], str | None], ...] = (
    clients_are_whole,
    # ``phases`` can be computed only from settings that pass these three.
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
    samples_are_held_out,
    model_fits_images,
    nesterov_has_momentum,
    momentum_to_average,
    wandb_is_there_to_save_to,
    subset_suffices,
    cosine_has_no_decays,
    h_follows_one_rule,
)


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
