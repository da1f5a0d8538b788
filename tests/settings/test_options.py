"""Check that each option of a training run has the effect that its help text describes.

A test names the options that it covers; the last one finds those that none does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import assert_same_metrics
from tests.option_runs import COVERED, WORLD, Trained, configured, covers, first_batch
from trainer.distributed.world import join_world
from trainer.errors import UserError
from trainer.files.atomic import sha256
from trainer.local_sgd.clients import ClientBank
from trainer.run.build import initial_model, make_sampler
from trainer.run.training_run import TrainingRun
from trainer.settings.run import RunSettings

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


# Clients


@covers("batch_size", "total_batch_size")
@pytest.mark.parametrize(("local", "total", "clients"), [(8, 32, 4), (16, 32, 2), (8, 64, 8)])
def test_batch_sizes_make_the_clients(digits: Path, local: int, total: int, clients: int) -> None:
    run = TrainingRun(configured(digits, batch_size=local, total_batch_size=total), WORLD)
    assert run.clients.num_clients == clients
    images, _ = first_batch(run.settings)
    assert images.shape == (clients, local, 1, 8, 8)


@covers("clients")
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_clients_are_executed_as_told(
    model: str, trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, losses = [], ClientBank._losses

    def counting(*given: Any) -> Any:
        passes.append(given)
        return losses(*given)

    monkeypatch.setattr(ClientBank, "_losses", counting)
    serial = trained(clients="serial", model=model)
    assert len(passes) == 1 + 20 * 4, "one to see its memory, and each step's clients"
    passes.clear()
    vectorized = trained(clients="vectorized", model=model)
    assert len(passes) == 1 + 20
    assert_same_metrics(serial.metrics, vectorized.metrics)


@pytest.mark.slow
@covers("compile")
def test_a_compiled_run_is_the_same_run(trained: Callable[..., Trained]) -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    plain = trained()
    assert not counters["stats"]["calls_captured"]
    compiled = trained(compile=True)
    assert counters["stats"]["calls_captured"]
    assert_same_metrics(plain.metrics, compiled.metrics)


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
    assert {path.name for path in run.folder.iterdir()} == {
        "init.pt",
        "latest.pt",
    }
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
    """Leave the options of W&B to tests/wandb."""
    for others in (
        "settings.test_options_of_data",
        "settings.test_options_of_averaging",
        "settings.test_options_of_training",
        "data.test_streamed_runs",
        "run.test_preemption",
        "run.test_second_start",
        "run.test_divergence",
        "run.test_checkpoint_policy",
        "distributed.test_nodes",
    ):
        importlib.import_module(f"tests.{others}")
    options = {name for name in RunSettings.model_fields if not name.startswith("wandb")}
    assert options == COVERED
