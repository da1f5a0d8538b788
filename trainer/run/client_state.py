"""Save what each process's clients have after a step; read it back for any number of processes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from trainer.files.atomic import sync
from trainer.files.state_dict import save_tensors


@dataclass(frozen=True, kw_only=True)
class ClientState:
    """Hold what some consecutive clients have after a step.

    ``parameters`` and ``momentum``: by name, (clients, *shape), or (1, *shape) where all are equal.
    ``loss_sum``: of the clients' losses in the ``loss_steps`` steps since the last evaluation.
    """

    clients: range
    parameters: dict[str, Tensor]
    momentum: dict[str, Tensor]
    loss_sum: float
    loss_steps: int


def save_state(path: Path, state: ClientState) -> None:
    """Write ``state`` to ``path`` and flush it to the disk. Raises OSError if that fails."""
    content = {field.name: getattr(state, field.name) for field in fields(state)}
    save_tensors({**content, "clients": [state.clients.start, state.clients.stop]}, path)
    sync(path)


def load_state(folder: Path, clients: range) -> ClientState:
    """Read the state of ``clients`` from ``folder``, whichever processes saved it."""
    saved = []
    for path in folder.glob("*.pt"):
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        owners = range(*content["clients"])
        if owners.start < clients.stop and clients.start < owners.stop:
            saved.append(ClientState(**{**content, "clients": owners}))
    saved.sort(key=lambda state: state.clients.start)
    return ClientState(
        clients=clients,
        parameters=_select([(s.clients, s.parameters) for s in saved], clients),
        momentum=_select([(s.clients, s.momentum) for s in saved], clients),
        # Only the sum over all processes counts: each saved sum goes to its first client's process.
        loss_sum=sum(s.loss_sum for s in saved if s.clients.start in clients),
        loss_steps=saved[0].loss_steps,
    )


def _select(saved: list[tuple[range, dict[str, Tensor]]], clients: range) -> dict[str, Tensor]:
    """Cut the tensors of ``clients`` out of those of consecutive clients, and join them."""
    if len(saved) == 1 and saved[0][0] == clients:
        return saved[0][1]
    selected = {}
    for name in saved[0][1]:
        rows = []
        for owners, tensors in saved:
            of_each = tensors[name].expand(len(owners), *tensors[name].shape[1:])
            first = max(clients.start - owners.start, 0)
            rows.append(of_each[first : clients.stop - owners.start])
        selected[name] = torch.cat(rows)
    return selected
