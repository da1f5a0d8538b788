"""Mark what only some machines can show, with the reason why another skips it."""

import os
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
needs_two_gpus = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason=f"needs two GPUs, found {torch.cuda.device_count()}"
)
# Triton compiles what launches its kernels, with Python's headers: triton/runtime/build.py
_compilers = [os.environ.get("CC", ""), "gcc", "clang"]
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, _compilers))
    or not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="needs gcc or clang and Python's headers (python3-dev), for Triton",
)
