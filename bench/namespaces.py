"""Join two network namespaces by a link of limited bandwidth, in place of two machines."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO

ADDRESSES = ("10.77.0.1", "10.77.0.2")
INTERFACE = "veth0"
# At least a frame, but small, so that the rate limits short messages too.
BURST_BYTES = 4096
GRACE_SECONDS = 5.0


class NoLinkError(Exception):
    """Report in one line why this machine cannot make such a link."""


@dataclass(frozen=True)
class Link:
    """Hold a link with ends 0 and 1, which have ``ADDRESSES`` on ``INTERFACE``."""

    namespaces: tuple[str, str]

    @contextmanager
    def start(
        self, end: int, command: Sequence[object], environment: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[str]]:
        """Start ``command`` at one end, with stdout and stderr in one pipe.

        Leaving the context ends it and the processes that it started.
        """
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespaces[end], *map(str, command)],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _terminate(process)
            _output(process).close()


@contextmanager
def create_link(mbits: int) -> Iterator[Link]:
    """Create a link of ``mbits`` Mbit/s each way and remove it at the end.

    Ctrl-C and SIGTERM remove it, too. Raises NoLinkError without root, ``ip`` or ``tc``, or where
    the kernel refuses.
    """
    if os.geteuid() != 0:
        raise NoLinkError("network namespaces need root")
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise NoLinkError(f"there is no `{tool}`; install iproute2")
    prefix = f"bench-{os.getpid()}-{mbits}"
    names = (f"{prefix}-0", f"{prefix}-1")
    with _sigterm_as_exit(), ExitStack() as made:
        try:
            for name in names:
                _run("ip", "netns", "add", name)
                made.callback(_remove, name)
            peer = ("type", "veth", "peer", "name", INTERFACE, "netns", names[1])
            _run("ip", "link", "add", INTERFACE, "netns", names[0], *peer)
            for name, address in zip(names, ADDRESSES, strict=True):
                _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", INTERFACE)
                for interface in ("lo", INTERFACE):
                    _run("ip", "-n", name, "link", "set", interface, "up")
                limit = ("rate", f"{mbits}mbit", "burst", BURST_BYTES, "latency", "100ms")
                _run("tc", "-n", name, "qdisc", "add", "dev", INTERFACE, "root", "tbf", *limit)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip().splitlines() or ["no reason given"]
            raise NoLinkError(f"`{' '.join(error.cmd)}` failed: {reason[-1]}") from None
        yield Link(names)


def _run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)


def _remove(namespace: str) -> None:
    """Remove the namespace with its end of the link, after killing the processes left in it."""
    left = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True)
    for process in left.stdout.split():
        with suppress(ProcessLookupError):  # it has ended since
            os.kill(int(process), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", namespace], check=False)


def _terminate(process: subprocess.Popen[str]) -> None:
    """End the process and its session, which it leads."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, how)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def _output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Raise SystemExit on SIGTERM within the context, so that the process cleans up."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
