"""Tensors to a file, by PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save(content: Any, path: Path) -> None:
    """``content`` as ``torch.save`` writes it. Raises OSError where the disk does not take it.

    Equal contents give equal files: given a name, PyTorch would write that into the file, too.
    """
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # of its zip's end, which hides what had come before
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
