"""How a GPU computes, as far as a machine without one can tell: which switches are set when."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from trainer.distributed.world import World, join_world
from trainer.local_sgd.sharpness import Sharpness
from trainer.run.arithmetic import full_float32
from trainer.run.training_run import TrainingRun
from trainer.settings.run import RunSettings

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore what a test changes of this process."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)


@pytest.mark.parametrize("before", [True, False])
def test_tf32_is_off_within_and_as_before_after(before: bool) -> None:
    torch.backends.cudnn.allow_tf32 = before
    with pytest.raises(ZeroDivisionError), full_float32():
        assert torch.backends.cudnn.allow_tf32 is False
        raise ZeroDivisionError
    assert torch.backends.cudnn.allow_tf32 is before


def test_sharpness_is_measured_without_tf32(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def measured(*_: object, **__: object) -> Sharpness:
        seen.append(torch.backends.cudnn.allow_tf32)
        return Sharpness(trace=1.0, largest_eigenvalue=1.0)

    monkeypatch.setattr("trainer.run.training_run.sharpness", measured)
    settings = RunSettings(data_pth=digits, sharpness=True)
    run = TrainingRun(settings, World(0, 1, CPU))
    assert run.score(run.schedule.initial_round()).hessian_trace == 1.0
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32 is True


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_run_on_a_gpu_uses_deterministic_convolutions(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def leased(*_: object) -> Iterator[int]:
        yield 0

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.set_device", lambda _: None)
    monkeypatch.setattr("trainer.distributed.world.visible_gpus", lambda: ["a"])
    monkeypatch.setattr("trainer.distributed.world.own_gpu", leased)
    with join_world(RunSettings(device=device)) as world:
        assert world.device.type == device
        assert torch.backends.cudnn.deterministic is (device == "cuda")
