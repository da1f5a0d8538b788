"""Average a long vector over two processes: each averages one half of it for both."""

import torch.distributed as dist
from torch import Tensor

# What two processes on one machine took least time with, of 0.5, 1, 2, 4 and 8 MiB.
PIECE_BYTES = 2**20


def pair_mean(tensor: Tensor, scratch: Tensor, rank: int) -> None:
    """Average ``tensor`` (n,) of ranks 0 and 1 in place; overwrite ``scratch``, as long or longer.

    An all-reduce moves the same bytes, but leaves both processes to divide all of the sum, which
    is no longer in their caches. Here a piece is added, divided and sent back while the next ones
    arrive. A sum of two does not depend on their order: the bits are those of an all-reduce.
    """
    peer = 1 - rank
    halves = tensor.tensor_split(2)
    count = -(-tensor.nbytes // (2 * PIECE_BYTES))
    own, others = halves[rank].tensor_split(count), halves[peer].tensor_split(count)
    received = scratch[: len(halves[rank])].tensor_split(count)
    arrivals = [dist.irecv(piece, peer, tag=2 * i) for i, piece in enumerate(received)]
    sent = [dist.isend(piece, peer, tag=2 * i) for i, piece in enumerate(others)]
    returns = []
    for i, (piece, addend) in enumerate(zip(own, received, strict=True)):
        _wait(arrivals[i])
        piece += addend
        piece /= 2
        returns.append(dist.isend(piece, peer, tag=2 * i + 1))
        _wait(sent[i])  # its memory is about to be overwritten
        returns.append(dist.irecv(others[i], peer, tag=2 * i + 1))
    for work in returns:
        _wait(work)


def _wait(work: dist.Work | None) -> None:
    assert work is not None, "this process belongs to the group"
    work.wait()
