"""Fixtures for the checks of `make gpu`, which need torch, numpy and pytest; FFCV for one.

Without a GPU these checks compare the CPU with itself, so that what they do is tried; what only a
GPU can show is skipped and says so. Nothing here needs the fixtures of the other tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.gpu.betons import write_beton

ROOT = Path(__file__).resolve().parents[2]

# Read when CUDA starts: without it cuBLAS's sums may differ from one run to the next.
# https://docs.nvidia.com/cuda/cublas/#results-reproducibility
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    """Compute convolutions in float32 as on the CPU, not in TF32, whose fractions have 10 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Use deterministic kernels alone; an operation that has none raises an error."""
    before = torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = before


@pytest.fixture(scope="session")
def betons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write .beton files of CIFAR-10's shape: 128 random images to train, 64 to test."""
    folder = tmp_path_factory.mktemp("betons")
    draw = np.random.default_rng(0)
    for split, n in (("train", 128), ("test", 64)):
        images = draw.integers(0, 256, (n, 32, 32, 3), np.uint8)
        write_beton(folder / f"{split}.beton", images, np.arange(n) % 10)
    words = [sys.executable, "-m", "trainer", "sidecar", "--dataset", "cifar10", "--data-pth"]
    done = subprocess.run([*words, str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder
