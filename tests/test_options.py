"""Each option of a training run changes what it says it changes, and nothing less.

A test names the options that it covers; the last one finds those that none does.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import assert_same_metrics, metrics
from trainer.assembly import initial_model, load_data, make_sampler
from trainer.config import RunSettings
from trainer.engine import Run, train
from trainer.errors import UserError
from trainer.files import sha256
from trainer.processes import World, join_world

WORLD = World(0, 1, torch.device("cpu"))
COVERED: set[str] = set()
Test = Callable[..., None]


def covers(*names: str) -> Callable[[Test], Test]:
    COVERED.update(names)
    return lambda test: test


class Trained:
    """A run of 4 epochs of 5 steps: K = 4 clients of B_loc = 8, H = 2, η = 0.04; float64."""

    def __init__(self, data: Path, folder: Path, **changes: object) -> None:
        self.settings = configured(data, log_pth=folder, **changes)
        train(self.settings, WORLD)
        self.folder = folder
        self.metrics = metrics(self.settings.out or folder)

    def column(self, key: str) -> list[Any]:
        return [line[key] for line in self.metrics]

    def state(self, name: str = "model.pt") -> dict[str, Tensor]:
        state: dict[str, Tensor] = torch.load(self.folder / name, weights_only=True)
        return state


def configured(data: Path, **changes: object) -> RunSettings:
    values: dict[str, object] = {
        "data_pth": data, "batch_size": 8, "total_batch_size": 32, "train_subset": 160,
        "epochs": 4, "step1": 2, "start_lr": 0.01, "wd": 0.0, "precision": "fp64", "seed": 5,
    }  # fmt: skip
    return RunSettings.model_validate(values | changes)


@pytest.fixture
def trained(digits: Path, tmp_path: Path) -> Callable[..., Trained]:
    def run(**changes: object) -> Trained:
        return Trained(digits, tmp_path / str(len(list(tmp_path.iterdir()))), **changes)

    return run


def first_batch(settings: RunSettings) -> tuple[Tensor, Tensor]:
    training, _ = load_data(settings, WORLD.device)
    sampler = make_sampler(settings, len(training))
    clients = range(settings.num_clients)
    batch = next(training.batches(sampler, clients, 0, settings.resume))
    return batch.images, batch.labels


# Model


@covers("model", "dataset")
def test_the_model_is_built_for_the_data_set(digits: Path) -> None:
    assert initial_model(configured(digits, model="cnn"))[0].weight.shape == (16, 1, 3, 3)
    cifar = configured(digits, model="cnn", dataset="cifar10")
    assert initial_model(cifar)[0].weight.shape == (16, 3, 3, 3)
    assert isinstance(initial_model(configured(digits, model="mlp"))[1], nn.Linear)


@covers("n_groups")
@pytest.mark.parametrize("n_groups", [1, 4, 16])
def test_n_groups_is_that_of_every_groupnorm(n_groups: int) -> None:
    model = initial_model(RunSettings(model="resnet20_gn", n_groups=n_groups))
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 19
    assert {norm.num_groups for norm in norms} == {n_groups}


@covers("bn", "bn_batches")
def test_batchnorm_is_reestimated_on_so_many_batches(trained: Callable[..., Trained]) -> None:
    few, more, implied = (
        trained(model="cnn_bn", bn=True, bn_batches=1),
        trained(model="cnn_bn", bn=True, bn_batches=9),
        trained(model="cnn_bn", bn_batches=9),
    )
    assert few.state()["1.num_batches_tracked"] == 1
    assert more.state()["1.num_batches_tracked"] == 9
    for name, value in few.state().items():
        assert torch.equal(value, more.state()[name]) == (
            "running" not in name and "num" not in name
        )
    assert implied.metrics == more.metrics != few.metrics


# Data


@covers("data_pth", "train_pth", "val_pth", "train_subset")
def test_samples_come_from_the_files_named(digits: Path, tiny_cifar10: Path) -> None:
    def sizes(**changes: object) -> tuple[int, int]:
        training, test = load_data(configured(digits, **changes), WORLD.device)
        return len(training), len(test)

    assert sizes() == (160, 1000)
    assert sizes(train_subset=None) == (797, 1000)
    assert sizes(train_subset=None, train_pth=digits / "test.beton") == (1000, 1000)
    assert sizes(val_pth=digits / "train.beton") == (160, 797)
    other = {"dataset": "cifar10", "model": "cnn", "data_pth": tiny_cifar10, "train_subset": None}
    assert sizes(**other) == (64, 32)


@covers("nw")
def test_nw_threads_gather_the_same_batches(trained: Callable[..., Trained]) -> None:
    plain, threaded = trained(), trained(nw=2)
    assert plain.metrics == threaded.metrics
    run = Run(threaded.settings, WORLD)
    batches = run.training.batches(run.sampler, run.clients, 0, 0)
    next(batches)
    assert any(thread.name.startswith("loader") for thread in threading.enumerate())
    batches.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("loader") for thread in threading.enumerate())


@covers("aug")
def test_aug_shifts_images(digits: Path) -> None:
    raw = load_data(configured(digits), WORLD.device)[0]
    known = raw.normalise(raw.images).flatten(1)

    def unchanged(images: Tensor) -> float:
        same = (images.flatten(0, 1).flatten(1)[:, None] == known).all(-1).any(1)
        return same.double().mean().item()

    assert unchanged(first_batch(configured(digits, aug=False))[0]) == 1
    assert unchanged(first_batch(configured(digits, aug=True))[0]) < 0.5


@covers("replacement")
def test_replacement_lets_a_sample_come_twice(digits: Path) -> None:
    for replacement in (False, True):
        settings = configured(digits, replacement=replacement)
        epoch = make_sampler(settings, 160).epoch(0)
        assert (len(np.unique(epoch)) < epoch.size) == replacement


@covers("label_noise", "noise_p")
def test_label_noise_changes_a_share_p_of_the_labels(digits: Path) -> None:
    from scipy import stats

    clean = first_batch(configured(digits, batch_size=40, total_batch_size=160))[1]
    for p in (0.1, 0.6):
        noisy = configured(digits, batch_size=40, total_batch_size=160, label_noise=True, noise_p=p)
        changed = int((first_batch(noisy)[1] != clean).sum())
        assert stats.binomtest(changed, 160, p).pvalue > 1e-3
    off = configured(digits, batch_size=40, total_batch_size=160, noise_p=0.6)
    assert torch.equal(first_batch(off)[1], clean)


# Start


@covers("resume", "resume_pth", "resume_sha256", "eval_on_start")
def test_a_run_starts_where_it_is_told(trained: Callable[..., Trained]) -> None:
    one = trained()
    path = one.folder / "model.pt"
    start = {"resume": 4, "resume_pth": str(path), "resume_sha256": sha256(path)}
    two = trained(**start, eval_on_start=True)
    assert two.metrics[0]["epoch"] == 4
    assert two.metrics[0]["test_accuracy"] == one.metrics[-1]["test_accuracy"]
    assert trained(**start).metrics == two.metrics[1:]
    with pytest.raises(UserError, match="resume_sha256 asks for"):
        trained(**(start | {"resume_sha256": "0" * 64}))


# Sharpness


@covers("sharpness", "sharpness_samples", "sharpness_probes")
def test_sharpness_is_of_so_many_samples_and_probes(trained: Callable[..., Trained]) -> None:
    off = trained(epochs=1)
    asked = {"epochs": 1, "sharpness": True, "sharpness_samples": 20, "sharpness_probes": 2}
    base, samples, probes = (
        trained(**asked),
        trained(**(asked | {"sharpness_samples": 40})),
        trained(**(asked | {"sharpness_probes": 3})),
    )
    trace, largest = "hessian_trace", "hessian_largest_eigenvalue"
    assert set(off.column(trace) + off.column(largest)) == {None}
    assert base.column(trace) != probes.column(trace)
    assert base.column(largest) == pytest.approx(probes.column(largest), rel=1e-6)
    assert base.column(largest) != pytest.approx(samples.column(largest), rel=1e-3)
    assert base.column("test_loss") == off.column("test_loss")


# Clients


@covers("batch_size", "total_batch_size")
@pytest.mark.parametrize(("local", "total", "clients"), [(8, 32, 4), (16, 32, 2), (8, 64, 8)])
def test_batch_sizes_make_the_clients(digits: Path, local: int, total: int, clients: int) -> None:
    run = Run(configured(digits, batch_size=local, total_batch_size=total), WORLD)
    assert run.bank.num_clients == clients
    images, _ = first_batch(run.settings)
    assert images.shape == (clients, local, 1, 8, 8)


@covers("clients")
def test_clients_are_executed_as_told(
    trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    import trainer.clients

    calls, vmap = [], trainer.clients.vmap
    monkeypatch.setattr("trainer.clients.vmap", lambda f: calls.append(f) or vmap(f))
    serial = trained(clients="serial")
    assert not calls
    vectorized = trained(clients="vectorized")
    assert len(calls) == 20
    assert_same_metrics(serial.metrics, vectorized.metrics)


# Schedule: 4 epochs of 5 steps; without decays, rounds of H = 2 end at 2, 4, …, 20

EVEN = list(range(2, 21, 2))
DECAYS = {"decay1": 1, "decay2": 2, "decay3": 3}


@covers("epochs", "steps_per_epoch", "step1", "step2", "step3", "decay1", "decay2", "decay3",
        "eval_freq1", "eval_freq2", "eval_freq3", "h_rule", "h_base", "alpha")  # fmt: skip
@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, EVEN),
        ({"epochs": 1}, [2, 4, 5]),
        ({"steps_per_epoch": 3}, EVEN[:6]),
        ({"step1": 7}, [7, 14, 20]),
        ({"decay1": 3}, [2, 4, 6, 8, 10, 12, 14, 15, 16, 17, 18, 19, 20]),
        ({"decay1": 3, "step2": 4}, [2, 4, 6, 8, 10, 12, 14, 15, 19, 20]),
        ({"decay1": 1, "decay2": 3, "step2": 9, "step3": 3}, [2, 4, 5, 14, 15, 18, 20]),
        (DECAYS | {"step2": 9, "step3": 4}, [2, 4, 5, 10, 14, 15, 19, 20]),
        ({"eval_freq1": 3}, [6, 12, 18, 20]),
        ({"decay1": 2, "eval_freq1": 5, "eval_freq2": 4}, [10, 14, 18, 20]),
        ({"decay1": 1, "decay2": 2, "eval_freq1": 9, "eval_freq2": 9, "eval_freq3": 6}, [16, 20]),
        ({"decay1": 2, "gamma": 0.5, "step1": 1, "h_rule": "qsr", "alpha": 0.08},
         [4, 8, 10, 20]),  # (0.08/0.04)² = 4, then 16
        ({"decay1": 2, "gamma": 0.5, "step1": 1, "h_rule": "qsr", "alpha": 0.04, "h_base": 3},
         [3, 6, 9, 10, 14, 18, 20]),  # 1 and 4, at least 3
    ],
)  # fmt: skip
def test_rounds_end_and_are_evaluated_when_told(
    trained: Callable[..., Trained], changes: dict[str, object], steps: list[int]
) -> None:
    assert trained(**changes).column("step") == steps


@covers("gamma", "decay1", "decay2", "decay3")
def test_the_learning_rate_decays_by_gamma(trained: Callable[..., Trained]) -> None:
    lr = trained(**DECAYS, gamma=0.5, step1=5, step2=5, step3=5).column("lr")
    assert lr == pytest.approx([0.04, 0.02, 0.01, 0.005])


@covers("save_freq1", "save_freq2", "save_freq3")
def test_models_are_saved_as_often_as_told_in_each_phase(trained: Callable[..., Trained]) -> None:
    phases = {"decay1": 1, "decay2": 2, "step1": 1, "step2": 1, "step3": 1}
    for changes, rounds in (
        ({"save_freq1": 2}, {2, 4}),
        ({"save_freq2": 3}, {8}),
        ({"save_freq3": 4}, {14, 18}),
    ):
        saved = trained(**phases, **changes).folder.glob("epoch=*_round=*.pt")
        assert {int(path.stem.split("round=")[1]) for path in saved} == rounds


@covers("schedule")
def test_a_list_of_phases_is_the_same_as_flags(trained: Callable[..., Trained]) -> None:
    flags = trained(decay1=1, decay2=3, gamma=0.5, step2=9, step3=3, eval_freq3=2, save_freq2=1)
    phases = [
        {"epochs": 1, "local_steps": 2},
        {"epochs": 2, "lr_factor": 0.5, "local_steps": 9, "save_freq": 1},
        {"epochs": 1, "lr_factor": 0.25, "local_steps": 3, "eval_freq": 2},
    ]
    values = {"schedule": phases, "epochs": 300, "step1": 1}  # the defaults of what it replaces
    listed = trained(**values)
    assert listed.metrics == flags.metrics
    names = [{path.name for path in run.folder.glob("*.pt")} for run in (listed, flags)]
    assert names[0] == names[1]
    assert {"phase_epoch=1.pt", "phase_epoch=3.pt", "epoch=2.8_round=4.pt"} <= names[0]


# Learning rate; lines every step


@covers("lr", "start_lr", "max_lr", "warm_up", "warmup_epochs", "lr_schedule")
@pytest.mark.parametrize(
    ("changes", "lr"),
    [
        ({"start_lr": 0.02}, [0.08] * 20),
        ({"lr": 0.8, "start_lr": 0.01}, [0.1] * 20),
        ({"warm_up": True, "warmup_epochs": 1},
         np.linspace(0.01, 0.04, 6)[:5].tolist() + [0.04] * 15),
        ({"warm_up": True, "warmup_epochs": 2, "max_lr": 0.11},
         np.linspace(0.01, 0.11, 11)[:10].tolist() + [0.11] * 10),
        ({"lr_schedule": "cosine"}, [0.02 * (1 + math.cos(math.pi * t / 20)) for t in range(20)]),
    ],
)  # fmt: skip
def test_the_learning_rate_of_each_step(
    trained: Callable[..., Trained], changes: dict[str, object], lr: list[float]
) -> None:
    assert trained(step1=1, **changes).column("lr") == pytest.approx(lr)


@covers("lr", "total_batch_size", "warm_up")
def test_goyals_warm_up_begins_at_lr(digits: Path) -> None:
    settings = configured(digits, lr=0.1, warm_up=True, warmup_epochs=1, total_batch_size=512)
    assert (settings.initial_lr, settings.peak_lr) == (0.1, pytest.approx(0.2))


# Optimizer: whole runs of one or two steps, against the formula of the update

ONE_STEP = {"epochs": 1, "steps_per_epoch": 1, "step1": 1, "model": "cnn_bn", "bn_batches": 1}
TWO_STEPS = ONE_STEP | {"steps_per_epoch": 2, "step1": 2}


@covers("wd", "group_weight")
def test_weight_decay_shrinks_what_it_should(trained: Callable[..., Trained]) -> None:
    plain, decayed = trained(**ONE_STEP), trained(**ONE_STEP, wd=0.5)
    spared = trained(**ONE_STEP, wd=0.5, group_weight=True)
    initial = plain.state("init.pt")
    for name, _ in initial_model(plain.settings).named_parameters():
        shrunk = plain.state()[name] - 0.04 * 0.5 * initial[name]
        torch.testing.assert_close(decayed.state()[name], shrunk)
        norm_or_bias = name.startswith(("1.", "5.")) or name.endswith("bias")
        wanted = plain.state()[name] if norm_or_bias else shrunk
        torch.testing.assert_close(spared.state()[name], wanted)


@covers("momentum", "nesterov", "momentum_averaging")
def test_momentum_follows_its_formula(trained: Callable[..., Trained]) -> None:
    """With one client: step 1 is −η·g, step 2 −η·(μ·g + g₂); Nesterov's first is −η·(1 + μ)·g."""
    single = {"total_batch_size": 8, "model": "mlp", "start_lr": 0.04, "aug": False}
    one, two = ONE_STEP | single, TWO_STEPS | single

    def moved(**changes: object) -> Tensor:
        run = trained(**changes)
        return nn.utils.parameters_to_vector(run.state().values()) - nn.utils.parameters_to_vector(
            run.state("init.pt").values()
        )

    first, second = moved(**one), moved(**two)
    torch.testing.assert_close(moved(**one, momentum=0.9), first)
    torch.testing.assert_close(moved(**two, momentum=0.9), second + 0.9 * first)
    torch.testing.assert_close(moved(**one, momentum=0.9, nesterov=True), 1.9 * first)
    rounds = two | {"step1": 1, "momentum": 0.9}
    torch.testing.assert_close(moved(**rounds, momentum_averaging="keep"), second + 0.9 * first)
    torch.testing.assert_close(moved(**rounds, momentum_averaging="average"), second + 0.9 * first)
    torch.testing.assert_close(moved(**rounds, momentum_averaging="reset"), second)


@covers("precision")
def test_precision_is_that_of_the_arithmetic(trained: Callable[..., Trained]) -> None:
    runs = {p: trained(precision=p, clients="serial") for p in ("fp64", "fp32", "bf16")}
    types = {p: {value.dtype for value in run.state().values()} for p, run in runs.items()}
    assert types == {"fp64": {torch.float64}, "fp32": {torch.float32}, "bf16": {torch.float32}}
    exact, single, mixed = (np.array(runs[p].column("train_loss")) for p in runs)
    assert 0 < abs(single - exact).max() < 1e-5 < abs(mixed - exact).max() < 0.01


# Run


@covers("seed")
def test_the_seed_decides_initialisation_and_order(digits: Path) -> None:
    a, b = configured(digits, seed=1), configured(digits, seed=2)
    assert not torch.equal(initial_model(a)[1].weight, initial_model(b)[1].weight)
    assert not np.array_equal(make_sampler(a, 160).epoch(0), make_sampler(b, 160).epoch(0))
    assert not torch.equal(first_batch(a)[0], first_batch(b)[0])


@covers("log_pth", "out")
def test_files_land_where_they_are_told(trained: Callable[..., Trained], tmp_path: Path) -> None:
    run = trained(out=tmp_path / "out")
    final = {"metrics.jsonl", "model.pt", "settings.json", "provenance.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == final
    assert {path.name for path in run.folder.iterdir()} == {"init.pt", "latest.pt"}
    assert final < {path.name for path in trained().folder.iterdir()}


@covers("debug")
def test_debug_prints_every_evaluation(
    trained: Callable[..., Trained], capsys: pytest.CaptureFixture[str]
) -> None:
    trained()
    assert "Evaluation(" not in capsys.readouterr().err
    run = trained(debug=True)
    assert capsys.readouterr().err.count("Evaluation(") == len(run.metrics)


@covers("device", "backend")
def test_device_and_backend_are_those_asked_for(digits: Path) -> None:
    with join_world(configured(digits, device="cpu")) as world:
        assert world.device.type == "cpu"
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device: it is not refused")
    for refused in ({"device": "cuda"}, {"backend": "nccl"}):
        name = next(iter(refused))
        with pytest.raises(UserError, match=name), join_world(configured(digits, **refused)):
            pass


def test_every_option_is_covered() -> None:
    """Those of W&B are in tests/test_wandb.py."""
    options = {name for name in RunSettings.model_fields if not name.startswith("wandb")}
    assert options == COVERED
