"""Save tensors and models, whole or not at all; load models without running pickled code."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from trainer.errors import UserError
from trainer.files.atomic import atomic, reading, sha256

# Keys under which others keep the state_dict of a model beside that of its optimizer
WRAPPERS = ("state_dict", "model_state_dict", "model")
COMPILED = "_orig_mod."  # the prefix that torch.compile gives
PREFIXES = ("module.", COMPILED)  # module.: DistributedDataParallel's
COUNT = ".num_batches_tracked"
LISTED = 3  # keys of a kind in a message
SAVE_ALONE = "save model.state_dict() alone and start from that"


def save_tensors(content: Any, path: Path) -> None:
    """Save ``content`` by ``torch.save``. Raises OSError where the disk does not take it.

    Equal contents give equal files: given a path, PyTorch would write its name into the file, too.
    """
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # from closing the zip, which hides the first error
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def save_model(path: Path, model: nn.Module) -> Path:
    """Save the ``state_dict`` of ``model``, with the authors' keys, atomically; return ``path``."""
    with atomic(path) as temporary:
        save_tensors(model.state_dict(), temporary)
    return path


@dataclass(frozen=True)
class SavedModels:
    """Save the models that a run leaves in ``folder`` on its way, each a plain ``state_dict``.

    ``init.pt`` (random initialisation), ``phase_epoch=<e>.pt`` at each decay, ``latest.pt`` after
    each evaluation and, where asked for, ``epoch=<e>_round=<r>.pt``.
    """

    folder: Path

    def initial(self, model: nn.Module) -> Path:
        return save_model(self.folder / "init.pt", model)

    def at_decay(self, model: nn.Module, epoch: float) -> Path:
        return save_model(self.folder / f"phase_epoch={epoch:g}.pt", model)

    def at_round(self, model: nn.Module, epoch: float, round: int) -> Path:
        return save_model(self.folder / f"epoch={epoch:g}_round={round}.pt", model)

    def latest(self, model: nn.Module) -> Path:
        return save_model(self.folder / "latest.pt", model)


def load_model(path: Path, model: nn.Module, digest: str | None = None) -> None:
    """Load a ``state_dict`` into ``model``, every key matched.

    It may lie in a training state (``WRAPPERS``), have the keys of a parallel or compiled module
    (``PREFIXES``) and lack BatchNorm's counts of batches, on which nothing here depends. Raises
    UserError for a file that is missing, damaged, has another SHA-256 than ``digest`` or holds no
    ``state_dict``, and for one of another architecture, of less precision than float32, or with
    numbers that are not finite.
    """
    place = f"resume_pth {path}"
    with reading(place, "check the path"):
        found = sha256(path)
    if digest not in (None, found):
        raise UserError(
            f"{place}: its SHA-256 is {found}, resume_sha256 asks for {digest}; "
            "get the file again or correct the digest"
        )
    wanted = model.state_dict()
    state = _strip_prefixes(_read_state(path, place), wanted, place)
    if differences := _differences(state, wanted):
        raise UserError(
            f"{place}: made by another architecture ({differences}); choose the model that it was "
            "saved from"
        )
    for name, value in wanted.items():
        if reason := _explain_mismatch(state[name], value):
            raise UserError(f"{place}: {name} {reason}")
    model.load_state_dict(state)


def _read_state(path: Path, place: str) -> dict[str, Tensor]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                # PyTorch does not verify the checksums that it writes.
                if (torn := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(torn)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a stray file provokes in zipfile, pickle and PyTorch
        raise UserError(
            f"{place}: damaged or not a plain state_dict ({type(error).__name__}); "
            f"get the file again, or {SAVE_ALONE}"
        ) from None
    if isinstance(content, dict) and not _is_plain(content):
        inner = [key for key in WRAPPERS if isinstance(content.get(key), dict)]
        if len(inner) == 1:
            content = content[inner[0]]
    if not _is_plain(content):
        raise UserError(
            f"{place}: holds more or other than a plain state_dict, or one under "
            f"{', '.join(WRAPPERS)}; {SAVE_ALONE}"
        )
    return content


def _is_plain(content: object) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(content, dict) and all(
        isinstance(v, Tensor) and v.layout is torch.strided and v.device.type == "cpu"
        for v in content.values()
    )


def _strip_prefixes(
    state: dict[str, Tensor], wanted: dict[str, Tensor], place: str
) -> dict[str, Tensor]:
    """Rename ``state`` to the keys of a model that is neither parallel nor compiled."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        name = str(key)
        while name not in wanted and name.startswith(PREFIXES):
            name = name.partition(".")[2]
        if name not in wanted:
            name = name.replace(COMPILED, "")  # a part of the model was compiled
        if name in renamed:
            raise UserError(f"{place}: holds {name} twice, with a prefix and without; {SAVE_ALONE}")
        renamed[name] = value
    counts = {name: value for name, value in wanted.items() if name.endswith(COUNT)}
    return counts | renamed


def _differences(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """List the keys that the file lacks, has in excess, or has of another shape; "" for none."""
    kinds = {
        "missing in the file": [name for name in wanted if name not in state],
        "not in the model": [name for name in state if name not in wanted],
        "of another shape": [
            f"{name} is {tuple(state[name].shape)} in the file, {tuple(own.shape)} in the model"
            for name, own in wanted.items()
            if name in state and state[name].shape != own.shape
        ],
    }
    return "; ".join(f"{kind}: {_list_first(names)}" for kind, names in kinds.items() if names)


def _list_first(names: list[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _explain_mismatch(given: Tensor, wanted: Tensor) -> str | None:
    """Explain why ``given`` cannot replace ``wanted``, of the same shape; None if it can."""
    fits = (torch.float32, torch.float64) if wanted.is_floating_point() else (wanted.dtype,)
    if given.dtype not in fits:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in fits)
        return f"is {str(given.dtype).removeprefix('torch.')}; save the model as {names}"
    if not given.to(wanted.dtype).isfinite().all():
        return "has numbers that are not finite; get the file again, or take an earlier checkpoint"
    return None
