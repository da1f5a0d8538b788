"""Fork a process with its imports done for each job that ``python -m workflow.forks`` asks for.

``python -m workflow.forks.server MODULE FD`` listens at the socket FD until its standard input
closes, at the latest when the Snakemake that started it dies; then it waits for its forks. It
imports nothing heavy before the first request, whose environment variables (those of BLAS, say)
then hold. It refuses what a process of its own would run otherwise: with other variables or another
Python, or after a change of the code. A fork gets SIGTERM if its client or the server dies.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from trainer.distributed.torchrun import PR_SET_PDEATHSIG
from workflow.paths import ROOT

# What takes seconds to import of what the modules need, but not themselves: runpy would warn
IMPORTS = {
    "trainer.launch": (
        "torch.distributed.run",
        "trainer.__main__",
        "trainer.run.session",
        "numpy.random",
        # for the Hessian
        "scipy.sparse.linalg",
        "torch.fx.experimental.symbolic_shapes",
    ),
    "workflow.analysis": (
        "workflow.analysis.claims.judge",
        "workflow.analysis.figures.drawing",
        "workflow.analysis.pages.html",
        "workflow.analysis.tables.runs",
        "workflow.analysis.theory.figure",
    ),
}
# Variables of the shell that mean nothing to Python
VOLATILE = {"_", "SHLVL", "PWD", "OLDPWD"}
# Variables that count only at the start of Python
EARLY = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "LC_", "LANG")
REQUEST_SECONDS = 10.0


class RefusedError(Exception):
    """Report that a request must be run in a process of its own."""


@dataclass
class Job:
    """Hold a fork and the connection to its client; None once that is gone."""

    process: ForkProcess
    client: socket.socket | None


class Server:
    """Fork a process for each request for ``module``."""

    def __init__(self, module: str, listener: socket.socket) -> None:
        self._module = module
        self._listener: socket.socket | None = listener
        self._jobs: list[Job] = []
        self._code = stamp_code()
        self._environment: dict[str, str] | None = None

    def serve(self) -> None:
        """Serve until standard input closes and no fork is left."""
        while self._listener or self._jobs:
            ready = wait([*self._awaited()])
            for job in [job for job in self._jobs if job.process.sentinel in ready]:
                self._finish(job)
            for job in self._jobs:
                if job.client in ready:
                    _forward_signals(job)
            if self._listener in ready:
                self._accept()
            if self._listener and sys.stdin.fileno() in ready:
                self._close(self._listener)
                self._listener = None

    def _close(self, listener: socket.socket) -> None:
        """Refuse all from now on; leave no file where Snakemake was killed."""
        path = Path(listener.getsockname())
        listener.close()
        path.unlink(missing_ok=True)
        with suppress(OSError):  # another server is still there
            path.parent.rmdir()

    def _awaited(self) -> Iterator[Any]:
        if self._listener:
            yield from (self._listener, sys.stdin.fileno())
        for job in self._jobs:
            yield job.process.sentinel
            if job.client:
                yield job.client

    def _accept(self) -> None:
        assert self._listener
        client, _ = self._listener.accept()
        client.settimeout(REQUEST_SECONDS)
        streams: list[int] = []
        try:
            request, streams = _receive(client)
            self._check(request)
            process = get_context("fork").Process(
                target=self._run, args=(request, streams, client, os.getpid())
            )
            process.start()
        except (RefusedError, OSError, ValueError):
            client.close()  # which tells the client so
        else:
            self._jobs.append(Job(process, client))
        finally:
            for stream in streams:
                os.close(stream)

    def _check(self, request: dict[str, Any]) -> None:
        """Do the imports at the first request. Raises RefusedError if they do not hold for it."""
        environment = relevant(request["environment"])
        own = relevant(dict(os.environ))
        if self._environment is None:
            own, wanted = [
                {name: value for name, value in one.items() if name.startswith(EARLY)}
                for one in (own, environment)
            ]
        else:
            own, wanted = self._environment, environment
        if own != wanted or request["python"] != [sys.prefix, sys.version]:
            raise RefusedError
        if request["module"] != self._module or stamp_code() != self._code:
            raise RefusedError
        if self._environment is None:
            os.environ.clear()
            os.environ |= environment
            try:
                for name in IMPORTS.get(self._module, ()):
                    import_module(name)
            except Exception as error:  # which says more where the module is run
                raise RefusedError from error
            self._environment = environment

    def _run(
        self, request: dict[str, Any], streams: Sequence[int], client: socket.socket, server: int
    ) -> None:
        """Be the process that the client asked for."""
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != server:
            sys.exit(128 + signal.SIGTERM)
        assert self._listener
        # Copies would hide from others that the server is gone, or that their client is.
        for one in (self._listener, client, *(job.client for job in self._jobs)):
            if one is not None:
                one.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        # multiprocessing has put another in its place
        sys.stdin = open(0, closefd=False)  # noqa: SIM115, PLW1514
        os.chdir(request["folder"])
        os.umask(request["umask"])
        os.environ |= request["environment"]
        sys.argv = [self._module, *request["arguments"]]
        runpy.run_module(self._module, run_name="__main__", alter_sys=True)

    def _finish(self, job: Job) -> None:
        job.process.join()
        code = job.process.exitcode
        assert code is not None
        if job.client is not None:
            with suppress(OSError):  # the client has just gone
                job.client.sendall(b"%d\n" % (code if code >= 0 else 128 - code))
            job.client.close()
        self._jobs.remove(job)


def _receive(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive a request and the client's streams."""
    header, streams, _, _ = socket.recv_fds(client, 4, 3)
    with client.makefile("rb") as file:
        content = file.read(int.from_bytes(header, "big"))
    return json.loads(content), streams


def _forward_signals(job: Job) -> None:
    """Send a fork the signals that its client got, or SIGTERM if the client died."""
    assert job.client
    try:
        numbers = job.client.recv(64)
    except OSError:
        numbers = b""
    if not numbers:
        job.client.close()
        job.client = None
    for number in numbers or (signal.SIGTERM,):
        assert job.process.pid is not None
        os.kill(job.process.pid, number)


def relevant(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in VOLATILE}


def stamp_code() -> dict[str, tuple[int, int]]:
    """Map this project's modules, and the folders of installed packages, to time and size."""
    own = [path for part in ("trainer", "workflow") for path in ROOT.glob(f"{part}/**/*.py")]
    installed = [Path(folder) for folder in sys.path if folder.endswith("-packages")]
    found = {}
    for path in (*own, *installed):
        try:
            status = path.stat()
        except OSError:  # it has just been removed
            continue
        found[str(path)] = (status.st_mtime_ns, status.st_size)
    return found


def main() -> None:
    module, descriptor = sys.argv[1:]
    Server(module, socket.socket(fileno=int(descriptor))).serve()


if __name__ == "__main__":
    main()
