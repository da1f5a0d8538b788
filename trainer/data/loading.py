"""Prepare batches ahead of the training that uses them, and move them to its device."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

T = TypeVar("T")
U = TypeVar("U")


def prefetch(function: Callable[[T], U], items: Iterator[T], workers: int) -> Iterator[U]:
    """Compute ``map(function, items)`` in ``workers`` threads, each at most one result ahead.

    Results and their order are those of 0 workers. Only the caller's thread iterates over
    ``items``.
    """
    if workers == 0:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="loader") as pool:
        pending = deque(pool.submit(function, item) for item in islice(items, workers))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result


def to_device(array: NDArray[np.int64], device: torch.device) -> Tensor:
    """Copy ``array`` to ``device``, to a GPU without blocking."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
