"""Run ``python -m MODULE ARGUMENTS …`` in a fork of Snakemake's server, which has its imports done.

``python -m workflow.forks MODULE ARGUMENTS …`` has the streams, signals and exit status of that
command. Without a server, or where it refuses (``workflow/forks/server.py``), or dies, the module
runs in this process. It imports little: it starts before each job, and in each rule's conda env.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

# Folder of the servers' sockets, each named after the module that it runs
SERVERS = "LOCAL_SGD_FORK_SERVERS"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STREAMS = (0, 1, 2)


class Forwarding:
    """Catch SIGINT and SIGTERM, and send their numbers to the server once it has the request."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._ready = False
        self.received: list[int] = []
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in self._before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, self._handle)

    def begin(self) -> None:
        self._ready = True
        self._send(bytes(self.received))

    def end(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if self._ready:
            self._send(bytes([number]))

    def _send(self, numbers: bytes) -> None:
        try:
            self._server.sendall(numbers)
        except OSError:  # the server has died, which ends its forks, too
            return


def run_in_fork(address: Path, module: str, arguments: list[str]) -> int | None:
    """Return the exit status of ``module`` in a fork; None if it must be run here instead."""
    with socket.socket(socket.AF_UNIX) as server:
        forwarding = Forwarding(server)
        try:
            status = _request(server, forwarding, address, module, arguments)
        except OSError:
            status = None
        finally:
            forwarding.end()
    if status is None and forwarding.received:  # a server that died has not told how this ended
        return 128 + forwarding.received[0]
    return status


def _request(
    server: socket.socket, forwarding: Forwarding, address: Path, module: str, arguments: list[str]
) -> int | None:
    umask = os.umask(0)
    os.umask(umask)
    request = {
        "python": [sys.prefix, sys.version],
        "module": module,
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "umask": umask,
    }
    content = json.dumps(request).encode()
    server.connect(str(address))
    socket.send_fds(server, [len(content).to_bytes(4, "big")], STREAMS)
    server.sendall(content)
    forwarding.begin()
    with server.makefile("rb") as answer:
        status = answer.readline()
    return int(status) if status.endswith(b"\n") else None


def main() -> int:
    module, *arguments = sys.argv[1:]
    folder = os.environ.get(SERVERS)
    if folder is not None:
        status = run_in_fork(Path(folder, module), module, arguments)
        if status is not None:
            return status
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
