"""Define the model and data settings of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from trainer.data.specs import DATASETS, DatasetSpec
from trainer.models.registry import incompatibility, model_spec, require_model
from trainer.models.specs import MODELS, SMALLEST_GROUPNORM
from trainer.settings.base import Settings, setting
from trainer.settings.commands import require_dataset

# The authors train this data set with other defaults (train_imagenet) than the rest (train_cifar).
IMAGENET = "imagenet"


class DataSettings(Settings):
    """Choose model and data set, and how its samples are read, drawn and augmented."""

    # Model
    model: str = setting(
        "mlp",
        f"architecture: {', '.join(MODELS)}, or a classification model of torchvision by its name",
        "model",
    )
    bn: bool | None = setting(
        None,
        "the model has BatchNorm: re-estimate its statistics before evaluation; None: "
        "if the model has it",
        "model",
    )
    bn_batches: int = setting(
        100, "training batches for the re-estimation, over all processes", "model", ge=0
    )
    n_groups: int = setting(
        8, "groups of GroupNorm, for architectures that have it (names in _gn)", "model"
    )

    # Data
    dataset: str = setting(
        lambda given: model_spec(given["model"]).dataset,
        f"data set: {', '.join(DATASETS)}; default: the one that the model is made for",
        "data",
    )
    data_pth: Path = setting(
        lambda given: Path("resources") / given["dataset"],
        "directory with train.beton and test.beton; default: resources/<dataset>",
        "data",
        affects_results=False,
    )
    train_pth: Path | None = setting(
        None,
        "training samples, a .beton; None: train.beton in data_pth",
        "data",
        affects_results=False,
    )
    val_pth: Path | None = setting(
        None, "test samples, a .beton; None: test.beton in data_pth", "data", affects_results=False
    )
    image_size: int | None = setting(
        None,
        "image files: side of the squares that the model sees, in pixels; None: the data set's",
        "data",
        ge=1,
    )
    num_classes: int | None = setting(
        None, "dataset imagefolder: how many class folders it has", "data", ge=2
    )
    loader: Literal["auto", "memory", "ffcv"] = setting(
        "auto",
        "memory: images of one size from a memory-mapped file; ffcv: streamed and decoded by FFCV; "
        "auto: ffcv for image files",
        "data",
        affects_results=False,
    )
    nw: int = setting(
        0,
        "data loader workers: threads that prepare batches ahead; 0: the training thread prepares "
        "them (FFCV always uses a thread of its own)",
        "data",
        affects_results=False,
        ge=0,
        le=256,
    )
    train_subset: int | None = setting(
        None, "train on this many samples, drawn per seed; None: all", "data", ge=1
    )
    evaluate_on: Literal["test", "held_out"] = setting(
        "test",
        "test samples, or, to choose settings without them, the training samples that "
        "train_subset leaves out (held_out)",
        "data",
    )
    aug: bool = setting(
        True,
        "data augmentation: random crop with padding (image files: random resized crop), and a "
        "flip where the data set allows it",
        "data",
    )
    replacement: bool = setting(False, "sample with replacement", "data")
    label_noise: bool = setting(False, "resample every label at every step", "data")
    noise_p: float = setting(
        0.1,
        "label noise: with this probability, a label is drawn uniformly from the other classes",
        "data",
        ge=0,
        lt=1,
    )

    _dataset_is_known = field_validator("dataset")(require_dataset)
    _model_is_known = field_validator("model")(require_model)

    @property
    def betons(self) -> tuple[Path, Path]:
        """Return the files of training and test samples."""
        train, test = self.data_pth / "train.beton", self.data_pth / "test.beton"
        return self.train_pth or train, self.val_pth or test

    @property
    def data(self) -> DatasetSpec:
        """Return the data set's specification, with this run's image size and number of classes."""
        spec = DATASETS[self.dataset]
        return replace(
            spec,
            image_size=self.image_size or spec.image_size,
            num_classes=self.num_classes or spec.num_classes,
        )

    @property
    def streamed(self) -> bool:
        """Return whether FFCV streams the samples from the files."""
        return self.loader == "ffcv" or (self.loader == "auto" and self.data.of_files)


def bn_is_the_models(s: DataSettings) -> str | None:
    batchnorm = model_spec(s.model).batchnorm
    if s.bn not in (None, batchnorm):
        has = "has" if batchnorm else "has no"
        return (
            f"bn {int(not batchnorm)} contradicts model {s.model}, which {has} BatchNorm; "
            f"remove bn or set it to {int(batchnorm)}"
        )
    if batchnorm and s.bn_batches == 0:
        return (
            f"bn_batches 0 leaves model {s.model} without BatchNorm statistics to evaluate with; "
            "set bn_batches 1 or more"
        )
    return None


def groups_divide_channels(s: DataSettings) -> str | None:
    channels = SMALLEST_GROUPNORM
    if not model_spec(s.model).groupnorm or (s.n_groups >= 1 and channels % s.n_groups == 0):
        return None
    fits = ", ".join(str(n) for n in range(1, channels + 1) if channels % n == 0)
    return (
        f"n_groups {s.n_groups} does not divide the {channels} channels of {s.model}'s first "
        f"layers; choose one of {fits}"
    )


def images_are_the_data_sets(s: DataSettings) -> str | None:
    given = DATASETS[s.dataset]
    if s.image_size is not None and not given.of_files:
        return (
            f"image_size applies only to image files; dataset {s.dataset} has images of "
            f"{given.image_size} pixels; remove image_size"
        )
    if given.num_classes == 0 and s.num_classes is None:
        return f"dataset {s.dataset} needs num_classes, the number of its class folders; set it"
    if given.num_classes not in (0, s.num_classes) and s.num_classes is not None:
        return f"dataset {s.dataset} has {given.num_classes} classes; remove num_classes"
    return None


def loader_can_read(s: DataSettings) -> str | None:
    if s.loader == "memory" and s.data.of_files:
        return (
            f"loader memory needs images of one size, but dataset {s.dataset} consists of "
            "image files; set loader auto"
        )
    if s.loader == "ffcv" and s.data.channels != 3:
        return f"loader ffcv needs colour images, which dataset {s.dataset} lacks; set loader auto"
    return None


def samples_are_held_out(s: DataSettings) -> str | None:
    if s.evaluate_on == "held_out" and s.train_subset is None:
        return "evaluate_on held_out needs training samples to leave out; set train_subset"
    return None


def model_fits_images(s: DataSettings) -> str | None:
    data = s.data
    reason = incompatibility(s.model, data)
    return reason and (
        f"model {s.model} does not fit dataset {s.dataset}, images of {data.image_size} pixels and "
        f"{data.channels} channel(s): {reason}; choose another model or dataset"
    )
