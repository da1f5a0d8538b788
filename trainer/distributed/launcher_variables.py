"""Read the environment variables by which a launcher tells this process its place in the run.

They are torchrun's (https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables).
Without a launcher there are none; inconsistent ones, left by another program, are refused by name.
"""

import ctypes
import os
import signal
import sys
from dataclasses import dataclass

from trainer.errors import UserError

FIX = (
    "let torchrun or python -m trainer.launch set it, or unset WORLD_SIZE, RANK and LOCAL_RANK to "
    "train with one process"
)
PR_SET_PDEATHSIG = 1  # of prctl(2)


@dataclass(frozen=True, kw_only=True)
class LauncherVariables:
    """Hold this process's place among all and on its machine, and the store's address, if any.

    ``store_in_launcher``: the launcher keeps the store, else the main process does.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str | None
    port: int | None
    store_in_launcher: bool


def read_launcher_variables() -> LauncherVariables:
    """Read and check them. Raises UserError for one that is missing or contradicts another."""
    size = _read_count("WORLD_SIZE")
    address, port = None, None
    if size > 1:
        for variable in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
            if not os.environ.get(variable):
                raise _variable_error(f"WORLD_SIZE is {size} and {variable} is missing")
        address, port = os.environ["MASTER_ADDR"], _read_int("MASTER_PORT", 0)
        if not 1 <= port <= 65535:
            raise _variable_error(f"MASTER_PORT {port} is not from 1 to 65535")
    local_size = _read_count("LOCAL_WORLD_SIZE")
    if local_size > size:
        raise _variable_error(f"LOCAL_WORLD_SIZE {local_size} is more than WORLD_SIZE {size}")
    return LauncherVariables(
        rank=_read_index("RANK", "WORLD_SIZE", size),
        size=size,
        local_rank=_read_index("LOCAL_RANK", "LOCAL_WORLD_SIZE", local_size),
        local_size=local_size,
        address=address,
        port=port,
        store_in_launcher=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _read_count(variable: str) -> int:
    number = _read_int(variable, 1)
    if number < 1:
        raise _variable_error(f"{variable} {number} is no number of processes")
    return number


def _read_index(variable: str, limit_variable: str, limit: int) -> int:
    number = _read_int(variable, 0)
    if not 0 <= number < limit:
        given = "" if limit_variable in os.environ else ", which is missing"
        raise _variable_error(f"{variable} {number} is not below {limit_variable} ({limit}{given})")
    return number


def _read_int(variable: str, missing: int) -> int:
    text = os.environ.get(variable, str(missing))
    try:
        return int(text)
    except ValueError:
        raise _variable_error(f"{variable} {text!r} is not a whole number") from None


def _variable_error(what: str) -> UserError:
    return UserError(f"environment: {what}; {FIX}")


def started_by_torchrun() -> bool:
    """Check whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def end_with_torchrun() -> None:
    """Make the kernel send this process SIGTERM when its torchrun dies, killed or not."""
    if started_by_torchrun() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
