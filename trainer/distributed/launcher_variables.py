"""Read the environment variables by which a launcher tells this process its place in the run.

They are torchrun's (https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables).
Without a launcher there are none; inconsistent ones, left by another program, are refused by name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from trainer.errors import UserError

PORTS = range(1, 2**16)
FIX = (
    "let torchrun or python -m trainer.launch set it, or unset WORLD_SIZE, RANK and LOCAL_RANK to "
    "train with one process"
)


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
    size = _read_count("WORLD_SIZE", 1)
    if size > 1:
        _require("RANK")
        _require("MASTER_ADDR")
        _require("MASTER_PORT")
    rank = _read_index("RANK", "WORLD_SIZE", size)
    local_size = _read_count("LOCAL_WORLD_SIZE", 1)
    if local_size > size:
        raise _variable_error(f"LOCAL_WORLD_SIZE {local_size} is more than WORLD_SIZE {size}")
    return LauncherVariables(
        rank=rank,
        size=size,
        local_rank=_read_index("LOCAL_RANK", "LOCAL_WORLD_SIZE", local_size),
        local_size=local_size,
        address=os.environ["MASTER_ADDR"] if size > 1 else None,
        port=_read_port() if size > 1 else None,
        store_in_launcher=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _read_count(variable: str, missing: int) -> int:
    number = _read_int(variable, missing)
    if number < 1:
        raise _variable_error(f"{variable} {number} is no number of processes")
    return number


def _read_index(variable: str, limit_variable: str, limit: int) -> int:
    number = _read_int(variable, 0)
    if not 0 <= number < limit:
        given = "" if limit_variable in os.environ else ", which is missing"
        raise _variable_error(f"{variable} {number} is not below {limit_variable} ({limit}{given})")
    return number


def _read_port() -> int:
    number = _read_int("MASTER_PORT", 0)
    if number not in PORTS:
        raise _variable_error(f"MASTER_PORT {number} is not from 1 to 65535")
    return number


def _read_int(variable: str, missing: int) -> int:
    text = os.environ.get(variable)
    if text is None:
        return missing
    try:
        return int(text)
    except ValueError:
        raise _variable_error(f"{variable} {text!r} is not a whole number") from None


def _require(variable: str) -> None:
    if not os.environ.get(variable):
        size = os.environ["WORLD_SIZE"]
        raise _variable_error(f"WORLD_SIZE is {size} and {variable} is missing")


def _variable_error(what: str) -> UserError:
    return UserError(f"environment: {what}; {FIX}")
