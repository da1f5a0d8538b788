"""Start the servers whose forks run a Snakemake's jobs, and end them with it."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from workflow.campaign import Campaign
from workflow.forks.__main__ import SERVERS
from workflow.shell import job_environment


class ForkServers:
    """Hold the servers of ``modules``. A killed Snakemake ends them, too: their input closes."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules
        self._servers: list[subprocess.Popen[bytes]] = []
        self._folder: Path | None = None

    def start(self, environment: Mapping[str, str]) -> None:
        """Start them, with ``environment`` besides this process's, for the jobs started later.

        Where that fails, jobs do without.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="forks-"))
        for module in self._modules:
            with socket.socket(socket.AF_UNIX) as listener:
                try:
                    listener.bind(str(self._folder / module))
                    listener.listen(128)
                    self._servers.append(_start(module, listener, environment))
                except OSError:  # TMPDIR is too long for a socket's name, or there is no python
                    continue
        os.environ[SERVERS] = str(self._folder)

    def stop(self) -> None:
        """End the servers, whose forks have ended."""
        for server in self._servers:
            assert server.stdin
            server.stdin.close()
            server.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def start_servers(campaign: Campaign) -> None:
    """Start what this Snakemake's jobs are forked from; CUDA does not survive a fork."""
    training = ["trainer.launch"] if campaign.execution.device == "cpu" else []
    servers = ForkServers(["workflow.analysis", *training])
    servers.start(job_environment())
    atexit.register(servers.stop)


def _start(
    module: str, listener: socket.socket, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["python", "-m", "workflow.forks.server", module, str(listener.fileno())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **environment},
        pass_fds=[listener.fileno()],
        start_new_session=True,  # the terminal's Ctrl-C reaches forks through their clients alone
    )
