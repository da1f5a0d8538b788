"""Settings of model and data that contradict each other, as in ``checks``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.data.specs import DATASETS
from trainer.models.registry import incompatibility, model_spec
from trainer.models.specs import SMALLEST_GROUPNORM

if TYPE_CHECKING:
    from trainer.settings.run import RunSettings


def images_are_the_data_sets(s: RunSettings) -> str | None:
    given = DATASETS[s.dataset]
    if s.image_size is not None and not given.of_files:
        return (
            f"image_size is for image files; dataset {s.dataset} has images of "
            f"{given.image_size} pixels; leave image_size out"
        )
    if given.num_classes == 0 and s.num_classes is None:
        return f"dataset {s.dataset} needs num_classes, the number of its class folders; set it"
    if given.num_classes not in (0, s.num_classes) and s.num_classes is not None:
        return f"dataset {s.dataset} has {given.num_classes} classes; leave num_classes out"
    return None


def loader_can_read(s: RunSettings) -> str | None:
    if s.loader == "memory" and s.data.of_files:
        return (
            f"loader memory is for images of one size, dataset {s.dataset} is of image files; "
            "set loader auto"
        )
    if s.loader == "ffcv" and s.data.channels != 3:
        return (
            f"loader ffcv is for images with colours, which dataset {s.dataset} lacks; "
            "set loader auto"
        )
    return None


def model_fits_images(s: RunSettings) -> str | None:
    data = s.data
    reason = incompatibility(s.model, data)
    return reason and (
        f"model {s.model} does not fit dataset {s.dataset}, images of {data.image_size} pixels and "
        f"{data.channels} channel(s): {reason}; choose another model or dataset"
    )


def groups_divide_channels(s: RunSettings) -> str | None:
    channels = SMALLEST_GROUPNORM
    if not model_spec(s.model).groupnorm or (s.n_groups >= 1 and channels % s.n_groups == 0):
        return None
    fits = ", ".join(str(n) for n in range(1, channels + 1) if channels % n == 0)
    return (
        f"n_groups {s.n_groups} does not divide the {channels} channels of {s.model}'s first "
        f"layers; choose one of {fits}"
    )


def bn_is_the_models(s: RunSettings) -> str | None:
    batchnorm = model_spec(s.model).batchnorm
    if s.bn not in (None, batchnorm):
        has = "has" if batchnorm else "has no"
        return (
            f"bn {int(not batchnorm)} contradicts model {s.model}, which {has} BatchNorm; "
            f"leave bn out or set it to {int(batchnorm)}"
        )
    if batchnorm and s.bn_batches == 0:
        return (
            f"bn_batches 0 leaves model {s.model} without BatchNorm statistics to evaluate with; "
            "set bn_batches 1 or more"
        )
    return None


def samples_suffice(s: RunSettings, available: int) -> str | None:
    """None when ``available`` training samples are enough for the run."""
    if s.train_subset is not None and s.train_subset > available:
        return f"train_subset {s.train_subset} exceeds the {available} training samples; lower it"
    return _suffices(s, s.train_subset or available)


def subset_suffices(s: RunSettings) -> str | None:
    reason = s.train_subset and _suffices(s, s.train_subset)
    return f"train_subset {s.train_subset} is too small: {reason}" if reason else None


def data_set_suffices(s: RunSettings) -> str | None:
    """Check the size of a known data set, before there is a file to count samples in.

    Not one of ``CHECKS``: files given by ``train_pth`` may hold any number.
    """
    known = DATASETS[s.dataset].count("train")
    return None if known is None else samples_suffice(s, known)


def _suffices(s: RunSettings, num_samples: int) -> str | None:
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
