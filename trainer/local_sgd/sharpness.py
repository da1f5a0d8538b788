"""Measure a minimum's sharpness: trace and largest eigenvalue of the training loss's Hessian.

The paper's mechanism is a drift towards flat minima (section 4); under label noise it is a gradient
flow on the Hessian's trace (section 5).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.data.images import ImageSet
from trainer.data.sampling import sharpness_subset
from trainer.errors import UserError, is_out_of_memory


@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """Describe the Hessian of the mean cross-entropy: clean labels, no weight decay."""

    trace: float
    largest_eigenvalue: float


def sharpness(
    model: nn.Module, training: ImageSet, *, samples: int, probes: int, seed: int
) -> Sharpness:
    """Measure ``model`` in evaluation mode on ``samples`` training images, drawn by ``seed``.

    The trace is Hutchinson's estimate with ``probes`` Rademacher vectors (Hutchinson 1989), the
    eigenvalue ARPACK's; both are functions of (model, samples, probes, seed) alone, and NaN if the
    Hessian is not finite. Raises UserError if memory runs out, or ARPACK finds no eigenvalue.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    chosen = sharpness_subset(seed, len(training), samples)
    with _blaming_samples(samples):
        product, size = hessian_product(model, training, chosen)

    def finite(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        with _blaming_samples(samples):
            hv = product(vector)
        if not np.isfinite(hv).all():
            raise FloatingPointError
        return hv

    draw = np.random.default_rng(seed)
    vectors = (draw.choice([-1.0, 1.0], size) for _ in range(probes))
    try:
        trace = float(np.mean([v @ finite(v) for v in vectors]))
        operator = LinearOperator((size, size), matvec=finite, dtype=np.float64)
        start = draw.standard_normal(size)
        if not finite(start).any():  # ARPACK rejects a Hessian of zeros
            return Sharpness(trace=trace, largest_eigenvalue=0.0)
        [largest] = eigsh(operator, k=1, which="LA", v0=start, return_eigenvectors=False)
    except FloatingPointError:
        return Sharpness(trace=math.nan, largest_eigenvalue=math.nan)
    except ArpackError as error:
        raise UserError(
            f"sharpness: the largest eigenvalue was not found ({error}); set sharpness 0"
        ) from None
    return Sharpness(trace=trace, largest_eigenvalue=float(largest))


@contextmanager
def _blaming_samples(samples: int) -> Iterator[None]:
    """Turn a lack of memory for the Hessian into a UserError: all ``samples`` are one batch."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"sharpness_samples {samples}: memory ran out ({error}); lower it"
        ) from error


def hessian_product(
    model: nn.Module, training: ImageSet, samples: NDArray[np.int64]
) -> tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], int]:
    """Return the map v ↦ Hv of the loss on ``samples``, and the number of parameters.

    Reverse mode twice: SiLU's backward pass has no forward mode, which libraries of Hessian
    operators require (curvlinops 3.0).
    """
    model.eval()
    parameters = list(model.parameters())
    with torch.enable_grad():
        [(images, labels)] = training.in_batches(samples, len(samples))
        loss = F.cross_entropy(model(images), labels)
        gradient = _flat(torch.autograd.grad(loss, parameters, create_graph=True))

    def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        v: Tensor = torch.from_numpy(vector.ravel()).to(gradient)
        columns = torch.autograd.grad(gradient, parameters, v, retain_graph=True)
        hv: NDArray[np.float64] = _flat(columns).double().cpu().numpy()
        return hv

    return product, gradient.numel()


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
