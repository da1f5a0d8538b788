"""What the launcher of a run's processes told this one, in environment variables.

They are torchrun's (https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables).
Without a launcher there are none; some that another program left behind are refused by name.
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
    """This process among all, and among those of its machine; where they meet, if it has others.

    ``store_of_launcher``: it keeps the store that they meet at, else the main process does.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str | None
    port: int | None
    store_of_launcher: bool


def read_launcher_variables() -> LauncherVariables:
    """Raises UserError for a variable that is missing, or contradicts another."""
    size = _count("WORLD_SIZE", 1)
    if size > 1:
        _is_there("RANK")
        _is_there("MASTER_ADDR")
        _is_there("MASTER_PORT")
    rank = _below("RANK", "WORLD_SIZE", size)
    local_size = _count("LOCAL_WORLD_SIZE", 1)
    if local_size > size:
        raise _wrong(f"LOCAL_WORLD_SIZE {local_size} is more than WORLD_SIZE {size}")
    return LauncherVariables(
        rank=rank,
        size=size,
        local_rank=_below("LOCAL_RANK", "LOCAL_WORLD_SIZE", local_size),
        local_size=local_size,
        address=os.environ["MASTER_ADDR"] if size > 1 else None,
        port=_port() if size > 1 else None,
        store_of_launcher=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _count(variable: str, missing: int) -> int:
    number = _number(variable, missing)
    if number < 1:
        raise _wrong(f"{variable} {number} is no number of processes")
    return number


def _below(variable: str, limit_variable: str, limit: int) -> int:
    number = _number(variable, 0)
    if not 0 <= number < limit:
        given = "" if limit_variable in os.environ else ", which is missing"
        raise _wrong(f"{variable} {number} is not below {limit_variable} ({limit}{given})")
    return number


def _port() -> int:
    number = _number("MASTER_PORT", 0)
    if number not in PORTS:
        raise _wrong(f"MASTER_PORT {number} is not from 1 to 65535")
    return number


def _number(variable: str, missing: int) -> int:
    text = os.environ.get(variable)
    if text is None:
        return missing
    try:
        return int(text)
    except ValueError:
        raise _wrong(f"{variable} {text!r} is not a whole number") from None


def _is_there(variable: str) -> None:
    if not os.environ.get(variable):
        size = os.environ["WORLD_SIZE"]
        raise _wrong(f"WORLD_SIZE is {size} and {variable} is missing")


def _wrong(what: str) -> UserError:
    return UserError(f"environment: {what}; {FIX}")
