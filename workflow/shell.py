"""Write what the shells of the rules' jobs begin with, and how they start the trainer."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from workflow.paths import ROOT

# A failed job repeats the one line of its long log that gives the reason. A job that was stopped,
# and is to be retried, ends with status 75. Snakemake deletes the log before the next try, so a
# copy is kept.
SAY_WHY = (
    'say_why() { cat "$1" >> "${1%.log}.earlier.log" || true;'
    " if grep -a '^error:' \"$1\" | sort -u >&2; then return 1; fi;"
    " if grep -a '^stopped:' \"$1\" | sort -u >&2; then return 75; fi;"
    ' echo "error: unexpected, $1 ends with: $(tail -n 1 "$1")" >&2; return 1; }; '
)


def job_environment() -> dict[str, str]:
    """Return the variables that ``prefix`` sets."""
    packages = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": packages}


def find_own_python() -> None:
    """Put this interpreter's folder first on PATH, for jobs without an env of their own.

    Whoever calls ``.venv/bin/snakemake`` has not necessarily activated the environment.
    """
    folder, found = str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)
    if found.split(os.pathsep)[0] != folder:
        os.environ["PATH"] = os.pathsep.join([folder, found])


def prefix() -> str:
    """Write the start of every job's shell: this project's packages, strict errors, ``say_why``."""
    packages = f"PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"
    return f"export PYTHONSAFEPATH=1 {packages}; set -euo pipefail; {SAY_WHY}"


def entry_point(device: str) -> str:
    """Write torchrun's options that start the trainer.

    A forked process finds torch imported, which saves 2 s of a start of 5, and ends with torchrun
    even if that is killed; a single one is forked by a server (``workflow/forks``). CUDA does not
    survive a fork.
    """
    main = shlex.quote(str(ROOT / "trainer" / "__main__.py"))
    return f"--start-method fork --run-path {main}" if device == "cpu" else "-m trainer"
