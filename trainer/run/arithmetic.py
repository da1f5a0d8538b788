"""Choose how a GPU computes float32 where PyTorch's defaults do not suit a run: docs/gpu.md."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute convolutions within the context in float32, not in TF32, PyTorch's default on GPUs.

    https://docs.pytorch.org/docs/stable/notes/cuda.html, "TensorFloat-32 (TF32)". Changes nothing
    on CPUs.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
