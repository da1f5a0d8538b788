"""What the trainer must know of a data set before it reads it. No heavy imports."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Shape, classes, normalisation and augmentation of one data set.

    ``mean`` and ``std`` are per channel, of pixels scaled to [0, 1]. ``padding`` is that of the
    random crop in pixels; ``flip`` says whether a mirrored image keeps its class.
    """

    classes: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int
    flip: bool


DATASETS = {
    # scikit-learn's 8×8 digits: 0…16 grey levels, stored × 15. Mean and std are of all 1,797.
    "digits": DatasetSpec(
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
        classes=(
            "airplane", "automobile", "bird", "cat", "deer",
            "dog", "frog", "horse", "ship", "truck",
        ),
        channels=3,
        image_size=32,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        padding=4,
        flip=True,
    ),
}  # fmt: skip
