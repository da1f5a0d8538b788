"""Models on disk: written whole or not at all, loaded without pickled code."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.errors import UserError
from trainer.files import atomic, sha256


def save_model(path: Path, model: nn.Module) -> None:
    """The ``state_dict`` of ``model``, under the authors' keys."""
    # Given a path, torch.save would write the temporary name into the file.
    with atomic(path) as temporary, temporary.open("wb") as file:
        torch.save(model.state_dict(), file)


class SavedModels:
    """The models that a run leaves in ``folder`` on its way, each a plain ``state_dict``.

    ``init.pt`` (random initialisation), ``phase_epoch=<e>.pt`` at each decay, ``latest.pt`` after
    each evaluation and, where asked for, ``epoch=<e>_round=<r>.pt``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def initial(self, model: nn.Module) -> Path:
        return self._save("init.pt", model)

    def at_decay(self, model: nn.Module, epoch: float) -> Path:
        return self._save(f"phase_epoch={epoch:g}.pt", model)

    def at_round(self, model: nn.Module, epoch: float, round: int) -> Path:
        return self._save(f"epoch={epoch:g}_round={round}.pt", model)

    def latest(self, model: nn.Module) -> Path:
        return self._save("latest.pt", model)

    def _save(self, name: str, model: nn.Module) -> Path:
        save_model(self._folder / name, model)
        return self._folder / name


def load_model(path: Path, model: nn.Module, digest: str | None = None) -> None:
    """Load a ``state_dict`` into ``model``, every key matched.

    Raises UserError for a file that is missing, damaged, not a plain ``state_dict`` or not of
    SHA-256 ``digest``, and for a checkpoint of another architecture.
    """
    if not path.is_file():
        raise UserError(f"resume_pth {path}: no such file; check the path")
    if digest is not None and sha256(path) != digest:
        raise UserError(
            f"resume_pth {path}: its SHA-256 is {sha256(path)}, resume_sha256 asks for {digest}; "
            "get the file again or correct the digest"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        pickle.UnpicklingError,
    ) as error:  # whatever a stray file provokes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"resume_pth {path}: damaged or not a plain state_dict ({reason}); get the file again"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(
            f"resume_pth {path}: holds more or other than a plain state_dict; "
            "save model.state_dict() alone and start from that"
        )
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found != expected:
        name = next(n for n in [*expected, *found] if expected.get(n) != found.get(n))
        raise UserError(
            f"resume_pth {path}: made by another architecture ({name} is {found.get(name)} in the "
            f"file, {expected.get(name)} in the model); choose the model that it was saved from"
        )
    model.load_state_dict(state)
