"""A checkpoint goes on by any way of execution and on any number of processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.reference import local_sgd
from tests import going_on
from tests.analysis.test_reference import WORLD
from tests.conftest import more
from tests.going_on import PROCESSES, K, Method, by_torch, data, in_processes, nodes
from trainer.data.specs import DATASETS
from trainer.local_sgd.optimizer import AdamW
from trainer.local_sgd.outer import Outer
from trainer.models.registry import build
from trainer.run.checkpoint import Checkpoints

pytestmark = pytest.mark.slow  # it begins early


ONE_STEP, SEVERAL = (1,) * 8, (3, 3, 2)
SLOWMO = Outer(lr=0.8, momentum=0.6, slowmo=True)
ADAMW = AdamW(weight_decay=0.1)


@pytest.mark.parametrize(
    ("rounds", "method"),
    [
        (ONE_STEP, Method()),
        (SEVERAL, Method()),
        (SEVERAL, Method(optimizer=ADAMW, outer=SLOWMO)),
        more(ONE_STEP, Method(policy="average")),
        more(ONE_STEP, Method(policy="reset", outer=SLOWMO)),
        more(SEVERAL, Method(policy="average")),
        more(SEVERAL, Method(policy="reset")),
        more(SEVERAL, Method(optimizer=ADAMW, policy="average")),
        more(SEVERAL, Method(optimizer=ADAMW, policy="reset")),
    ],
)
def test_every_way_goes_on_from_every_other_as_if_nothing_had_come_between(
    tmp_path: Path, rounds: tuple[int, ...], method: Method
) -> None:
    """Each client has momentum of its own; no way may lose it, or give it to another client."""
    in_processes(max(PROCESSES), going_on.go_on, tmp_path, rounds, method)
    ends = torch.load(tmp_path / "ends.pt", weights_only=True)
    assert len(ends) == len(nodes(rounds)) ** 2
    optimizer, outer = method.optimizer, method.outer
    model = local_sgd(
        build("mlp", DATASETS["digits"], seed=5).double(),
        data(),
        rounds,
        K,
        method.lr,
        weight_decay=optimizer.weight_decay,
        **by_torch(optimizer),
        momentum_averaging=method.policy,
        outer_lr=outer.lr,
        outer_momentum=outer.momentum,
        outer_slowmo=outer.slowmo,
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
            state = checkpoint.state(range(start, start + size))
            numbers = torch.arange(start, start + size, dtype=torch.float64)[:, None]
            assert torch.equal(state.parameters["w"], numbers)
            assert torch.equal(state.momentum["w"], -numbers)
            assert state.loss_sum == sum(n for n in range(start, start + size) if n % 2 == 0)
