"""One launcher per node of a Slurm job, and how those find each other.

Their rendezvous is torchrun's ``c10d`` (https://docs.pytorch.org/docs/stable/elastic/run.html): the
first node's launcher keeps the store. Slurm's ``srun`` starts them, so that its signals, its
accounting and its limits reach the training.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import zlib
from collections.abc import Sequence

import psutil

from trainer.distributed import slurm
from trainer.errors import UserError

# Below the ports that Linux hands out by itself (32768 on)
FIRST_PORT, PORTS = 16384, 16384
# So long a launcher may outlive the first that ends: it gives its processes 30 s to save.
OUTLIVED_SECONDS = 60


def start_on_each(nodes: int, words: Sequence[str]) -> int:
    """This launcher with ``words``, once on each of so many nodes of the job; its exit status.

    Raises UserError where this process is in no job, or in a smaller one.
    """
    if slurm.job() is None:
        raise UserError(
            f"--nnodes {nodes}: this is no Slurm job; start it by sbatch, or start torchrun on "
            "each node yourself, with --rdzv-backend c10d --rdzv-endpoint HOST:PORT"
        )
    addresses = slurm.node_addresses()
    if len(addresses) < nodes:
        raise UserError(
            f"--nnodes {nodes}: the Slurm job has {len(addresses)} node(s); ask for more (--nodes)"
        )
    # A job may train several runs at once: each meets at a port of its own.
    meeting = f"{slurm.job()}-{zlib.crc32(' '.join(words).encode()):08x}"
    port = FIRST_PORT + zlib.crc32(meeting.encode()) % PORTS
    srun = [
        "srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1",
        # The step that this launcher may itself be in has the same CPUs and GPUs.
        "--overlap", "--cpu-bind=none", f"--wait={OUTLIVED_SECONDS}",
    ]  # fmt: skip
    launch = [
        sys.executable, "-m", "trainer.launch",
        "--rdzv-backend", "c10d", "--rdzv-id", meeting, "--rdzv-endpoint", f"{addresses[0]}:{port}",
    ]  # fmt: skip
    return subprocess.run([*srun, *launch, *words]).returncode


def meet(arguments: argparse.Namespace) -> None:
    """Completes what torchrun needs to know on this node of several.

    An interface that the user named stays (``GLOO_SOCKET_IFNAME``, ``NCCL_SOCKET_IFNAME``).
    """
    address = _own_address(arguments.rdzv_endpoint)
    node = os.environ.get("SLURM_NODEID")
    if node is not None and "is_host" not in arguments.rdzv_conf:
        first = f"is_host={int(node == '0')}"
        arguments.rdzv_conf = ",".join(filter(None, (arguments.rdzv_conf, first)))
    if arguments.local_addr is None:
        arguments.local_addr = address
    interface = _interface(address)
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")  # no others that begin so


def _own_address(endpoint: str) -> str:
    """The address that this node has where it reaches ``endpoint``, HOST:PORT."""
    host, _, port = endpoint.rpartition(":")
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)  # of UDP: sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UserError(
            f"--rdzv-endpoint {endpoint}: cannot be reached from here ({error}); give HOST:PORT of "
            "the first node"
        ) from None


def _interface(address: str) -> str | None:
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == address for one in addresses):
            return str(name)
    return None
