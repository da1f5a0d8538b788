"""Tiny runs that differ in one option, and which options the tests of this kind cover."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.distributed.world import World
from trainer.run.build import load_data, make_sampler
from trainer.run.session import train
from trainer.settings.run import RunSettings

WORLD = World(0, 1, torch.device("cpu"))
COVERED: set[str] = set()
Test = Callable[..., None]


def covers(*names: str) -> Callable[[Test], Test]:
    COVERED.update(names)
    return lambda test: test


class Trained:
    """A run of 4 epochs of 5 steps: K = 4 clients of B_loc = 8, H = 2, η = 0.04; float64."""

    def __init__(self, data: Path, folder: Path, **changes: object) -> None:
        self.settings = configured(data, log_pth=folder, **changes)
        train(self.settings, WORLD)
        self.folder = folder
        lines = ((self.settings.out or folder) / "metrics.jsonl").read_text().splitlines()
        self.metrics: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def column(self, key: str) -> list[Any]:
        return [line[key] for line in self.metrics]

    def state(self, name: str = "model.pt") -> dict[str, Tensor]:
        state: dict[str, Tensor] = torch.load(self.folder / name, weights_only=True)
        return state


def configured(data: Path, **changes: object) -> RunSettings:
    values: dict[str, object] = {
        "data_pth": data, "batch_size": 8, "total_batch_size": 32, "train_subset": 160,
        "epochs": 4, "step1": 2, "start_lr": 0.01, "wd": 0.0, "precision": "fp64", "seed": 5,
        "clients": "serial",  # one for all: equal runs are equal to the last bit
    }  # fmt: skip
    return RunSettings.model_validate(values | changes)


def first_batch(settings: RunSettings) -> tuple[Tensor, Tensor]:
    training, _ = load_data(settings, WORLD.device)
    sampler = make_sampler(settings, len(training))
    clients = range(settings.num_clients)
    batch = next(training.batches(sampler, clients, 0, settings.resume))
    return batch.images, batch.labels
