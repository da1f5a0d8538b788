"""What starts fast imports little: heavy libraries only where a run uses them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.commands import command

HEAVY = {"ffcv", "wandb", "scipy", "sklearn", "torchvision", "pandas", "matplotlib"}
SCRIPT = """
import json, sys
from trainer.__main__ import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:  # --help
    status = end.code
print(json.dumps([name for name in sys.modules if "." not in name]))
sys.exit(status)
"""


def imported(*arguments: object) -> set[str]:
    """List the top-level modules in memory when the trainer's command is done."""
    done = command(sys.executable, "-c", SCRIPT, *arguments)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_imports_no_torch() -> None:
    assert not imported("--help") & (HEAVY | {"torch", "numpy"})


def test_a_digits_run_imports_no_heavy_library_but_torch(digits: Path, tmp_path: Path) -> None:
    short = ["--epochs", 1, "--steps-per-epoch", 1]
    modules = imported("train", "--data-pth", digits, "--log-pth", tmp_path, *short)
    assert "torch" in modules
    assert not modules & HEAVY
