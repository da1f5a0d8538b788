"""A checkpoint goes on by any way of execution and on any number of processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.reference import local_sgd
from tests import going_on
from tests.conftest import more
from tests.going_on import OPTIMIZER, PROCESSES, K, data, in_processes, lr, nodes
from tests.test_reference import WORLD
from trainer.checkpoint import Checkpoints
from trainer.data.specs import DATASETS
from trainer.models import build

pytestmark = pytest.mark.slow  # it begins early


ONE_STEP, SEVERAL = (1,) * 8, (3, 3, 2)


@pytest.mark.parametrize(
    ("rounds", "policy"),
    [
        (ONE_STEP, "keep"),
        (SEVERAL, "keep"),
        more(ONE_STEP, "average"),
        more(ONE_STEP, "reset"),
        more(SEVERAL, "average"),
        more(SEVERAL, "reset"),
    ],
)
def test_every_way_goes_on_from_every_other_as_if_nothing_had_come_between(
    tmp_path: Path, rounds: tuple[int, ...], policy: str
) -> None:
    """Each client has momentum of its own; no way may lose it, or give it to another client."""
    in_processes(max(PROCESSES), going_on.go_on, tmp_path, rounds, policy)
    ends = torch.load(tmp_path / "ends.pt", weights_only=True)
    assert len(ends) == len(nodes(rounds)) ** 2
    model = local_sgd(
        build("mlp", DATASETS["digits"], seed=5).double(),
        data(),
        rounds,
        K,
        lr,
        weight_decay=OPTIMIZER.weight_decay,
        momentum=OPTIMIZER.momentum,
        nesterov=OPTIMIZER.nesterov,
        momentum_averaging=policy,
    )
    wanted = nn.utils.parameters_to_vector(model.parameters())
    errors = {pair: (flat - wanted).abs().max().item() for pair, flat in ends.items()}
    assert {pair: error for pair, error in errors.items() if not error < 1e-10} == {}


def test_clients_keep_their_numbers_after_more_than_ten_processes(tmp_path: Path) -> None:
    """The name of the third's file comes after that of the twelfth's."""
    in_processes(12, going_on.save_numbered, tmp_path, 12, 24)
    checkpoint = Checkpoints(tmp_path, WORLD, "numbered").newest()
    assert checkpoint is not None
    for size in (24, 12, 8, 6, 3, 1):  # clients of each process that goes on
        for start in range(0, 24, size):
            share = checkpoint.share(range(start, start + size))
            numbers = torch.arange(start, start + size, dtype=torch.float64)[:, None]
            assert torch.equal(share.parameters["w"], numbers)
            assert torch.equal(share.momentum["w"], -numbers)
            assert share.loss_sum == sum(n for n in range(start, start + size) if n % 2 == 0)
