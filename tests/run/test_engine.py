"""Whole runs: what they write, and on one, two and four processes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.analysis.test_reference import VARIANTS, WORLD, settings
from tests.commands import torchrun
from tests.conftest import assert_same_metrics, metrics, more
from tests.plain_batches import prepared
from trainer.data.specs import DATASETS
from trainer.models.registry import build
from trainer.run.build import initial_model
from trainer.run.session import train
from trainer.run.training_run import TrainingRun
from trainer.settings import cli
from trainer.settings.run import RunSettings


def test_metrics_have_a_line_per_evaluated_round(digits: Path, tmp_path: Path) -> None:
    train(settings(digits, log_pth=tmp_path / "log", out=tmp_path / "out"), WORLD)
    lines = metrics(tmp_path / "out")
    assert [line["step"] for line in lines] == [0, 3, 6, 7, 12, 17, 21]
    assert [line["round"] for line in lines] == [0, 1, 2, 3, 4, 5, 6]
    assert [line["phase"] for line in lines] == [0, 0, 0, 0, 1, 1, 1]
    assert [line["lr"] for line in lines] == pytest.approx([0.2] * 4 + [0.02] * 3)
    parameters = 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10
    assert [line["bytes_sent"] for line in lines] == [8 * parameters * r for r in range(7)]
    assert lines[-1]["epoch"] == 3
    assert lines[0]["train_loss"] is None
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "metrics.jsonl", "model.pt", "provenance.json", "settings.json",
    }  # fmt: skip
    assert not (tmp_path / "log" / "metrics.partial.jsonl").exists()


def test_held_out_samples_are_those_that_the_subset_leaves_out(
    digits: Path, tmp_path: Path
) -> None:
    chosen = settings(digits, log_pth=tmp_path, evaluate_on="held_out")
    train(chosen, WORLD)
    content = np.load(digits / "train.npz")
    images, _ = prepared(chosen)
    used = {image.tobytes() for image in images}
    left = [i for i, image in enumerate(content["images"]) if image.tobytes() not in used]
    assert chosen.train_subset is not None
    assert len(left) == len(content["images"]) - chosen.train_subset
    model, spec = initial_model(chosen).double(), DATASETS["digits"]
    model.load_state_dict(state(tmp_path / "model.pt"))
    pixels = torch.from_numpy(content["images"][left] / 255).movedim(-1, -3)
    scores = model((pixels - spec.mean[0]) / spec.std[0])
    right = int((scores.argmax(1).numpy() == content["labels"][left]).sum())
    assert metrics(tmp_path)[-1]["test_accuracy"] == pytest.approx(right / len(left))


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def test_models_are_saved_at_the_start_at_decays_and_as_often_as_asked(
    digits: Path, tmp_path: Path
) -> None:
    """Rounds end at steps 3, 6, 7 and 12, 17, 21, of 7 steps an epoch from epoch 0 on."""
    often = settings(
        digits, model="cnn_bn", log_pth=tmp_path / "often", clients="serial",
        save_freq1=2, eval_freq1=9, save_freq2=3,
    )  # fmt: skip
    train(often, WORLD)
    names = {path.name for path in (tmp_path / "often").iterdir()}
    assert {name for name in names if name.endswith(".pt")} == {
        "init.pt", "epoch=0.857143_round=2.pt", "phase_epoch=1.pt", "epoch=3_round=6.pt",
        "latest.pt", "model.pt",
    }  # fmt: skip
    saved = {name: state(tmp_path / "often" / name) for name in names if name.endswith(".pt")}
    assert same(saved["init.pt"], initial_model(often).state_dict())
    for name in ("epoch=3_round=6.pt", "latest.pt"):
        assert same(saved[name], saved["model.pt"])
    # A run that ends after 7 steps ends with the model of the decay, BatchNorm included.
    short = often.model_copy(update={"log_pth": tmp_path / "one", "epochs": 1, "decay1": None})
    train(short, WORLD)
    assert same(saved["phase_epoch=1.pt"], state(tmp_path / "one" / "model.pt"))
    assert not same(saved["epoch=0.857143_round=2.pt"], saved["phase_epoch=1.pt"])
    rare = often.model_copy(update={"save_freq1": None, "save_freq2": None, "log_pth": tmp_path})
    train(rare, WORLD)
    assert not list(tmp_path.glob("epoch=*"))
    assert metrics(tmp_path) == metrics(tmp_path / "often")


def test_what_a_killed_run_left_half_written_is_gone_after_the_next(
    digits: Path, tmp_path: Path
) -> None:
    for folder in ("log", "out"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".latest.pt.77.tmp").write_bytes(b"half")
    train(settings(digits, log_pth=tmp_path / "log", out=tmp_path / "out"), WORLD)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_run_from_a_start_point_saves_no_initial_model(digits: Path, tmp_path: Path) -> None:
    train(settings(digits, log_pth=tmp_path / "one"), WORLD)
    start = tmp_path / "one" / "model.pt"
    train(settings(digits, log_pth=tmp_path / "two", resume=3, resume_pth=str(start)), WORLD)
    assert {path.name for path in (tmp_path / "two").glob("*.pt")} == {
        "latest.pt", "model.pt", "phase_epoch=4.pt",
    }  # fmt: skip


SGD, ADAMW = {"momentum": 0.9}, {"optimizer": "adamw", "start_lr": 0.001}


@pytest.mark.parametrize(
    ("optimizer", "policy", "models"),
    [(SGD, "keep", 1), (SGD, "average", 2), (SGD, "reset", 1), (ADAMW, "average", 3)],
)
def test_averaging_momentum_sends_more_models(
    digits: Path, tmp_path: Path, optimizer: dict[str, object], policy: str, models: int
) -> None:
    chosen = settings(digits, log_pth=tmp_path, momentum_averaging=policy, **optimizer)
    train(chosen, WORLD)
    last = metrics(tmp_path)[-1]
    parameters = sum(p.numel() for p in build("mlp", DATASETS["digits"], 0).parameters())
    assert last["bytes_sent"] == 8 * parameters * last["round"] * models


def test_the_train_loss_is_the_mean_over_steps_and_clients_since_the_last_line(
    digits: Path, tmp_path: Path
) -> None:
    chosen = settings(digits, log_pth=tmp_path, step1=7, decay1=None, step2=1, epochs=1)
    run = TrainingRun(chosen, WORLD)
    batches = run.training.batches(run.sampler, range(4), 0, 0)
    losses = torch.stack([run.clients.step(next(batches), 0.2).mean() for _ in range(7)])
    train(chosen, WORLD)
    assert metrics(tmp_path)[-1]["train_loss"] == pytest.approx(losses.mean().item(), rel=1e-12)


def test_a_run_repeats_itself_bit_for_bit(digits: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(settings(digits, precision="fp32", log_pth=tmp_path / name), WORLD)
    a, b = (tmp_path / name / "metrics.jsonl" for name in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()


def test_phase_2_goes_on_from_phase_1_with_fresh_epochs(digits: Path, tmp_path: Path) -> None:
    train(settings(digits, log_pth=tmp_path / "one"), WORLD)
    start = tmp_path / "one" / "model.pt"
    train(settings(digits, log_pth=tmp_path / "two", resume=3, resume_pth=str(start)), WORLD)
    first, second = metrics(tmp_path / "one")[-1], metrics(tmp_path / "two")[0]
    assert second["epoch"] == first["epoch"] == 3
    assert second["test_accuracy"] == first["test_accuracy"]
    assert second["test_loss"] == pytest.approx(first["test_loss"], rel=1e-12)
    run = TrainingRun(settings(digits, resume=3, resume_pth=str(start)), WORLD)
    later = next(run.training.batches(run.sampler, range(4), 0, 3))
    earlier = next(run.training.batches(run.sampler, range(4), 0, 0))
    assert not torch.equal(later.labels, earlier.labels)


@pytest.mark.parametrize(
    "variant", [more("plain"), "batchnorm", "noise", more("momentum_average"), more("swa")]
)
def test_one_two_and_four_processes_give_the_same_metrics(
    digits: Path, tmp_path: Path, variant: str
) -> None:
    chosen = settings(digits, precision="fp32", **VARIANTS[variant].changes)
    names = [name for name in RunSettings.model_fields if name not in ("log_pth", "out")]
    options = shlex.split(cli.options(chosen, names))
    for processes in (1, 2, 4):
        done = torchrun(processes, "train", *options, "--log-pth", tmp_path / str(processes))
        assert done.returncode == 0, done.stderr
        assert f"on {processes} process(es)" in done.stderr
        assert "(4 dropped)" in done.stderr or variant == "replacement"
    for processes in (2, 4):
        assert_same_metrics(metrics(tmp_path / "1"), metrics(tmp_path / str(processes)))
        written = json.loads((tmp_path / str(processes) / "provenance.json").read_text())
        assert written["processes"] == processes


def test_a_model_that_draws_numbers_trains_alike_on_one_and_two_processes(
    tiny_cifar10: Path, tmp_path: Path
) -> None:
    """Train torchvision's smallest model with dropout and BatchNorm."""
    for processes in (1, 2):
        done = torchrun(
            processes, "train", "--model", "mobilenet_v3_small", "--dataset", "cifar10",
            "--data-pth", tiny_cifar10, "--log-pth", tmp_path / str(processes), "--epochs", 1,
            "--batch-size", 8, "--total-batch-size", 32, "--step1", 2, "--bn-batches", 3,
            "--precision", "fp64",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert_same_metrics(metrics(tmp_path / "1"), metrics(tmp_path / "2"))


def test_sharpness_is_measured_at_each_evaluation_when_asked(digits: Path, tmp_path: Path) -> None:
    asked = {"sharpness": True, "sharpness_samples": 50, "sharpness_probes": 3}
    for name, changes in {"off": {}, "on": asked, "more": asked | {"sharpness_probes": 4}}.items():
        one_phase = {"epochs": 1, "decay1": None, "step2": 1}
        train(settings(digits, log_pth=tmp_path / name, **one_phase, **changes), WORLD)
    off, on, more = (metrics(tmp_path / name) for name in ("off", "on", "more"))
    sharp = ("hessian_trace", "hessian_largest_eigenvalue")
    assert all(line[key] is None for line in off for key in sharp)
    assert all(line["hessian_largest_eigenvalue"] > 0 for line in on)
    assert all(a["hessian_trace"] != b["hessian_trace"] for a, b in zip(on, more, strict=True))
    assert [{**line, **dict.fromkeys(sharp)} for line in on] == off


def test_clients_that_processes_cannot_share_are_refused(digits: Path, tmp_path: Path) -> None:
    done = torchrun(2, "train", "--data-pth", digits, "--log-pth", tmp_path / "run",
                    "--batch-size", 8, "--total-batch-size", 24)  # fmt: skip
    assert done.returncode != 0
    [message] = {line for line in done.stderr.splitlines() if line.startswith("error: ")}
    assert "2 processes cannot share K = 3 clients" in message
    assert "start 1, 3 processes" in message
    assert not (tmp_path / "run").exists()
