"""Show on stderr how far a run is."""

import time

from tqdm import tqdm

from trainer.errors import report
from trainer.tracking.metrics import Evaluation

PROGRESS_SECONDS = 10.0


class Progress:
    """Show on stderr how far the run is and how long it will take, as a bar or in lines."""

    def __init__(self, total: int, done: int = 0) -> None:
        self._total = total
        self._done = done
        self._start = time.monotonic()
        self._next = self._start + PROGRESS_SECONDS
        # None: no bar where stderr is no terminal.
        self._bar = tqdm(total=total, initial=done, unit="step", disable=None)
        self._accuracy = ""

    def evaluated(self, evaluation: Evaluation) -> None:
        self._accuracy = f"test accuracy {evaluation.test_accuracy:.4f}"
        self._bar.set_postfix_str(self._accuracy)

    def stepped(self, step: int) -> None:
        """Show that ``step`` steps are done."""
        if not self._bar.disable:
            self._bar.update(step - self._bar.n)
        elif time.monotonic() >= self._next or step == self._total:
            self._next = time.monotonic() + PROGRESS_SECONDS
            elapsed = time.monotonic() - self._start
            meter = tqdm.format_meter(
                step,
                self._total,
                elapsed,
                unit="step",
                postfix=self._accuracy,
                ncols=100,
                initial=self._done,
            )
            report(meter)

    def close(self) -> None:
        self._bar.close()
