"""Run torchrun on this machine's loopback interface alone, or on all nodes of a Slurm job.

``python -m trainer.launch`` takes torchrun's options. Its exit status is that of the first process
that ended, if that has said why: 2 for an error, 75 for a stop (at the time limit or the job's
end); where the launcher itself got a signal, 128 + its number. The stores of ``torchrun
--standalone`` listen on all of the machine's interfaces, but a TCPStore also takes a socket that
listens already (https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.TCPStore):
this one listens on 127.0.0.1 alone. A single process to fork runs in this one instead, without a
store. With ``--nnodes N`` (and no ``--rdzv-endpoint``) it starts itself on N nodes
(``trainer/distributed/multinode.py``).
"""

import os
import runpy
import socket
import sys
from argparse import Namespace

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import (
    RendezvousError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.run import parse_args, parse_min_max_nnodes, run

from trainer.distributed import multinode
from trainer.errors import ERROR_STATUS, STOPPED_STATUS, UserError, escape_unprintable, report

BACKEND = "loopback"
ADDRESS = "127.0.0.1"


class LoopbackRendezvous(RendezvousHandler):
    """Create the store of a single torchrun, by which its processes find each other."""

    use_agent_store = True

    def __init__(self, params: RendezvousParameters) -> None:
        self._run_id = params.run_id

    def get_backend(self) -> str:
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        # A new store at each start: the last one holds the addresses of processes that are gone.
        listening = socket.create_server((ADDRESS, 0))
        port = listening.getsockname()[1]
        store = TCPStore(ADDRESS, port, is_master=True, master_listen_fd=listening.detach())
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo(ADDRESS, port))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        pass

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._run_id

    def shutdown(self) -> bool:
        return True


def is_alone(arguments: Namespace) -> bool:
    """Tell whether torchrun would fork a single process, which needs none of its variables."""
    forked = arguments.run_path and arguments.start_method == "fork"
    alone = arguments.nproc_per_node == "1" and arguments.max_restarts == 0
    # torchrun would replace another launcher's
    return forked and alone and "WORLD_SIZE" not in os.environ


def main() -> int:
    escape_unprintable()
    rendezvous_handler_registry.register(BACKEND, LoopbackRendezvous)
    arguments = parse_args(sys.argv[1:])
    arguments.standalone = False  # it would choose torchrun's own rendezvous
    try:
        if arguments.rdzv_endpoint:
            multinode.configure_rendezvous(arguments)
        elif (count := parse_min_max_nnodes(arguments.nnodes)[1]) > 1:
            return multinode.start_on_nodes(count, sys.argv[1:])
        elif is_alone(arguments):
            sys.argv = [arguments.training_script, *arguments.training_script_args]
            runpy.run_path(arguments.training_script, run_name="__main__")
            return 0
        else:
            arguments.rdzv_backend, arguments.rdzv_endpoint = BACKEND, ADDRESS
        run(arguments)
    except UserError as error:
        report(f"error: {error}")
        return ERROR_STATUS
    except RendezvousError as error:
        report(f"error: nodes do not meet at {arguments.rdzv_endpoint} ({error})")
        return ERROR_STATUS
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        if first.exitcode in (ERROR_STATUS, STOPPED_STATUS):
            return first.exitcode
        raise
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main())
