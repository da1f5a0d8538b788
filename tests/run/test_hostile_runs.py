"""Runs of any settings: a real tiny run ends as its schedule says, or in one line."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import event, given
from hypothesis import strategies as st

from tests.faults import start_points
from tests.faults.cases import Ended, contents, trainer
from tests.hostile import examples, fitting
from trainer.local_sgd.h_rules import RULES
from trainer.run.build import make_schedule
from trainer.settings.cli import option
from trainer.settings.run import RunSettings

SAMPLES = 797
FAR = [2**40, 2**63 - 1]
often: st.SearchStrategy[Any] = st.integers(1, 9) | st.sampled_from(FAR)
# What decides how long a run takes; of all else, whatever fits
SIZED: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["mlp", "cnn", "cnn_bn"]),
    "batch_size": st.integers(1, 4),
    "total_batch_size": st.integers(1, 4).map(lambda k: 4 * k),
    "epochs": st.integers(1, 4),
    "steps_per_epoch": st.none() | st.integers(1, 4),
    "train_subset": st.none() | st.integers(1, 60),
    "schedule": st.none() | st.lists(st.fixed_dictionaries(
        {"epochs": st.integers(1, 2)},
        optional={"lr_factor": st.floats(1e-320, 1e300), "local_steps": often,
                  "eval_freq": often, "save_freq": st.none() | often},
    ), min_size=1, max_size=3),
    **{f"decay{i}": st.none() | st.integers(1, 4) | st.just(25_000) for i in (1, 2, 3)},
    **{f"{name}{i}": often for name in ("step", "eval_freq") for i in (1, 2, 3)},
    **{f"save_freq{i}": st.none() | often for i in (1, 2, 3)},
    "h_rule": st.sampled_from([*RULES, "absent:f"]),
    "h_base": often,
    "switch": st.integers(1, 4),
    "warmup_epochs": st.integers(0, 4),
    "bn_batches": st.integers(0, 3),
    "sharpness_samples": st.integers(1, 60),
    "sharpness_probes": st.integers(1, 2),
    "nw": st.integers(0, 2),
    "time_limit": st.none() | st.floats(1e6, 1e300),
    "resume_pth": st.none() | st.just("start.pt"),
    "resume": st.integers(0, 9) | st.sampled_from(FAR),
}  # fmt: skip
# Other tests': other data sets, compilers, devices and servers
ELSEWHERE = {
    "dataset", "data_pth", "train_pth", "val_pth", "image_size", "num_classes", "loader", "log_pth",
    "out", "compile", "device", "backend", "resume_sha256", "wandb", "wandb_save",
}  # fmt: skip
VARIED = sorted(set(RunSettings.model_fields) - ELSEWHERE)
BASE = {"clients": "serial", "batch_size": 4, "total_batch_size": 8, "train_subset": 40,
        "epochs": 2}  # fmt: skip
# What makes sense together only: what one of them is, and what else is drawn
TOGETHER: list[tuple[dict[str, Any], list[str]]] = [
    ({"h_rule": "qsr"}, ["alpha", "h_base"]),
    ({"h_rule": "cubic"}, ["alpha", "lr_schedule"]),
    ({"h_rule": "post-local", "epochs": 3, "h_base": 3}, ["switch", "h_base", "lr_schedule"]),
    ({"warm_up": True}, ["warmup_epochs", "max_lr", "start_lr"]),
    ({"warm_up": True, "warmup_epochs": 1, "total_batch_size": 256, "steps_per_epoch": 1,
      "replacement": True}, ["lr"]),
    ({"label_noise": True}, ["noise_p", "replacement"]),
    ({"momentum": 0.9}, ["nesterov", "momentum_averaging", "momentum"]),
    ({"optimizer": "adamw"}, ["beta1", "beta2", "eps", "momentum_averaging", "group_weight"]),
    ({"outer_momentum": 0.9}, ["outer_lr", "outer_nesterov", "outer_slowmo", "outer_momentum"]),
    ({"epochs": 3, "decay1": 1}, ["gamma", "step2", "eval_freq2", "save_freq2"]),
    ({"epochs": 4, "decay1": 1, "decay2": 2, "decay3": 3}, ["gamma", "step1", "step2", "step3"]),
    ({"lr_schedule": "cosine"}, ["start_lr", "step1", "warm_up"]),
    ({"lr_schedule": "cosine", "h_rule": "qsr"}, ["alpha", "epochs"]),
    ({"sharpness": True}, ["sharpness_samples", "sharpness_probes", "precision"]),
    ({"model": "cnn_bn"}, ["bn_batches", "clients"]),
    ({"resume_pth": "start.pt"}, ["resume", "eval_on_start", "precision"]),
    ({"clients": "auto"}, ["model", "precision", "nw"]),
    ({"allow_divergence": True}, ["start_lr", "eval_on_start", "precision", "seed"]),
]  # fmt: skip


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Any]:
    values: dict[str, Any] = dict(BASE)
    names = draw(st.lists(st.sampled_from(VARIED), unique=True, max_size=9))
    for given_so, drawn in draw(st.lists(st.sampled_from(TOGETHER), max_size=2)):
        values |= given_so
        names += drawn
    for name in names:
        strategy = SIZED[name] if name in SIZED else fitting(RunSettings.model_fields[name])
        values[name] = draw(strategy)
    return values


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    start_points.make(folder)
    return folder


@contextmanager
def place_with(inputs: Path, *, copied: bool = False) -> Iterator[Path]:
    """Make a folder for one run, with links to the inputs or, to be damaged, copies of them."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for path in inputs.iterdir():
            if not copied:
                (place / path.name).symlink_to(path)
            elif path.is_dir():
                shutil.copytree(path, place / path.name)
            else:
                shutil.copy(path, place)
        yield place


def word(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return json.dumps(value) if isinstance(value, list) else str(value)


def started(place: Path, values: dict[str, Any], *, by_file: bool) -> Ended:
    words = [f"{option(name)}={word(value)}" for name, value in values.items()]
    if by_file:
        (place / "run.yaml").write_text(yaml.safe_dump(values, allow_unicode=True))
        words = ["--config", "run.yaml"]
    return trainer("train", "--data-pth", "data", "--log-pth", "log", "--out", "out", *words)(place)


def ended_well(place: Path, values: dict[str, Any]) -> None:
    """All lines are whole; the last is the schedule's end, or says that the run diverged."""
    lines = [json.loads(line) for line in (place / "out/metrics.jsonl").read_text().splitlines()]
    settings = RunSettings(**values)
    samples = settings.train_subset or SAMPLES
    steps = settings.steps_per_epoch or samples // settings.total_batch_size
    diverged = lines[-1]["diverged"]
    assert settings.allow_divergence or not diverged
    assert diverged or lines[-1]["step"] == make_schedule(settings, steps).steps
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    assert torch.load(place / "out/model.pt", weights_only=True)
    event("diverged" if diverged else "completed")


def ended_in_one_line(ended: Ended) -> None:
    assert ended.status == 2, ended.text
    [line] = ended.errors
    assert line.isprintable() and "Traceback" not in ended.text, ended.text
    assert "not finite" not in line or "start.pt" in line or re.search(r"step \d+", line), line
    event(re.sub(r"\d[\d.e+-]*", "#", line)[:60])


@given(values=runs(), by_file=st.booleans())
@examples(120)
def test_any_run_ends_as_its_schedule_says_or_in_one_line(
    values: dict[str, Any], by_file: bool, inputs: Path
) -> None:
    with place_with(inputs) as place:
        ended = started(place, values, by_file=by_file)
        if ended.status == 0:
            ended_well(place, values)
        else:
            ended_in_one_line(ended)
            assert not (place / "out/metrics.jsonl").exists()


# Epochs first: a file that is cut must not ask for many.
RUN_FILE = "epochs: 1\nclients: serial\nbatch_size: 8\ntotal_batch_size: 32\ntrain_subset: 160\n"
FILES = ("data/train.beton", "data/train.beton.json", "data/test.beton", "start.pt", "run.yaml")
FROM_FILES = trainer(
    "train", "--config", "run.yaml", "--data-pth", "data", "--log-pth", "log", "--out", "out",
    "--resume-pth", "start.pt",
)  # fmt: skip


@pytest.fixture(scope="module")
def undamaged(inputs: Path) -> tuple[Path, dict[str, str]]:
    (inputs / "run.yaml").write_text(RUN_FILE)
    with place_with(inputs) as place:
        assert FROM_FILES(place).status == 0
        return inputs, contents(place, "out/*")


@given(
    file=st.sampled_from(FILES),
    at=st.floats(0, 1, exclude_max=True),
    damage=st.sampled_from(["cut", "flip", "zeros", "more", "doubled"]),
    bit=st.integers(0, 7),
)
@examples(100)
def test_a_damaged_file_changes_nothing_or_is_named(
    file: str, at: float, damage: str, bit: int, undamaged: tuple[Path, dict[str, str]]
) -> None:
    inputs, wanted = undamaged
    with place_with(inputs, copied=True) as place:
        content = bytearray((place / file).read_bytes())
        byte = int(at * len(content))
        if damage == "flip":
            content[byte] ^= 1 << bit
        else:
            after = {"cut": b"", "zeros": bytes(len(content) - byte), "more": bytes([bit]) * 9,
                     "doubled": bytes(content)}[damage]  # fmt: skip
            keep = byte if damage in ("cut", "zeros") else len(content)
            content[keep:] = after
        (place / file).write_bytes(content)
        ended = FROM_FILES(place)
        if ended.status != 0:
            ended_in_one_line(ended)
            assert file == "run.yaml" or file.removesuffix(".json") in ended.errors[0]
            assert not (place / "out/metrics.jsonl").exists()
        elif file != "run.yaml":
            assert contents(place, "out/*") == wanted
