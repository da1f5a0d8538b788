"""Measure the peak memory of one process that trains ResNet-56 with K = 32 clients.

The whole command is measured, start to end. The bound is the parameters of 32 clients, the
activations of one (as its backward pass needs them) and 300 MB; ``import torch`` alone is reported
separately, since with CUDA's libraries it exceeds the 300 MB.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from bench.input import write_random_images
from bench.measure import Record, Spread, Target
from bench.rounds import benchmark_settings
from trainer.run.build import load_data, make_bank, make_sampler
from trainer.run.execution import SERIAL
from trainer.settings.run import RunSettings

CLIENTS, BATCH_SIZE, STEPS = 32, 128, 2
MB = 1e6
PEAK = "peak of the process"
PRINT_PEAK = "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"  # in KiB
TRAINER = f"from trainer.__main__ import main; failed = main(); {PRINT_PEAK}; exit(failed)"


def run(repetitions: int) -> Iterator[Record]:
    """Measure at most three runs, since a run's peak hardly varies."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_random_images(folder)
        settings = benchmark_settings(
            "cifar10",
            folder,
            model="resnet56",
            k=CLIENTS,
            batch_size=BATCH_SIZE,
            local_steps=STEPS,
        )
        parts = expected_megabytes(settings)
        peaks = [measure_peak_megabytes(settings) for _ in range(min(3, repetitions))]
        imports = [
            1024 * int(read_last_line([sys.executable, "-c", f"import torch; {PRINT_PEAK}"])) / MB
            for _ in peaks
        ]
    required = sum(parts.values())
    variants = {PEAK: Spread.of(peaks), "import torch": Spread.of(imports)}
    variants |= {part: Spread.of([value]) for part, value in parts.items()}
    beyond = [peak - required for peak in peaks]
    beyond_torch = [more - torch for more, torch in zip(beyond, imports, strict=True)]
    for name, figure in (("import torch included", beyond), ("import torch apart", beyond_torch)):
        yield Record(
            benchmark=f"memory: ResNet-56, K = 32, B_loc = 128, 1 process, {name}",
            unit="MB",
            variants=variants,
            figure_is="beyond parameters and activations, MB",
            figure=Spread.of(figure),
            target=Target(bound=300.0, at_most=True),
            settings={"H": STEPS, "steps": STEPS, "momentum": 0, "processes": 1},
        )


def expected_megabytes(settings: RunSettings) -> dict[str, float]:
    """Compute what the clients need, in MB."""
    device = torch.device("cpu")
    training, _ = load_data(settings, device)
    batch = next(training.batches(make_sampler(settings, len(training)), range(1), 0, 0))
    bank = make_bank(settings, 1, SERIAL, device)
    return {
        "parameters of 32 clients": CLIENTS * 4 * bank.parameters.size / MB,
        "activations of one": bank.activation_bytes(batch) / MB,
    }


def measure_peak_megabytes(settings: RunSettings) -> float:
    options = {
        "dataset": settings.dataset,
        "data-pth": settings.data_pth,
        "model": settings.model,
        "batch-size": settings.batch_size,
        "total-batch-size": settings.total_batch_size,
        "step1": STEPS,
        "replacement": 1,
        "steps-per-epoch": STEPS,
        "epochs": 1,
        "bn-batches": 2,
        "device": "cpu",
        "log-pth": settings.log_pth / "run",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return 1024 * int(read_last_line([sys.executable, "-c", TRAINER, "train", *arguments])) / MB


def read_last_line(command: Sequence[str]) -> str:
    """Run ``command`` and return the last line of its output."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[-1]
