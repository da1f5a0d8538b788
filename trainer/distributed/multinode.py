"""Start one launcher per node of a Slurm job, and configure how they find each other.

Their rendezvous is torchrun's ``c10d`` (https://docs.pytorch.org/docs/stable/elastic/run.html): the
first node's launcher keeps the store. Slurm's ``srun`` starts them, so that its signals, its
accounting and its limits reach the training.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import Sequence

import psutil

from trainer.distributed import slurm
from trainer.errors import UserError

STOPPING = (signal.SIGTERM, signal.SIGINT)
STOP = signal.SIGUSR1  # which srun passes on (https://slurm.schedmd.com/srun.html)
# Below the ports that Linux assigns itself (from 32768 on)
FIRST_PORT, PORTS = 16384, 16384
# After the first launcher ends, srun leaves the others this long: they give processes 30 s to save.
GRACE_SECONDS = 60


def start_on_nodes(nodes: int, words: Sequence[str]) -> int:
    """Start this launcher with ``words`` on each of ``nodes`` nodes; return its exit status.

    SIGTERM and SIGINT reach the training. Raises UserError if this process is in no Slurm job, or
    in one with fewer nodes, or if there is no srun.
    """
    if slurm.job_id() is None:
        raise UserError(
            f"--nnodes {nodes}: this is no Slurm job; start it by sbatch, or start torchrun on "
            "each node yourself, with --rdzv-backend c10d --rdzv-endpoint HOST:PORT"
        )
    addresses = slurm.node_addresses()
    if len(addresses) < nodes:
        raise UserError(
            f"--nnodes {nodes}: the Slurm job has {len(addresses)} node(s); ask for more (--nodes)"
        )
    # A job may train several runs at once: each gets a rendezvous and port of its own.
    rendezvous = f"{slurm.job_id()}-{zlib.crc32(' '.join(words).encode()):08x}"
    port = FIRST_PORT + zlib.crc32(rendezvous.encode()) % PORTS
    command = [
        "srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1",
        # This launcher may itself be in a step that holds the same CPUs and GPUs.
        "--overlap", "--cpu-bind=none", f"--wait={GRACE_SECONDS}",
        sys.executable, "-m", "trainer.launch", "--rdzv-backend", "c10d", "--rdzv-id", rendezvous,
        "--rdzv-endpoint", f"{addresses[0]}:{port}", *words,
    ]  # fmt: skip
    try:
        return _run_srun(command)
    except OSError as error:
        raise UserError(
            f"--nnodes {nodes}: srun cannot be started ({error.strerror}); add the folder of "
            "Slurm's programs to PATH"
        ) from None


def _run_srun(command: Sequence[str]) -> int:
    """Run ``command`` to its end, passing requests to stop on; return its exit status.

    At SIGTERM srun would kill the launchers, at a second Ctrl-C too. So they get `STOP` through it,
    and it is in a session of its own, which a terminal's Ctrl-C does not reach.
    """
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    before = {n: signal.signal(n, lambda *_: process.send_signal(STOP)) for n in STOPPING}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def configure_rendezvous(arguments: argparse.Namespace) -> None:
    """Complete torchrun's arguments and the network interface on this node of several.

    From here on, `STOP` is a SIGTERM, which torchrun passes on to its processes.
    An interface that the user has named is kept (``GLOO_SOCKET_IFNAME``, ``NCCL_SOCKET_IFNAME``).
    """
    signal.signal(STOP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    address = _local_address(arguments.rdzv_endpoint)
    node = os.environ.get("SLURM_NODEID")
    if node is not None and "is_host" not in arguments.rdzv_conf:
        first = f"is_host={int(node == '0')}"
        arguments.rdzv_conf = ",".join(filter(None, (arguments.rdzv_conf, first)))
    arguments.local_addr = arguments.local_addr or address
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == address for one in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            # =: no others with this prefix
            os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")


def _local_address(endpoint: str) -> str:
    """Return this node's address on the network that reaches ``endpoint``, HOST:PORT."""
    host, _, port = endpoint.rpartition(":")
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)  # UDP: sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UserError(
            f"--rdzv-endpoint {endpoint}: cannot be reached from here ({error}); give HOST:PORT of "
            "the first node"
        ) from None
