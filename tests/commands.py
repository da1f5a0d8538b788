"""Commands of the environment under test."""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


# Runs the trainer in processes that torchrun forks
FORKED = ("--start-method", "fork", "--run-path", ROOT / "trainer" / "__main__.py")
# What the trainer and torchrun take seconds to import
IMPORTED = [
    "torch.distributed.run",
    "trainer.__main__",
    "trainer.run.session",
    "trainer.data.preparation.prepare",
    "trainer.data.beton.writer",
]


def command(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command of the environment under test with one thread per process."""
    return subprocess.run(
        [str(a) for a in arguments], cwd=cwd, env=environment(), capture_output=True, text=True
    )


def trainer(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """``python -m trainer``, with its imports done."""
    return forked("trainer.__main__", arguments, cwd)


def torchrun(
    processes: int, *arguments: object, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run the trainer under torchrun, as the workflow does on the CPU, with imports preloaded."""
    launch = ("--standalone", "--nproc-per-node", processes, *FORKED, *arguments)
    return forked("torch.distributed.run", launch, cwd)


def forked(
    module: str, arguments: Sequence[object], cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a module's ``main`` in a fork that has the trainer's imports preloaded."""
    words = [str(a) for a in arguments]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        given = (module, words, cwd, environment(), out, err)
        process = _forks().Process(target=_run, args=given)
        process.start()
        process.join()
        assert process.exitcode is not None
        said = [text.read_text() if text.exists() else "" for text in (out, err)]
    return subprocess.CompletedProcess([module, *words], process.exitcode, *said)


def environment() -> dict[str, str]:
    """Put this environment's programs first; one thread per process."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}


@cache
def _forks() -> ForkServerContext:
    """Forks of a process that has imported, and done, nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    before = dict(os.environ)
    os.environ |= environment()
    try:
        ensure_running()
    finally:
        os.environ.clear()
        os.environ |= before
    return context


def _run(
    module: str, words: list[str], cwd: Path, environment: dict[str, str], out: Path, err: Path
) -> None:
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ |= environment
    multiprocessing.set_start_method("fork", force=True)  # as where nothing was said
    program = importlib.import_module(module)
    sys.argv = [str(program.__file__), *words]
    try:
        sys.exit(program.main(words))
    finally:
        atexit._run_exitfuncs()
