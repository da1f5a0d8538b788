"""Save the whole state of a run to disk, and resume from it as if nothing had come between.

``log_pth/state/step=<n>/`` holds a file of each process, the metrics so far, and
``checkpoint.json``, which knows the SHA-256 of the others and of itself, and to which run they
belong. A folder gets this name once all of it is on the disk; the two newest are kept. Which is
newer, their steps say: file systems' clocks go backwards, and copies get new times.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.distributed.world import World
from trainer.errors import UserError
from trainer.files.atomic import sha256, sync, why
from trainer.files.tensors import save
from trainer.tracking.run_folder import STATE, RunProgress

NOTES = "checkpoint.json"
METRICS = "metrics.jsonl"
KEPT = 2
FORMAT = 1  # raised when what a run does between two steps changes


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


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Read a verified checkpoint, saved after ``step`` steps."""

    folder: Path
    step: int
    progress: RunProgress

    def state(self, clients: range) -> ClientState:
        """Read the state of ``clients``, whichever processes they were saved by."""
        parts = [part for part in self._states() if _overlap(part.clients, clients)]
        return ClientState(
            clients=clients,
            parameters=_of_clients([(p.clients, p.parameters) for p in parts], clients),
            momentum=_of_clients([(p.clients, p.momentum) for p in parts], clients),
            # Only the sum over all processes counts: each part goes to who has its first client.
            loss_sum=sum(p.loss_sum for p in parts if p.clients.start in clients),
            loss_steps=parts[0].loss_steps,
        )

    def _states(self) -> Iterator[ClientState]:
        """Read the states of all processes, in the order of their clients."""
        contents = [
            torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            for path in self.folder.glob("*.pt")
        ]
        for content in sorted(contents, key=lambda content: content["clients"]):
            yield ClientState(**{**content, "clients": range(*content["clients"])})


class Checkpoints:
    """Keep the checkpoints of the run in ``log_pth`` that ``belongs_to`` identifies.

    All processes call each method alike.
    """

    def __init__(self, log_pth: Path, world: World, belongs_to: str) -> None:
        self._folder = log_pth / STATE
        self._world = world
        self._belongs_to = belongs_to
        self._good: list[Path] = []  # the one gone on from, and all saved since

    def save(self, step: int, state: ClientState, progress: RunProgress | None) -> None:
        """Save ``state`` and the main process's ``progress``; UserError, on all, if that fails."""
        final = self._folder / f"step={step}"
        temporary = self._folder / f".{final.name}.tmp"
        own = temporary / f"{self._world.rank}-of-{self._world.size}.pt"
        with self._together(temporary):
            if self._world.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
        with self._together(temporary):
            _write_state(own, state)
        noted = self._world.all_gather((own.name, _noted(own)))
        with self._together(temporary):
            if progress is not None:
                _write(temporary / METRICS, progress.metrics)
                files = dict(sorted([*noted, (METRICS, _noted(temporary / METRICS))]))
                notes = _Notes(
                    format=FORMAT,
                    belongs_to=self._belongs_to,
                    step=step,
                    seconds=progress.seconds,
                    starts=progress.starts,
                    files=files,
                )
                notes.write(temporary / NOTES)
                self._publish(temporary, final)
        self._good.append(final)

    def newest(self) -> Checkpoint | None:
        """Return the newest whole checkpoint; name on stderr the newer ones that are not used."""
        found = None
        if self._world.is_main:
            for folder in reversed(self._folders()):
                try:
                    found = self._verified(folder)
                    break
                except Exception as error:  # whatever damaged files provoke in json
                    reason = " ".join(str(error).split())
                    print(f"warning: {folder} is not used: {reason}", file=sys.stderr, flush=True)
        found = self._world.broadcast(found)
        self._good = [found.folder] if found else []
        return found

    def last(self) -> str:
        """Name the newest checkpoint, for a message."""
        return (
            f"the last good checkpoint is {self._good[-1]}" if self._good else "no checkpoint yet"
        )

    def remove(self) -> None:
        """Remove all checkpoints, once the run is complete."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def _together(self, temporary: Path) -> Iterator[None]:
        """A failure to write on any process is one on all; what was written is then removed."""
        failure = None
        try:
            yield
        except OSError as error:
            failure = why(error)
        if reason := next(filter(None, self._world.all_gather(failure)), None):
            if self._world.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            raise UserError(f"{self._folder}: no checkpoint can be written {reason}")

    def _publish(self, temporary: Path, final: Path) -> None:
        sync(temporary)
        shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
        temporary.rename(final)
        sync(self._folder)
        good = [*self._good, final]  # others, whatever their steps, were passed over
        for old in sorted(self._folders(), key=lambda f: (f in good, _step(f)))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _folders(self) -> list[Path]:
        """Ordered by their steps."""
        named = self._folder.glob("step=*")
        return sorted((f for f in named if f.name[len("step=") :].isdecimal()), key=_step)

    def _verified(self, folder: Path) -> Checkpoint:
        """Raises ValueError and others for one that is damaged, or of another run."""
        notes = _Notes.read(folder / NOTES)
        if notes.format != FORMAT:
            raise ValueError(f"another version of this program wrote it (format {notes.format})")
        if notes.belongs_to != self._belongs_to:
            raise ValueError("it is of a run with other settings, data or start point")
        for name, noted in notes.files.items():
            if _noted(folder / name) != noted:
                raise ValueError(f"{name} is damaged")
        metrics = (folder / METRICS).read_text("utf-8")
        progress = RunProgress(metrics=metrics, seconds=notes.seconds, starts=notes.starts)
        return Checkpoint(folder=folder, step=notes.step, progress=progress)


@dataclass(frozen=True, kw_only=True)
class _Notes:
    """checkpoint.json. ``files``: size and SHA-256 by name."""

    format: int
    belongs_to: str
    step: int
    seconds: float
    starts: int
    files: dict[str, Any]

    def write(self, path: Path) -> None:
        _write(path, json.dumps({**asdict(self), "sha256": self._digest()}, indent=2))

    @classmethod
    def read(cls, path: Path) -> _Notes:
        content = json.loads(path.read_text("utf-8"))
        digest = content.pop("sha256")
        notes = cls(**content)
        if notes._digest() != digest:
            raise ValueError(f"{path.name} is damaged")
        return notes

    def _digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def _write_state(path: Path, state: ClientState) -> None:
    clients = [state.clients.start, state.clients.stop]
    content = {field.name: getattr(state, field.name) for field in fields(state)}
    save({**content, "clients": clients}, path)
    sync(path)


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    sync(path)


def _noted(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def _of_clients(parts: list[tuple[range, dict[str, Tensor]]], clients: range) -> dict[str, Tensor]:
    """``clients``' part of tensors that consecutive clients have, each or all together."""
    if len(parts) == 1 and parts[0][0] == clients:
        return parts[0][1]
    found = {}
    for name in parts[0][1]:
        rows = []
        for owners, tensors in parts:
            of_each = tensors[name].expand(len(owners), *tensors[name].shape[1:])
            first = max(clients.start, owners.start) - owners.start
            last = min(clients.stop, owners.stop) - owners.start
            rows.append(of_each[first:last])
        found[name] = torch.cat(rows)
    return found


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step="))


def _overlap(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop
