"""Damaged checkpoints that a run is to start from."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.faults import betons
from tests.faults.cases import Command, Kind, trainer
from tests.faults.damage import Code, cut, digest, flip
from trainer.__main__ import main

START = Path("start.pt")
RUN = trainer(*betons.RUN.words, "--resume-pth", START, "--resume", 1, "--eval-on-start", 1)
State = dict[str, Any]


def make(folder: Path) -> None:
    betons.make(folder)
    made = ("--data-pth", str(folder / "data"), "--out", str(folder / "made"))
    main([*betons.RUN.words, "--log-pth", str(folder / "made"), *made])
    (folder / "made/model.pt").rename(folder / START)


START_POINT = Kind("start point", make)


def truncated(keep: float, folder: Path) -> Command:
    cut(folder / START, keep)
    return RUN


for keep in (0, 2, 30, 0.3, 0.9, -1, -70):
    START_POINT.add(f"truncated to {keep}", partial(truncated, keep), f"resume_pth {START}", "get")


def flipped(byte: int, folder: Path) -> Command:
    flip(folder / START, byte, bit=3)
    return RUN


for where, byte in {
    "magic": 0, "pickle": 90, "name of a parameter": 160, "weights": 30_000, "more weights": 80_000,
}.items():  # fmt: skip
    what = f"a bit flipped in its {where}"
    START_POINT.add(what, partial(flipped, byte), f"resume_pth {START}", "get the file again")


@START_POINT.refused(f"resume_pth {START}", "get the file again")
def a_bit_flipped_in_a_checksum(folder: Path) -> Command:
    entry = (folder / START).read_bytes().rindex(b"PK\x01\x02")
    flip(folder / START, entry + 16)
    return RUN


def saved(change: Callable[[State], Any], folder: Path) -> Command:
    torch.save(change(torch.load(folder / START, weights_only=True)), folder / START)
    return RUN


def with_first(change: Callable[[Tensor], Any]) -> Callable[[State], State]:
    def changed(state: State) -> State:
        first = next(iter(state))
        return state | {first: change(state[first])}

    return changed


def set_to(value: float) -> Callable[[Tensor], Tensor]:
    def changed(tensor: Tensor) -> Tensor:
        tensor.view(-1)[7] = value
        return tensor

    return changed


for what, change, said in (
    ("a list", lambda state: list(state.values()), "state_dict"),
    ("a tensor", lambda state: state["1.weight"], "state_dict"),
    ("a number", lambda _: 3, "state_dict"),
    ("nothing", lambda _: None, "state_dict"),
    ("an empty dict", lambda _: {}, "another architecture"),
    ("two training states", lambda s: {"model": s, "state_dict": s, "epoch": 1}, "state_dict"),
    ("a key twice", lambda s: s | {f"module.{k}": v for k, v in s.items()}, "1.weight twice"),
    ("keys of numbers", lambda state: dict(enumerate(state.values())), "architecture"),
    ("an extra key", lambda state: state | {"head.weight": torch.zeros(3)}, "head.weight"),
    ("a key less", lambda state: dict(list(state.items())[1:]), "1.weight"),
    ("a value that is no tensor", with_first(lambda t: t.tolist()), "state_dict"),
    ("another shape", with_first(lambda t: t.T), "1.weight"),
    ("NaN", with_first(set_to(float("nan"))), "1.weight"),
    ("infinity", with_first(set_to(float("-inf"))), "1.weight"),
    ("float16", lambda state: {k: v.half() for k, v in state.items()}, "float16"),
    ("bfloat16", lambda state: {k: v.bfloat16() for k, v in state.items()}, "bfloat16"),
    ("whole numbers", with_first(lambda t: t.long()), "int64"),
    ("truth values", with_first(lambda t: t > 0), "bool"),
    ("complex numbers", with_first(lambda t: t.to(torch.complex64)), "complex64"),
    ("a sparse tensor", with_first(lambda t: t.to_sparse()), "state_dict"),
    ("a tensor without content", with_first(lambda t: t.to("meta")), "state_dict"),
):
    START_POINT.add(what, partial(saved, change), f"resume_pth {START}", said)


for what, change in (
    ("a training state around it", lambda s: {"model": s, "epoch": 1, "optimizer": {"state": {}}}),
    ("keys of a parallel module", lambda s: {f"module.{k}": v for k, v in s.items()}),
    ("keys of a compiled one", lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()}),
):
    START_POINT.add(what, partial(saved, change))
START_POINT.add("float64", partial(saved, lambda s: {k: v.double() for k, v in s.items()}))
START_POINT.add("keys in another order", partial(saved, lambda s: dict(reversed(s.items()))))
START_POINT.add("transposed memory", partial(saved, with_first(lambda t: t.T.contiguous().T)))


@START_POINT.refused(f"resume_pth {START}", "state_dict")
def a_pickle_with_code(folder: Path) -> Command:
    (folder / START).write_bytes(pickle.dumps(Code()))
    return RUN


@START_POINT.refused(f"resume_pth {START}", "state_dict")
def code_among_the_parameters(folder: Path) -> Command:
    return saved(lambda state: state | {"1.weight": Code()}, folder)


@START_POINT.refused(f"resume_pth {START}", "state_dict")
def a_whole_model(folder: Path) -> Command:
    torch.save(torch.nn.Linear(2, 2), folder / START)
    return RUN


@START_POINT.refused(f"resume_pth {START}", "architecture", "choose the model")
def another_architecture(folder: Path) -> Command:
    return trainer(*RUN.words, "--model", "cnn")


@START_POINT.refused(f"resume_pth {START}", "state_dict")
def another_archive(folder: Path) -> Command:
    with zipfile.ZipFile(folder / START, "w") as archive:
        archive.writestr("readme", "not a checkpoint")
    return RUN


@START_POINT.refused(f"resume_pth {START}", "state_dict")
def json_of_parameters(folder: Path) -> Command:
    state = torch.load(folder / START, weights_only=True)
    (folder / START).write_text(json.dumps({name: t.tolist() for name, t in state.items()}))
    return RUN


@START_POINT.refused(f"resume_pth {START}", "no such file", "check the path")
def missing(folder: Path) -> Command:
    (folder / START).unlink()
    return RUN


@START_POINT.refused(f"resume_pth {START}", "directory")
def a_directory(folder: Path) -> Command:
    (folder / START).unlink()
    (folder / START).mkdir()
    return RUN


@START_POINT.refused(f"resume_pth {START}", "resume_sha256 asks for")
def of_another_digest(folder: Path) -> Command:
    wanted = digest(folder / START)
    flip(folder / START, 50_000)
    return trainer(*RUN.words, "--resume-sha256", wanted)


@START_POINT.same
def saved_in_the_old_format(folder: Path) -> Command:
    state = torch.load(folder / START, weights_only=True)
    torch.save(state, folder / START, _use_new_zipfile_serialization=False)
    return RUN
