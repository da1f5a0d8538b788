"""Compare two tiny runs in float64 with stored metrics, so that no trajectory drifts unnoticed.

A change that is meant to change the numbers regenerates them:
``pytest tests/local_sgd/test_golden.py --regenerate``, and says so in its commit message.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import metrics
from trainer.distributed.world import World
from trainer.run.session import train
from trainer.settings.run import RunSettings

GOLDEN = Path(__file__).parent / "golden"
RUNS: dict[str, dict[str, object]] = {
    "post_local": {
        "model": "mlp", "batch_size": 5, "total_batch_size": 20, "train_subset": 120,
        "epochs": 4, "decay1": 2, "step1": 1, "step2": 4, "eval_freq1": 3, "start_lr": 0.05,
        "eval_on_start": True,
    },
    "label_noise": {
        "model": "cnn_bn", "batch_size": 6, "total_batch_size": 12, "train_subset": 60,
        "epochs": 3, "h_rule": "qsr", "h_base": 2, "alpha": 0.2, "lr_schedule": "cosine",
        "warm_up": True, "warmup_epochs": 1, "start_lr": 0.02, "max_lr": 0.1, "momentum": 0.9,
        "replacement": True, "label_noise": True, "group_weight": True, "bn_batches": 3,
        "sharpness": True, "sharpness_samples": 20, "sharpness_probes": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_run_follows_its_stored_trajectory(
    digits: Path, tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    settings = RunSettings.model_validate(
        RUNS[name] | {"data_pth": digits, "log_pth": tmp_path, "seed": 1, "precision": "fp64"}
    )
    train(settings, World(0, 1, torch.device("cpu")))
    if request.config.getoption("--regenerate"):
        shutil.copyfile(tmp_path / "metrics.jsonl", GOLDEN / name / "metrics.jsonl")
    stored, got = metrics(GOLDEN / name), metrics(tmp_path)
    assert len(got) == len(stored) > 3
    for left, right in zip(got, stored, strict=True):
        for key, value in right.items():
            wanted = value if value is None else pytest.approx(value, rel=1e-8)
            assert left[key] == wanted, (left["step"], key)
