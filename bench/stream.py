"""Measure photographs decoded, cropped, resized, flipped and normalised per second and core.

JPEG files of 500 × 375 pixels, cut from the photographs of scikit-image and scikit-learn, become
random resized crops of 224 pixels, as for ImageNet. All on one core, since FFCV decodes in a thread
of its own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from bench.input import ffcv_loader, images_per_second
from bench.measure import Record, Target, measure_interleaved, ratios, spreads
from trainer.data.beton.sidecar import ImageEncoding
from trainer.data.beton.writer import write_betons
from trainer.data.preparation.photos import PHOTOS, load_photo
from trainer.data.preparation.prepare import prepare
from trainer.data.specs import IMAGENET
from trainer.run.build import load_data
from trainer.settings.run import RunSettings

HEIGHT, WIDTH, OF_EACH = 375, 500, 32
BATCH_SIZE, BATCHES = 32, 10  # all images
IMAGENET_IMAGES = 1_281_167
# Share of JPEG among the images: all, as in the folder; and the paper's
SHARES = (1.0, 0.5)


def run(repetitions: int) -> Iterator[Record]:
    before, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_photographs(Path(folder) / "images")
            for share in SHARES:
                yield from measure_share(Path(folder), share, repetitions)
    finally:
        torch.set_num_threads(before)  # other benchmarks follow in this process
        os.sched_setaffinity(0, cores)


def measure_share(folder: Path, share: float, repetitions: int) -> Iterator[Record]:
    source, betons = folder / "images", folder / f"betons-{share}"
    prepare("imagefolder", betons, source)
    write_betons(betons, ImageEncoding(compress_probability=share))
    torch.set_num_threads(1)  # importing ffcv changes it
    settings = RunSettings(
        dataset="imagefolder", num_classes=len(PHOTOS), model="resnet50", data_pth=betons,
        batch_size=BATCH_SIZE, total_batch_size=BATCH_SIZE, device="cpu",
    )  # fmt: skip
    training, _ = load_data(settings, torch.device("cpu"))
    passes = count()
    # One finite pass: a training's batches would be decoded ahead while other variants run.
    own = partial(training.batchnorm_images, 0, num_batches=BATCHES, batch_size=BATCH_SIZE)
    plain = DataLoader(
        ImageFolder(str(source / "train"), torchvision_transforms()), BATCH_SIZE, shuffle=True
    )
    ffcv = cropped_by_ffcv(betons / "train.beton")
    variants: dict[str, Callable[[], float]] = {
        "trainer": lambda: images_per_second(own(next(passes), own=slice(BATCHES)), side=224),
        "torchvision": lambda: images_per_second((images for images, _ in plain), side=224),
        "FFCV": lambda: images_per_second((images for images, _ in ffcv), side=224),
    }
    values = measure_interleaved(variants, repetitions)
    about = {
        "images": f"{OF_EACH * len(PHOTOS)} of {WIDTH} × {HEIGHT}", "JPEG": share,
        "batch": BATCH_SIZE, "cores": 1,
    }  # fmt: skip
    record = partial(Record, unit="images/s", settings=about)
    name = f"stream: {share:.0%} JPEG"
    for other, target in (("torchvision", None), ("FFCV", Target(bound=0.97))):
        yield record(
            benchmark=f"{name}, against {other}",
            variants={n: s for n, s in spreads(values).items() if n in ("trainer", other)},
            figure_is=f"trainer ÷ {other}",
            figure=ratios(values, "trainer", other),
            target=target,
        )
    hours = {"trainer": [IMAGENET_IMAGES / speed / 3600 for speed in values["trainer"]]}
    yield record(
        benchmark=f"{name}, projected",
        unit="core hours",
        variants=spreads(hours),
        figure_is="core hours for an epoch of ImageNet, were its images like these, and in memory",
        figure=spreads(hours)["trainer"],
    )


def write_photographs(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for name in PHOTOS:
        photo = Image.fromarray(load_photo(name))
        scale = max(1.0, 1.2 * HEIGHT / photo.height, 1.2 * WIDTH / photo.width)
        photo = photo.resize((round(scale * photo.width), round(scale * photo.height)))
        for split, images in (("train", OF_EACH), ("val", 1)):
            (folder / split / name).mkdir(parents=True)
            for i in range(images):
                left = int(draw.integers(photo.width - WIDTH + 1))
                top = int(draw.integers(photo.height - HEIGHT + 1))
                part = photo.crop((left, top, left + WIDTH, top + HEIGHT))
                part.save(folder / split / name / f"{i:03}.jpg", quality=90)


def torchvision_transforms() -> transforms.Compose:
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET.mean, IMAGENET.std),
        ]
    )


def cropped_by_ffcv(beton: Path) -> Iterable[Any]:
    from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
    from ffcv.transforms import RandomHorizontalFlip

    operations = [RandomResizedCropRGBImageDecoder((224, 224)), RandomHorizontalFlip()]
    return ffcv_loader(beton, BATCH_SIZE, IMAGENET, operations)
