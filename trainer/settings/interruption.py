"""The settings of a run that say what becomes of it when something comes between.

None of them decides its numbers.
"""

from __future__ import annotations

from trainer.settings.base import Settings, setting


class InterruptionSettings(Settings):
    """Checkpoints to go on from, an end before the end, other processes."""

    checkpoint_every: float = setting(
        10.0,
        "minutes between the checkpoints that a run started again goes on from; in the middle of a "
        "round only where it takes longer than that; 0: after every step",
        "interruptions",
        affects_results=False,
        ge=0,
    )
    time_limit: float | None = setting(
        None,
        "minutes after which the run saves a checkpoint and stops, with exit status 75; None: no "
        "limit",
        "interruptions",
        affects_results=False,
        gt=0,
    )
    wait: bool = setting(
        False,
        "where another process trains into log_pth: wait for its end instead of refusing",
        "interruptions",
        affects_results=False,
    )
    timeout: float = setting(
        30.0,
        "minutes that processes wait to meet, and then for one that does not answer, until they "
        "end the run",
        "interruptions",
        affects_results=False,
        gt=0,
        le=60 * 24 * 7,
    )
    allow_divergence: bool = setting(
        False,
        "a loss or parameters that are not finite end the run with a last line in metrics.jsonl "
        "that says so, instead of with an error",
        "interruptions",
        affects_results=False,
    )
