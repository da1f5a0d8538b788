"""Prepare the digits by the real commands, and choose options to train on them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any


def prepare_digits(folder: Path) -> None:
    """Write ``train.beton`` and ``test.beton`` to ``folder``."""
    for step in (["prepare", "--out", str(folder)], ["beton", "--data-pth", str(folder)]):
        subprocess.run([sys.executable, "-m", "trainer", *step], check=True, capture_output=True)


def digits_options(**options: Any) -> list[str]:
    """Build options of ``python -m trainer train`` for the laptop scale's data set and model."""
    chosen = {"dataset": "digits", "model": "mlp", "device": "cpu"} | options
    return [word for name, value in chosen.items() for word in (f"--{name}", str(value))]
