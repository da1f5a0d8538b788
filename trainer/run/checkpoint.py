"""Save the whole state of a run to disk, and resume from it with the same bits.

``log_pth/state/step=<n>/`` holds a file of each process, the metrics so far, and
``checkpoint.json``: the SHA-256 of the others and of itself, and the run's fingerprint. A folder
gets this name once all of it is on the disk; the two newest are kept. Their steps say which is
newer, not their times: file systems' clocks go backwards, and copies get new times.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.distributed.world import World
from trainer.errors import UserError, report
from trainer.files.atomic import explain_write_error, sha256, sync
from trainer.files.state_dict import save_tensors
from trainer.tracking.metrics import METRICS, STATE, RunProgress

MANIFEST = "checkpoint.json"
KEPT = 2
FORMAT = 1  # raised when what a run does between two steps changes


@dataclass(frozen=True, kw_only=True)
class ClientState:
    """Hold what some consecutive clients have after a step.

    ``parameters`` and ``momentum``: by name, (clients, *shape), or (1, *shape) where all are equal.
    The same for all: ``updates`` since the momentum was zero, the state of the ``outer`` optimizer
    and that of the ``mean`` of iterates.
    ``loss_sum``: of the clients' losses in the ``loss_steps`` steps since the last evaluation.
    """

    clients: range
    parameters: dict[str, Tensor]
    momentum: dict[str, Tensor]
    loss_sum: float
    loss_steps: int
    updates: int = 0
    outer: dict[str, Tensor] = field(default_factory=dict)
    mean: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Point to a verified checkpoint, saved after ``step`` steps."""

    folder: Path
    step: int
    progress: RunProgress

    def state(self, clients: range) -> ClientState:
        """Read the state of ``clients``, whichever processes saved it."""
        saved = []
        for path in self.folder.glob("*.pt"):
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            owners = range(*content["clients"])
            if owners.start < clients.stop and clients.start < owners.stop:
                saved.append(ClientState(**{**content, "clients": owners}))
        saved.sort(key=lambda state: state.clients.start)
        return ClientState(
            clients=clients,
            parameters=_select([(s.clients, s.parameters) for s in saved], clients),
            momentum=_select([(s.clients, s.momentum) for s in saved], clients),
            # Only the sum over all processes counts: each goes to its first client's process.
            loss_sum=sum(s.loss_sum for s in saved if s.clients.start in clients),
            loss_steps=saved[0].loss_steps,
            updates=saved[0].updates,
            outer=saved[0].outer,
            mean=saved[0].mean,
        )


class Checkpoints:
    """Keep the checkpoints in ``log_pth`` of the run that has this ``fingerprint``.

    All processes call ``save`` and ``newest`` together.
    """

    def __init__(self, log_pth: Path, world: World, fingerprint: str) -> None:
        self._folder = log_pth / STATE
        self._world = world
        self._fingerprint = fingerprint
        self._good: list[Path] = []  # the one resumed from, and all saved since

    def save(self, step: int, state: ClientState, progress: RunProgress | None) -> None:
        """Save ``state`` and the main process's ``progress``.

        Raises UserError, on all processes, if that fails on any.
        """
        final = self._folder / f"step={step}"
        temporary = self._folder / f".{final.name}.tmp"
        own = temporary / f"{self._world.rank}-of-{self._world.size}.pt"
        with self._fail_together(temporary):
            if self._world.is_main:
                for left in self._folder.glob(".step=*.tmp"):  # by processes that were killed
                    shutil.rmtree(left, ignore_errors=True)
                temporary.mkdir(parents=True)
        with self._fail_together(temporary):
            owners = [state.clients.start, state.clients.stop]
            save_tensors({**vars(state), "clients": owners}, own)
            sync(own)
            described = _describe(own)
        states = self._world.all_gather((own.name, described))
        with self._fail_together(temporary):
            if progress is not None:
                _write(temporary / METRICS, progress.metrics)
                manifest = {
                    "format": FORMAT,
                    "belongs_to": self._fingerprint,
                    "step": step,
                    "seconds": progress.seconds,
                    "starts": progress.starts,
                    "files": dict(sorted([*states, (METRICS, _describe(temporary / METRICS))])),
                }
                signed = {**manifest, "sha256": _digest(manifest)}
                _write(temporary / MANIFEST, json.dumps(signed, indent=2))
                self._publish(temporary, final)
        self._good.append(final)

    def newest(self) -> Checkpoint | None:
        """Find the newest undamaged checkpoint; warn of newer ones that cannot be used."""
        found = None
        if self._world.is_main:
            for folder in reversed(self._folders()):
                try:
                    found = self._verify(folder)
                    break
                except Exception as error:  # whatever damaged files provoke in json
                    reason = " ".join(str(error).split())
                    report(f"warning: {folder} is not used: {reason}")
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
    def _fail_together(self, temporary: Path) -> Iterator[None]:
        """Raise UserError on all processes if one cannot write; ``temporary`` is then removed."""
        failure = None
        try:
            yield
        except OSError as error:
            failure = explain_write_error(error)
        if reason := next(filter(None, self._world.all_gather(failure)), None):
            if self._world.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            raise UserError(f"{self._folder}: no checkpoint can be written {reason}")

    def _publish(self, temporary: Path, final: Path) -> None:
        """Give the written folder its final name, then remove what is no longer kept."""
        sync(temporary)
        shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
        temporary.rename(final)
        sync(self._folder)
        # Remove unusable ones first, whatever their steps: damaged, or of other settings.
        good = [*self._good, final]
        for old in sorted(self._folders(), key=good.__contains__)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _folders(self) -> list[Path]:
        """List the checkpoints' folders in the order of their steps."""
        steps = {f.name.removeprefix("step="): f for f in self._folder.glob("step=*")}
        return [steps[step] for step in sorted(filter(str.isdecimal, steps), key=int)]

    def _verify(self, folder: Path) -> Checkpoint:
        """Raise, ValueError among others, for a checkpoint that is damaged or another run's."""
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        if manifest.pop("sha256") != _digest(manifest):
            raise ValueError(f"{MANIFEST} is damaged")
        if manifest["format"] != FORMAT:
            raise ValueError(
                f"another version of this program wrote it (format {manifest['format']})"
            )
        if manifest["belongs_to"] != self._fingerprint:
            raise ValueError("it is of a run with other settings, data or start point")
        for name, described in manifest["files"].items():
            if _describe(folder / name) != described:
                raise ValueError(f"{name} is damaged")
        progress = RunProgress(
            metrics=(folder / METRICS).read_text("utf-8"),
            seconds=manifest["seconds"],
            starts=manifest["starts"],
        )
        return Checkpoint(folder=folder, step=manifest["step"], progress=progress)


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


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    sync(path)


def _describe(path: Path) -> dict[str, Any]:
    """Return a file's size and SHA-256."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}
