"""A process of a run that no torchrun watches, as srun starts them; one of them fails.

It does so while the others wait for it in an all-reduce. ``seconds``: so long it then keeps its
connections open, so that they are not told by these.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from trainer.__main__ import main as train
from trainer.errors import UserError
from trainer.local_sgd.averaging import Averaging

REASON = "disk: it is broken"


def main(words: Sequence[str]) -> int:
    rank, size, port, failing, seconds, *rest = words
    os.environ |= {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    if rank != failing:
        return train(rest)
    average, calls = Averaging.__call__, 0

    def broken(self: Averaging, lr: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            time.sleep(0.5)
            raise UserError(REASON)
        average(self, lr)

    Averaging.__call__ = broken  # type: ignore[method-assign]
    status = train(rest)
    time.sleep(float(seconds))
    return status
