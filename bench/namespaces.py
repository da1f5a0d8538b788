"""Two network namespaces joined by a link of limited bandwidth: two machines of one's own."""

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
# Little, so that short messages have no more than the rate either; no less than a frame.
BURST_BYTES = 4096
GRACE_SECONDS = 5.0


class NoLinkError(Exception):
    """This machine lets us make no such link; the message is one line."""


@dataclass(frozen=True)
class Link:
    """Its two ends are 0 and 1, with ``ADDRESSES`` on ``INTERFACE``."""

    namespaces: tuple[str, str]

    @contextmanager
    def started(
        self, end: int, command: Sequence[object], environment: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[str]]:
        """``command`` at one end, its stdout and stderr in one pipe; it and what it started end
        with the context."""
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
            _end(process)
            _stream(process).close()


@contextmanager
def link(mbits: int | None) -> Iterator[Link]:
    """A link of ``mbits`` Mbit/s each way, removed at the end, also after Ctrl-C or SIGTERM.

    None: as fast as the kernel copies.

    Raises NoLinkError without root, ``ip`` or ``tc``, or where the kernel refuses.
    """
    if os.geteuid() != 0:
        raise NoLinkError("network namespaces need root")
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise NoLinkError(f"there is no `{tool}`; install iproute2")
    about = f"bench-{os.getpid()}-{mbits or 'unlimited'}"
    names = (f"{about}-0", f"{about}-1")
    with _sigterm_is_an_exception(), ExitStack() as made:
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
                if mbits is not None:
                    limit = ("rate", f"{mbits}mbit", "burst", BURST_BYTES, "latency", "100ms")
                    _run("tc", "-n", name, "qdisc", "add", "dev", INTERFACE, "root", "tbf", *limit)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip().splitlines() or ["no reason given"]
            raise NoLinkError(f"`{' '.join(error.cmd)}` failed: {reason[-1]}") from None
        yield Link(names)


def _run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)


def _remove(namespace: str) -> None:
    """The namespace and, with it, its end of the link, whatever became of the processes in it."""
    left = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True)
    for process in left.stdout.split():
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(int(process), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", namespace], check=False)


def _end(process: subprocess.Popen[str]) -> None:
    """It and the processes of its session, which it leads."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, how)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def _stream(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


@contextmanager
def _sigterm_is_an_exception() -> Iterator[None]:
    """As Ctrl-C is: else the process would end without cleaning up."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
