"""Test the rules for H against their formulas, and what is said of a user's own."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.commands import FORKED, command
from tests.conftest import metrics
from trainer.errors import UserError
from trainer.local_sgd.h_rules import POWERS, InversePower, RoundStart, require_rule
from trainer.run.build import make_schedule
from trainer.settings.run import RunSettings


@given(
    st.sampled_from([("inverse", 1), ("qsr", 2), ("cubic", 3)]),
    st.floats(0.001, 0.2),
    st.integers(1, 8),
    st.sampled_from(["step", "cosine"]),
)
@example(("cubic", 3), 0.134765625, 3, "cosine")  # H of 7e9, for which 1e-9 is several steps
def test_h_is_its_power_of_lr_at_each_rounds_first_step(
    rule: tuple[str, int], alpha: float, h_base: int, lr_schedule: str
) -> None:
    name, power = rule
    decay = {"decay1": 6, "gamma": 0.5} if lr_schedule == "step" else {}
    chosen = RunSettings(
        epochs=12, h_rule=name, alpha=alpha, h_base=h_base, start_lr=0.1,
        lr_schedule=lr_schedule, **decay,
    )  # fmt: skip
    schedule = make_schedule(chosen, 10)
    for round in schedule.rounds():
        h = (alpha / schedule.lr(round.start)) ** power
        assert max(h_base, int(h)) <= round.local_steps <= max(h_base, int(h * (1 + 1e-8)))
    rounds = list(schedule.rounds())
    assert all(a.local_steps <= b.local_steps for a, b in pairwise(rounds))


def start_of(lr: float) -> RoundStart:
    return RoundStart(step=0, steps=9, lr=lr, local_steps=1)


@pytest.mark.parametrize(("alpha", "lr", "h"), [(0.3, 0.1, 9), (0.6, 0.2, 9), (0.04, 0.2 * 0.1, 4)])
def test_qsr_takes_a_ratio_that_is_whole_as_whole(alpha: float, lr: float, h: int) -> None:
    """Check that rounding is forgiven: (0.3 / 0.1)² is 8.999… in floating point."""
    assert math.floor((alpha / lr) ** 2) == h - 1
    assert InversePower(power=2, h_base=1, alpha=alpha)(start_of(lr)) == h


@pytest.mark.parametrize("power", POWERS.values())
@pytest.mark.parametrize(("alpha", "lr"), [(1e200, 1e-200), (1e9, 1e-9), (1.0, 5e-324), (1, 0)])
def test_a_ratio_beyond_floats_is_more_than_any_run_has(
    power: int, alpha: float, lr: float
) -> None:
    assert InversePower(power=power, h_base=1, alpha=alpha)(start_of(lr)) == 2**53


def test_qsr_uses_the_h_after_the_warm_up_during_it() -> None:
    chosen = RunSettings(
        epochs=10, h_rule="qsr", alpha=0.2, h_base=1, warm_up=True, warmup_epochs=3,
        start_lr=0.001, max_lr=0.1,
    )  # fmt: skip
    assert {round.local_steps for round in make_schedule(chosen, 8).rounds()} == {4}


def test_post_local_switches_at_its_epoch_whatever_the_learning_rate_does() -> None:
    chosen = RunSettings(
        epochs=4, h_rule="post-local", switch=2, h_base=3, lr_schedule="cosine", start_lr=0.1
    )
    schedule = make_schedule(chosen, 5)
    assert [round.stop for round in schedule.rounds()] == [*range(1, 11), 13, 16, 19, 20]
    phases = [{"epochs": 2}, {"epochs": 2, "local_steps": 3}]
    by_phases = RunSettings.model_validate({"schedule": phases})
    stops = [round.stop for round in make_schedule(by_phases, 5).rounds()]
    assert [round.stop for round in schedule.rounds()] == stops


@pytest.mark.parametrize("name", ["qsrs", "", ":", "a:", ":b", "a b:c", "a:b.c", "a..b:c", "a:b:c"])
def test_a_name_of_no_rule_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="choose one of constant, post-local, inverse, qsr, cubic"):
        require_rule(name)


OWN = """
def grows(start):
    return 1 + start.step * start.local_steps // 4

def half(start): return start.steps / 2
def none(start): return 0
def true(start): return True
def fails_late(start): return 3 // (start.step < 9)
large = 10
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder of a user's rules, which Python finds."""
    (tmp_path / "my_rules.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "typing_error.py").write_text("import os\nos.nothing\nf = print\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_users_rule_is_found_by_trainer_and_launcher(digits: Path, own: Path) -> None:
    words = (
        "train", "--data-pth", digits, "--batch-size", 8, "--total-batch-size", 32, "--epochs", 4,
        "--train-subset", 160, "--step1", 2, "--h-rule", "my_rules:grows",
    )  # fmt: skip
    launch = ("trainer.launch", "--nproc-per-node", 2, *FORKED)
    for module in (("trainer",), launch):
        folder = own / module[0]
        done = command(sys.executable, "-m", *module, *words, "--log-pth", folder)
        assert done.returncode == 0, done.stderr
        lines = metrics(folder)
        assert [line["step"] for line in lines] == [1, 2, 4, 7, 11, 17, 20]
        assert [line["local_steps"] for line in lines] == [1, 1, 2, 3, 4, 6, 9]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent:f", ["module absent cannot be imported", "No module named", "PYTHONPATH"]),
        ("broken:f", ["module broken cannot be imported (ZeroDivisionError", "fix it"]),
        ("typing_error:f", ["module typing_error cannot be imported (AttributeError", "nothing"]),
        ("my_rules:f", ["module my_rules has no function f", "check the name"]),
        ("my_rules:large", ["large is not a function"]),
        ("my_rules:half", ["returned 10.0 at step 0", "return an int of at least 1"]),
        ("my_rules:none", ["returned 0 at step 0", "return an int of at least 1"]),
        ("my_rules:true", ["returned True at step 0", "return an int of at least 1"]),
        ("my_rules:fails_late", ["raised ZeroDivisionError", "at step 9", "fix the function"]),
    ],
)
def test_what_is_wrong_with_a_users_rule_is_said_before_any_training(
    own: Path, name: str, said: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        make_schedule(RunSettings(epochs=4, h_rule=name), 5)
    for part in [f"h_rule {name}", *said]:
        assert part in str(error.value)
