"""Define the model and data settings of a run."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from trainer.data.specs import DATASETS, DatasetSpec
from trainer.models.registry import incompatibility, model_spec, require_model
from trainer.models.specs import MODELS, SMALLEST_GROUPNORM
from trainer.settings.base import Settings, execution_setting, setting
from trainer.settings.commands import DatasetName

# The authors train this data set with other defaults (train_imagenet) than the rest (train_cifar).
IMAGENET = "imagenet"


class DataSettings(Settings):
    """Choose model and data set, and how its samples are read, drawn and augmented."""

    # Model
    model: Annotated[str, AfterValidator(require_model)] = setting(
        "mlp",
        "model",
        help=f"architecture: {', '.join(MODELS)}, or a classification model of torchvision by its "
        "name",
    )
    bn: bool | None = setting(None, "model")
    """the model has BatchNorm: re-estimate its statistics before evaluation; None: if the model has
    it"""
    bn_batches: int = setting(100, "model", ge=0)
    """training batches for the re-estimation, over all processes"""
    n_groups: int = setting(8, "model")
    """groups of GroupNorm, for architectures that have it (names in _gn)"""

    # Data
    dataset: DatasetName = setting(
        lambda given: model_spec(given["model"]).dataset,
        "data",
        help=f"data set: {', '.join(DATASETS)}; default: the one that the model is made for",
    )
    data_pth: Path = execution_setting(lambda given: Path("resources") / given["dataset"], "data")
    """directory with train.beton and test.beton; default: resources/<dataset>"""
    train_pth: Path | None = execution_setting(None, "data")
    """training samples, a .beton; None: train.beton in data_pth"""
    val_pth: Path | None = execution_setting(None, "data")
    """test samples, a .beton; None: test.beton in data_pth"""
    image_size: int | None = setting(None, "data", ge=1)
    """image files: side of the squares that the model sees, in pixels; None: the data set's"""
    num_classes: int | None = setting(None, "data", ge=2)
    """dataset imagefolder: how many class folders it has"""
    loader: Literal["auto", "memory", "ffcv"] = execution_setting("auto", "data")
    """memory: images of one size from a memory-mapped file; ffcv: streamed and decoded by FFCV;
    auto: ffcv for image files"""
    nw: int = execution_setting(0, "data", ge=0, le=256)
    """data loader workers: threads that prepare batches ahead; 0: the training thread prepares them
    (FFCV always uses a thread of its own)"""
    train_subset: int | None = setting(None, "data", ge=1)
    """train on this many samples, drawn per seed; None: all"""
    evaluate_on: Literal["test", "held_out"] = setting("test", "data")
    """test samples or, to choose settings without them, held_out: the training samples that
    train_subset leaves out"""
    aug: bool = setting(True, "data")
    """data augmentation: random crop with padding (image files: random resized crop), and a flip
    where the data set allows it"""
    replacement: bool = setting(False, "data")
    """sample with replacement"""
    label_noise: bool = setting(False, "data")
    """resample every label at every step"""
    noise_p: float = setting(0.1, "data", ge=0, lt=1)
    """label noise: with this probability, a label is drawn uniformly from the other classes"""

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

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        yield from self._model_conflicts()
        given = DATASETS[self.dataset]
        if self.image_size is not None and not given.of_files:
            yield (
                f"image_size applies only to image files; dataset {self.dataset} has images of "
                f"{given.image_size} pixels; remove image_size"
            )
        if given.num_classes == 0 and self.num_classes is None:
            yield (
                f"dataset {self.dataset} needs num_classes, the number of its class folders; set it"
            )
        if given.num_classes != 0 and self.num_classes not in (None, given.num_classes):
            yield f"dataset {self.dataset} has {given.num_classes} classes; remove num_classes"
        if self.loader == "memory" and given.of_files:
            yield (
                f"loader memory needs images of one size, but dataset {self.dataset} consists of "
                "image files; set loader auto"
            )
        if self.loader == "ffcv" and given.channels != 3:
            yield (
                f"loader ffcv needs colour images, which dataset {self.dataset} lacks; set loader "
                "auto"
            )
        if self.evaluate_on == "held_out" and self.train_subset is None:
            yield "evaluate_on held_out needs training samples to leave out; set train_subset"
        if reason := incompatibility(self.model, self.data):
            yield (
                f"model {self.model} does not fit dataset {self.dataset}, images of "
                f"{self.data.image_size} pixels and {given.channels} channel(s): {reason}; choose "
                "another model or dataset"
            )

    def _model_conflicts(self) -> Iterator[str]:
        spec = model_spec(self.model)
        if self.bn not in (None, spec.batchnorm):
            has = "has" if spec.batchnorm else "has no"
            yield (
                f"bn {int(not spec.batchnorm)} contradicts model {self.model}, which {has} "
                f"BatchNorm; remove bn or set it to {int(spec.batchnorm)}"
            )
        if spec.batchnorm and self.bn_batches == 0:
            yield (
                f"bn_batches 0 leaves model {self.model} without BatchNorm statistics to evaluate "
                "with; set bn_batches 1 or more"
            )
        fits = [n for n in range(1, SMALLEST_GROUPNORM + 1) if SMALLEST_GROUPNORM % n == 0]
        if spec.groupnorm and self.n_groups not in fits:
            yield (
                f"n_groups {self.n_groups} does not divide the {SMALLEST_GROUPNORM} channels of "
                f"{self.model}'s first layers; choose one of {', '.join(map(str, fits))}"
            )
