"""Batches prepared ahead of the training that uses them, and on their way to its device."""

from __future__ import annotations

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


def in_order(function: Callable[[T], U], items: Iterator[T], workers: int) -> Iterator[U]:
    """``map(function, items)``, computed by ``workers`` threads, each at most one result ahead.

    The results and their order are those of 0 workers. ``items`` is drawn from by the caller's
    thread alone.
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


def sent(array: NDArray[np.int64], device: torch.device) -> Tensor:
    """``array`` as a tensor on ``device``; nobody waits until a GPU has it (not tested on one)."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
