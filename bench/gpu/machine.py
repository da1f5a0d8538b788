"""Describe the machine, and name the packages that it lacks with what is left out for them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from typing import Any

import torch

from trainer.distributed.gpu_lease import find_driver
from trainer.errors import UserError
from trainer.tracking.provenance import provenance

# Of the packages that a machine with PyTorch of its own may lack, what needs each of them
OPTIONAL = {
    "ffcv": "streaming image files to the GPU, and writing .beton files",
    "pytest": "the tests",
    "torchvision": "ResNet-50",
    "scipy": "sharpness",
    "sklearn": "the stand-in of a dry run",
}
# What changes a GPU's results or timings from outside
ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG",
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "OMP_NUM_THREADS",
)  # fmt: skip


def check_driver() -> None:
    """Raise UserError for a GPU that PyTorch cannot use: nobody means a dry run there."""
    if not torch.cuda.is_available() and (driver := find_driver()):
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        raise UserError(
            f"an NVIDIA driver is installed ({driver}), but torch {torch.__version__}, built "
            f"{built}, can use no GPU; set PYTHON to one whose torch fits the driver, or "
            "CUDA_VISIBLE_DEVICES='' for a dry run on the CPU"
        )


def describe() -> dict[str, Any]:
    """Describe code, versions, GPUs and defaults of arithmetic; without a GPU, a dry run's."""
    about = provenance(0.0, 1, 1, "cuda" if torch.cuda.is_available() else "cpu", "")
    return {
        "dry_run": not torch.cuda.is_available(),
        **{key: about[key] for key in ("git_commit", "git_dirty", "versions", "machine")},
        "torch": {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32_in_convolutions": torch.backends.cudnn.allow_tf32,
            "tf32_in_products": torch.backends.cuda.matmul.allow_tf32,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
        },
        "gpus": [_gpu(i) for i in range(torch.cuda.device_count())],
        "nvidia_smi": _nvidia_smi(),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "cores": len(os.sched_getaffinity(0)),
        "missing": {name: what for name, what in OPTIONAL.items() if not installed(name)},
    }


def fingerprint(about: dict[str, Any]) -> list[Any]:
    """Say whose results may be put together: those of the same code, torch and GPU."""
    gpus = [gpu["name"] for gpu in about["gpus"]]
    return [about["dry_run"], about["git_commit"], about["versions"].get("torch"), gpus]


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _gpu(index: int) -> dict[str, Any]:
    of = torch.cuda.get_device_properties(index)
    return {
        "name": of.name,
        "gigabytes": round(of.total_memory / 1e9, 1),
        "compute_capability": f"{of.major}.{of.minor}",
        "multiprocessors": of.multi_processor_count,
    }


def _nvidia_smi() -> str | None:
    """Return driver, clocks and limits, on which every timing depends."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = (
        "driver_version,clocks.max.sm,power.limit,persistence_mode,compute_mode,mig.mode.current"
    )
    words = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv"]
    done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout.strip() or None
