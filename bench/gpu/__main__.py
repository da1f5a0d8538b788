"""Check and measure on a GPU: ``make gpu``, ``python -m bench.gpu --help``.

Imports nothing before it knows that all is there; Python 3.8 runs it so far, to be told its age.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys

PYTHON, PYDANTIC = (3, 11), (2, 12)
# What the trainer imports; docs/gpu.md lists what may be missing besides.
REQUIRED = ("torch", "numpy", "pydantic", "yaml", "tqdm", "psutil", "filelock")
# Both let products of matrices round to TF32, against PyTorch's default; NVIDIA's images set one.
# https://docs.pytorch.org/docs/stable/notes/cuda.html, "TensorFloat-32 (TF32)"
ROUNDING = ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")


def unmet() -> str | None:
    """Say what this Python lacks; None if it has all that is needed."""
    if sys.version_info < PYTHON:
        return f"is Python {_dotted(sys.version_info[:2])}, older than {_dotted(PYTHON)}"
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        return f"lacks {', '.join(missing)}"
    pydantic = importlib.metadata.version("pydantic")
    if tuple(map(int, pydantic.split(".")[:2])) < PYDANTIC:
        return f"has pydantic {pydantic}, older than {_dotted(PYDANTIC)}"
    return None


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def main() -> int:
    if reason := unmet():
        print(f"error: {sys.executable} {reason}; install it, or set PYTHON", file=sys.stderr)
        return 2
    for name in ROUNDING:  # before torch reads them
        if name in os.environ:
            print(f"note: {name}={os.environ.pop(name)} is not used: docs/gpu.md, TF32")
    from bench.gpu import call
    from trainer.command_line import exit_status

    return exit_status(call.main)


if __name__ == "__main__":
    sys.exit(main())
