"""Choose the networks, batches and numbers of clients that are measured on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.settings.run import RunSettings


@dataclass(frozen=True, kw_only=True)
class Case:
    """Describe one network, its batches, and with how many clients it is measured."""

    model: str
    dataset: str
    image_size: int
    batch_size: int
    clients: tuple[int, ...]

    def settings(self, k: int, local_steps: int, **more: object) -> RunSettings:
        chosen = {
            "model": self.model,
            "dataset": self.dataset,
            "image_size": self.image_size if self.dataset == "imagenet" else None,
            "batch_size": self.batch_size,
            "total_batch_size": self.batch_size * k,
            "step1": local_steps,
            "steps_per_epoch": 64,
            "replacement": True,
            "wd": 5e-4,
        }
        return RunSettings.model_validate(chosen | more)


# K is measured in this order, as time may run out
ON_GPU = (
    Case(
        model="resnet56",
        dataset="cifar10",
        image_size=32,
        batch_size=128,
        clients=(1, 8, 32, 64, 2, 4, 16),
    ),
    Case(
        model="resnet50", dataset="imagenet", image_size=224, batch_size=32, clients=(1, 8, 64, 32)
    ),
)
DRY_RUN = (
    Case(model="resnet20", dataset="cifar10", image_size=32, batch_size=4, clients=(1, 2)),
    Case(model="resnet18", dataset="imagenet", image_size=32, batch_size=2, clients=(1,)),
)
