"""Score the averaged model, re-estimate its BatchNorm statistics, average the training loss."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.data.images import ImageSet
from trainer.data.training import TrainingSet
from trainer.errors import is_out_of_memory
from trainer.local_sgd.processes import Processes

# On a CPU, larger batches spend as much time on fresh memory as on arithmetic: ResNet-56 on 2,000
# images took 18 s at 1,000, 9 s at 250.
CPU_BATCH = 250
# Convolutions of fewer images at once leave their results in the caches: ResNet-56 evaluates 700
# images/s instead of 600. But each forward pass lays out all weights anew, so that ResNet-18 of 11
# million is slower. Products of matrices, in models without convolutions, would change their bits.
CPU_PASS = 50
FEW_WEIGHTS = 2**20
# What a GPU gets in one batch at most, in values of its images (256 MiB in float32): 445 images of
# 224 px, whose first convolution in ResNet-50 takes 1.4 GB; all 10,000 test images of CIFAR-10.
GPU_BATCH_VALUES = 2**26


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Hold accuracy and mean cross-entropy over all test samples, with clean labels.

    ``top5``: the share of samples whose class is among the model's five best.
    """

    accuracy: float
    top5: float
    loss: float


class Evaluator:
    """Score models on every test sample exactly once, shared by the processes.

    A GPU takes a process's whole share at once, up to a limit; where memory runs out, half, a
    quarter, …
    """

    def __init__(self, test: ImageSet, processes: Processes) -> None:
        self._test = test
        self._processes = processes
        self._own = np.arange(processes.rank, len(test), processes.size)  # disjoint and complete
        self.batch_size = CPU_BATCH
        if processes.device.type != "cpu":
            at_once = max(1, GPU_BATCH_VALUES // test.values_per_image)
            self.batch_size = min(max(1, len(self._own)), at_once)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> Scores:
        model.eval()
        totals = self._totals(model)
        while totals is None:
            self.batch_size = (self.batch_size + 1) // 2
            totals = self._totals(model)
        correct, among_five, loss, count = self._processes.all_sum(totals).tolist()
        total = len(self._test)
        assert count == total, f"evaluated {count} of {total} test samples"
        return Scores(accuracy=correct / count, top5=among_five / count, loss=loss / count)

    def _totals(self, model: nn.Module) -> Tensor | None:
        """Sum correct answers, those among the best five, losses and samples of this process.

        Returns None if memory runs out.
        """
        totals = torch.zeros(4, dtype=torch.float64, device=self._processes.device)
        size = self._pass_size(model)
        try:
            for images, labels in self._test.in_batches(self._own, self.batch_size):
                logits = torch.cat([model(part) for part in images.split(size)])
                best = logits.topk(min(5, logits.shape[1])).indices
                totals[0] += (logits.argmax(1) == labels).sum()
                totals[1] += (best == labels[:, None]).sum()
                totals[2] += F.cross_entropy(logits, labels, reduction="sum")
                totals[3] += len(labels)
        except RuntimeError as error:
            if self.batch_size == 1 or not is_out_of_memory(error):
                raise
            return None
        return totals

    def _pass_size(self, model: nn.Module) -> int:
        """Choose how many images of a batch are computed at once."""
        convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
        few = sum(p.numel() for p in model.parameters()) <= FEW_WEIGHTS
        on_cpu = self._processes.device.type == "cpu"
        return CPU_PASS if on_cpu and convolves and few else self.batch_size


class TrainLoss:
    """Accumulate this process's training loss on the device, without synchronising."""

    def __init__(self, processes: Processes, total: float = 0.0, steps: int = 0) -> None:
        """Start from the ``total`` of the clients' losses over ``steps`` steps, all finite."""
        self._processes = processes
        self._sum = torch.tensor(total, dtype=torch.float64, device=processes.device)
        self.steps = steps
        self._finite_steps = torch.tensor(steps, device=processes.device)

    @property
    def total(self) -> float:
        return self._sum.item()

    def add(self, losses: Tensor) -> None:
        """Add the clients' losses (clients,) of one step."""
        self._sum += losses.sum()
        self._finite_steps += self._sum.isfinite()
        self.steps += 1

    def finite_steps(self) -> int:
        """Count the steps before the first loss of any client that was not finite."""
        return self._processes.all_min(int(self._finite_steps))

    def mean(self, num_clients: int) -> float | None:
        """Return the mean over all K clients and the steps since the last call; start anew."""
        if self.steps == 0:
            return None
        total = self._processes.all_sum(self._sum).item()
        mean = total / (self.steps * num_clients)
        self._sum.zero_()
        self._finite_steps.zero_()
        self.steps = 0
        return mean


@torch.no_grad()
def reestimate_batchnorm(
    model: nn.Module,
    training: TrainingSet,
    processes: Processes,
    *,
    seed: int,
    step: int,
    num_batches: int,
    batch_size: int,
) -> None:
    """Set BatchNorm statistics to the cumulative mean over ``num_batches`` training batches.

    The batches are a function of (seed, step); the processes share them and average the results.
    All other layers are in evaluation mode: dropout would widen the statistics.
    """
    layers = [m for m in model.eval().modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        layer.train()
        layer.reset_running_stats()
    own = slice(processes.rank, num_batches, processes.size)
    batches = training.batchnorm_images(seed, step, num_batches, batch_size, own)
    for count, images in enumerate(batches, 1):
        for layer in layers:
            # The cumulative mean; by momentum None PyTorch would read its count from the GPU.
            layer.momentum = 1 / count
        model(images)
    statistics = []
    for layer in layers:
        assert layer.running_mean is not None and layer.running_var is not None
        assert layer.num_batches_tracked is not None
        statistics += [layer.running_mean, layer.running_var]
        layer.num_batches_tracked.fill_(num_batches)
    weight = len(range(num_batches)[own]) / num_batches
    flat = processes.all_sum(torch.cat([weight * buffer for buffer in statistics]))
    parts = flat.split([len(buffer) for buffer in statistics])
    for buffer, part in zip(statistics, parts, strict=True):
        buffer.copy_(part)
