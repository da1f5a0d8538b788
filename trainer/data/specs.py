"""Describe each data set as far as the trainer must know it beforehand. No heavy imports."""

from dataclasses import dataclass, replace

SPLITS = ("train", "test")
# Evaluation of resized images: side of the central square ÷ shorter side.
CENTRE = 224 / 256


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Describe one data set's size, shape, classes, normalisation and augmentation.

    ``samples``: how many there are in each of ``SPLITS``; None: the source decides.
    ``image_size``: side in pixels of what a model sees. ``mean``, ``std``: per channel, of pixels
    scaled to [0, 1]. ``padding``: of the random crop, in pixels; None: image files of any size, of
    which training sees random resized crops and evaluation the resized centre. ``flip``: a mirrored
    image keeps its class. ``classes``: names in label order; empty: the folders', recorded with the
    data.
    """

    num_classes: int
    samples: tuple[int, int] | None
    classes: tuple[str, ...] = ()
    channels: int = 3
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int | None
    flip: bool

    @property
    def of_files(self) -> bool:
        return self.padding is None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (H, W, C) of what a model sees."""
        return self.image_size, self.image_size, self.channels

    def count(self, split: str) -> int | None:
        """Count the samples of ``split``; None if the source decides."""
        return None if self.samples is None else self.samples[SPLITS.index(split)]


# Normalisation of torchvision's models (https://docs.pytorch.org/vision/stable/models.html).
IMAGENET = DatasetSpec(
    num_classes=1000,
    samples=(1_281_167, 50_000),
    image_size=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    padding=None,
    flip=True,
)
DATASETS = {
    # scikit-learn's 8×8 digits: 0…16 grey levels, stored × 15. Mean and std are of all 1,797.
    "digits": DatasetSpec(
        num_classes=10,
        samples=(797, 1_000),
        classes=tuple("0123456789"),
        channels=1,
        image_size=8,
        mean=(0.2873,),
        std=(0.3539,),
        padding=1,
        flip=False,
    ),
    # Normalisation and augmentation as in the authors' train_cifar/prepare_data.py.
    "cifar10": DatasetSpec(
        num_classes=10,
        samples=(50_000, 10_000),
        classes=(
            "airplane", "automobile", "bird", "cat", "deer",
            "dog", "frog", "horse", "ship", "truck",
        ),
        image_size=32,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        padding=4,
        flip=True,
    ),
    "imagenet": IMAGENET,
    # Any folder of class folders; their number is a setting.
    "imagefolder": replace(IMAGENET, num_classes=0, samples=None),
    # Patches of ten photographs of scikit-image and scikit-learn; the class is the photograph.
    "photos": replace(IMAGENET, num_classes=10, samples=(480, 480), image_size=32),
}  # fmt: skip
