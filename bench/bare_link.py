"""Measure a link without a trainer: ``python -m bench.bare_link ADDRESS BYTES`` at both ends.

Reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT as torch.distributed does; rank 0 prints one
line.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass

import torch
import torch.distributed as dist

PORT = 29600
TRANSFER_BYTES = 20_000_000
ALL_REDUCES = 100


@dataclass(frozen=True, kw_only=True)
class BareLink:
    """Hold the payload rate of one long TCP stream and the seconds of one all-reduce."""

    bytes_per_second: float
    all_reduce: float


def measure_bandwidth(rank: int, address: str) -> float:
    """Measure bytes per second from rank 0 to rank 1, until rank 1 acknowledges the last one."""
    if rank == 1:
        with socket.create_connection((address, PORT)) as stream:
            left = TRANSFER_BYTES
            while left:
                left -= len(stream.recv(1 << 20))
            stream.sendall(b"!")
        return float("nan")
    with socket.create_server((address, PORT)) as server:
        dist.barrier()
        stream, _ = server.accept()
        with stream:
            start = time.perf_counter()
            stream.sendall(bytes(TRANSFER_BYTES))
            stream.recv(1)
            return TRANSFER_BYTES / (time.perf_counter() - start)


def time_all_reduce(size: int) -> float:
    """Measure the seconds of one gloo all-reduce of ``size`` bytes of float32."""
    buffer = torch.zeros(size // 4)
    for _ in range(10):
        dist.all_reduce(buffer)
    dist.barrier()
    start = time.perf_counter()
    for _ in range(ALL_REDUCES):
        dist.all_reduce(buffer)
    return (time.perf_counter() - start) / ALL_REDUCES


def main() -> None:
    address, size = sys.argv[1], int(sys.argv[2])
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo")
    if rank == 1:
        dist.barrier()  # wait until the other end listens
    bare = BareLink(
        bytes_per_second=measure_bandwidth(rank, address), all_reduce=time_all_reduce(size)
    )
    if rank == 0:
        print(json.dumps(asdict(bare)), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
