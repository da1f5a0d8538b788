"""Models on disk: written whole or not at all, loaded without pickled code."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.errors import UserError
from trainer.files import atomic, reading, sha256
from trainer.tensor_files import save


def save_model(path: Path, model: nn.Module) -> None:
    """The ``state_dict`` of ``model``, under the authors' keys."""
    with atomic(path) as temporary:
        save(model.state_dict(), temporary)


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
    SHA-256 ``digest``, and for a checkpoint of another architecture or with numbers that are too
    coarse or not finite.
    """
    place = f"resume_pth {path}"
    with reading(place, "check the path"):
        found = sha256(path)
    if digest not in (None, found):
        raise UserError(
            f"{place}: its SHA-256 is {found}, resume_sha256 asks for {digest}; "
            "get the file again or correct the digest"
        )
    state = _read_state(path, place)
    wanted = model.state_dict()
    for name in [*wanted, *state]:
        shapes = [tuple(d[name].shape) if name in d else "missing" for d in (state, wanted)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{place}: made by another architecture ({name} is {shapes[0]} in the file, "
                f"{shapes[1]} in the model); choose the model that it was saved from"
            )
    for name, value in wanted.items():
        if reason := _unfit(state[name], value):
            raise UserError(f"{place}: {name} {reason}")
    model.load_state_dict(state)


def _read_state(path: Path, place: str) -> dict[str, Tensor]:
    try:
        # PyTorch does not look at the checksums that it writes.
        if zipfile.is_zipfile(path):
            _check_sums(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a stray file provokes in zipfile, pickle and PyTorch
        raise UserError(
            f"{place}: damaged or not a plain state_dict ({type(error).__name__}); "
            "get the file again, or save model.state_dict() alone and start from that"
        ) from None
    plain = isinstance(state, dict) and all(
        isinstance(v, Tensor) and v.layout is torch.strided and v.device.type == "cpu"
        for v in state.values()
    )
    if not plain:
        raise UserError(
            f"{place}: holds more or other than a plain state_dict; "
            "save model.state_dict() alone and start from that"
        )
    return state


def _check_sums(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if (torn := archive.testzip()) is not None:
            raise zipfile.BadZipFile(torn)


def _unfit(given: Tensor, wanted: Tensor) -> str | None:
    """Why ``given`` cannot take the place of ``wanted``, of the same shape."""
    fits = (torch.float32, torch.float64) if wanted.is_floating_point() else (wanted.dtype,)
    if given.dtype not in fits:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in fits)
        return f"is {str(given.dtype).removeprefix('torch.')}; save the model as {names}"
    if not given.to(wanted.dtype).isfinite().all():
        return "has numbers that are not finite; get the file again, or take an earlier checkpoint"
    return None
