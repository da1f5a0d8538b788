"""Check the effect of each option of outer optimizers and of means of iterates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.option_runs import Trained, covers


@covers("outer_lr", "outer_momentum", "outer_nesterov", "outer_slowmo")
def test_the_outer_optimizer_follows_its_formula(trained: Callable[..., Trained]) -> None:
    """Check x₁ = x₀ + α·d, where the clients moved d from x₀; Nesterov's is x₀ + α·(1 + μ)·d."""

    def moved(**changes: object) -> Tensor:
        run = trained(**changes)
        ends = (run.state().values(), run.state("init.pt").values())
        last, first = map(nn.utils.parameters_to_vector, ends)
        return last - first

    one = {"epochs": 1, "steps_per_epoch": 2, "model": "mlp"}  # a round
    plain = moved(**one)
    torch.testing.assert_close(moved(**one, outer_lr=0.7), 0.7 * plain)
    torch.testing.assert_close(moved(**one, outer_momentum=0.9), plain)
    torch.testing.assert_close(moved(**one, outer_momentum=0.9, outer_nesterov=True), 1.9 * plain)
    # Two rounds of one client with H = 1, η falling to a hundredth: what the first moved comes
    # again, whole or a hundredth of it. The other terms differ by its effect on a gradient.
    two = {"total_batch_size": 8, "start_lr": 0.04, "epochs": 2, "steps_per_epoch": 1, "aug": False,
           "model": "mlp", "decay1": 1, "gamma": 0.01, "step1": 1}  # fmt: skip
    first, both = moved(**two | {"epochs": 1, "decay1": None}), moved(**two)
    diloco, slowmo = (moved(**two, outer_momentum=0.5, outer_slowmo=s) for s in (False, True))
    torch.testing.assert_close(diloco, both + 0.5 * first)
    torch.testing.assert_close(slowmo, both + 0.005 * first)


@covers("weight_averaging1", "weight_averaging2", "weight_averaging3", "ema_decay")
def test_a_phases_saved_models_are_the_mean_of_what_its_rounds_end_with(
    trained: Callable[..., Trained],
) -> None:
    """Check rounds 1 to 3, 4 to 8 and 9 to 18; a mean changes no round of its own phase."""
    phases = {"decay1": 1, "decay2": 2, "save_freq1": 1, "save_freq2": 1, "save_freq3": 1}

    def after_rounds(**changes: object) -> Tensor:
        run = trained(**phases, model="mlp", **changes)
        names = [path.name for path in run.folder.glob("epoch=*_round=*.pt")]
        names.sort(key=lambda name: int(name.split("round=")[1][:-3]))
        return torch.stack([nn.utils.parameters_to_vector(run.state(n).values()) for n in names])

    iterates = after_rounds()
    assert len(iterates) == 18
    for phase, (first, last) in enumerate(((1, 3), (4, 8), (9, 18)), start=1):
        of_phase = iterates[first - 1 : last]
        swa = after_rounds(**{f"weight_averaging{phase}": "swa"})
        torch.testing.assert_close(swa[: first - 1], iterates[: first - 1], rtol=0, atol=0)
        means = of_phase.cumsum(0) / torch.arange(1, len(of_phase) + 1)[:, None]
        torch.testing.assert_close(swa[first - 1 : last], means)
    ema = after_rounds(weight_averaging3="ema", ema_decay=0.7)[8:]
    expected = of_phase[0]
    for got, iterate in zip(ema, of_phase, strict=True):
        expected = 0.7 * expected + 0.3 * iterate
        torch.testing.assert_close(got, expected)


def test_a_phase_after_a_mean_is_a_run_that_starts_from_it(trained: Callable[..., Trained]) -> None:
    """Check equal bits: no momentum, of clients or of the outer optimizer, outlives the mean."""
    given = {"model": "mlp", "gamma": 0.5, "momentum": 0.9, "outer_momentum": 0.5}
    whole = trained(**given, decay1=2, step2=2, weight_averaging1="swa")
    start = whole.folder / "phase_epoch=2.pt"
    rest = trained(**given, epochs=2, start_lr=0.005, resume=2, resume_pth=str(start))
    assert all(torch.equal(value, rest.state()[name]) for name, value in whole.state().items())
    assert whole.column("test_loss")[-len(rest.metrics) :] == rest.column("test_loss")
