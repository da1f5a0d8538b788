"""Join the store of a run's processes, and explain errors of their communication."""

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import psutil
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from trainer.distributed.launcher_variables import FIX, LauncherVariables
from trainer.errors import UserError, is_out_of_memory, report

QUIET_SECONDS = 10.0
POLL_SECONDS = 0.2
# After its timeout PyTorch may wait on, if something else than a store listens at the port.
MARGIN_SECONDS = 5.0
AGAIN = "start the run again: it resumes from its last checkpoint"
TAKEN = re.compile("EADDRINUSE|address already in use", re.IGNORECASE)
# Explanations and fixes by what gloo, NCCL and PyTorch's stores report; the first match counts.
REASONS = {
    r"unable to find (address|interface)|no socket interface": (
        "a network interface is not there, or has no address",
        "correct or unset GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME (ip -brief address lists them)",
    ),
    TAKEN.pattern: ("a port or address is taken", f"end what uses it, and {AGAIN}"),
    r"closed by peer|reset by peer|broken pipe|socket closed|connection was likely closed|"
    r"remote process exited": ("another process has died", f"see what it said above, and {AGAIN}"),
    r"time(d )?out": (
        "another process does not answer within timeout",
        f"raise timeout if it is only slow; else {AGAIN}",
    ),
    r"refused|unreachable|no route to host|cannot assign requested address": (
        "another process cannot be reached",
        "check the network between the nodes, or name its interface (GLOO_SOCKET_IFNAME, "
        "NCCL_SOCKET_IFNAME)",
    ),
    r"gloo|nccl|c10d|tcpstore": ("processes cannot exchange what they must", AGAIN),
}


@contextmanager
def peer_failures_as_user_errors() -> Iterator[None]:
    """Turn errors of communication into UserErrors, but not a lack of memory, nor bugs."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        for sign, (what, fix) in REASONS.items():
            if re.search(sign, str(error), re.IGNORECASE):
                raise UserError(f"{what} ({error}); {fix}") from None
        raise


def wait_for_forked_siblings(own: LauncherVariables) -> None:
    """Block until torchrun, if it forks its processes, has forked all of this machine's.

    The first to connect to its store makes a thread of torchrun look up names, under a lock of the
    C library; a process that is forked meanwhile would find the lock taken for ever.
    """
    deadline = time.monotonic() + QUIET_SECONDS
    with suppress(psutil.Error):
        words = psutil.Process().cmdline()
        launcher = psutil.Process(os.getppid())
        if launcher.cmdline() != words:  # started anew, not forked
            return
        while time.monotonic() < deadline:
            siblings = [child for child in launcher.children() if child.cmdline() == words]
            if len(siblings) >= own.local_size:
                return
            time.sleep(POLL_SECONDS / 10)


def join_store(own: LauncherVariables, timeout: timedelta) -> Store:
    """Return the store of the run, once all processes have joined it.

    Raises UserError if they have not after ``timeout``, or cannot.
    """
    found: list[Store | Exception] = []
    wait_for_forked_siblings(own)
    seconds = timeout.total_seconds()
    limit = seconds + MARGIN_SECONDS

    def join() -> None:
        try:
            _wait_for_address(own, time.monotonic() + seconds)
            found.append(next(rendezvous("env://", timeout=timeout))[0])
        except Exception as error:
            found.append(error)

    waiting = threading.Thread(target=join, name="rendezvous", daemon=True)
    waiting.start()
    waiting.join(min(limit, QUIET_SECONDS))
    if not found and limit > QUIET_SECONDS:
        report(f"waiting: {_describe_wait(own)}")
        waiting.join(limit - QUIET_SECONDS)
    store = found[0] if found else TimeoutError("what answers there is no store")
    if isinstance(store, Exception):
        raise _rendezvous_error(own, seconds / 60, store) from None
    # torchrun's store outlives a restart, with what the earlier processes left in it.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"attempt {attempt}", store)


def _wait_for_address(own: LauncherVariables, deadline: float) -> None:
    """Wait until the address answers; OSError after ``deadline``.

    PyTorch would wait, too, but end with a page of addresses.
    """
    while True:
        try:
            socket.getaddrinfo(own.address, own.port)
            if own.rank > 0:  # the main process may keep the store
                socket.create_connection((own.address, own.port), timeout=POLL_SECONDS).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)


def _describe_wait(own: LauncherVariables) -> str:
    return (
        f"process {own.rank} of {own.size} waits for the others at {own.address}:{own.port} "
        "(RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT)"
    )


def _rendezvous_error(own: LauncherVariables, minutes: float, error: Exception) -> UserError:
    said = str(error).partition("\n")[0]
    if TAKEN.search(said):
        return UserError(f"environment: MASTER_PORT {own.port} is taken; choose another")
    try:
        socket.getaddrinfo(own.address, own.port)
    except OSError as unknown:
        return UserError(
            f"environment: MASTER_ADDR {own.address} is no machine ({unknown.strerror}); {FIX}"
        )
    return UserError(
        f"{_describe_wait(own)}, and they have not met within timeout {minutes:g} minutes "
        f"({said}); start all of them, or unset WORLD_SIZE, RANK and LOCAL_RANK to train with one "
        "process"
    )
