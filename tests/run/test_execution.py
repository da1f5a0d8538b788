"""How a run's clients are executed: what is found by trying, and that a restart repeats it."""

import json
from pathlib import Path

import pytest

from tests.commands import BIN, FORKED, command, torchrun, trainer
from tests.conftest import assert_same_metrics, metrics, one_line

TINY = ("--dataset", "digits", "--batch-size", 32, "--epochs", 3, "--eval-freq1", 1)


def ways(folder: Path) -> dict[str, str]:
    kept = json.loads((folder / "execution.json").read_text())
    return {kind: kept[kind]["way"] for kind in ("one_step", "several_steps")}


@pytest.mark.parametrize(
    ("options", "one_step", "several_steps"),
    [
        ((), {"fused"}, {"fused"}),
        (("--decay1", 1, "--step2", 3), {"fused"}, {"serial", "vectorized"}),
        (("--momentum", 0.9), {"fused"}, {"fused"}),
        (("--clients", "serial"), {"serial"}, {"serial"}),
        (("--clients", "offloaded", "--step1", 2), {"offloaded"}, {"offloaded"}),
    ],
)
def test_a_run_is_executed_as_it_allows(
    digits: Path,
    tmp_path: Path,
    options: tuple[object, ...],
    one_step: set[str],
    several_steps: set[str],
) -> None:
    done = trainer("train", "--data-pth", digits, "--log-pth", tmp_path, *TINY, *options)
    assert done.returncode == 0, done.stderr
    found = ways(tmp_path)
    assert found["one_step"] in one_step and found["several_steps"] in several_steps
    assert f"executed {found['several_steps']}" in done.stderr


def test_momentum_that_clients_keep_is_not_fused_away(digits: Path, tmp_path: Path) -> None:
    options = ("--momentum", 0.9, "--decay1", 1, "--step2", 3)
    done = trainer("train", "--data-pth", digits, "--log-pth", tmp_path, *TINY, *options)
    assert done.returncode == 0, done.stderr
    assert "fused" not in ways(tmp_path).values()


def test_the_same_run_started_again_repeats_the_choice(digits: Path, tmp_path: Path) -> None:
    words = ("train", "--data-pth", digits, "--log-pth", tmp_path, *TINY, "--step1", 3)
    assert trainer(*words).returncode == 0
    first = metrics(tmp_path)
    file = tmp_path / "execution.json"
    for way in ("serial", "vectorized"):
        kept = json.loads(file.read_text())
        kept |= {kind: {"way": way, "clients_per_pass": 2} for kind in ways(tmp_path)}
        file.write_text(json.dumps(kept))
        again = trainer(*words)
        assert f"executed {way}, 2 a pass" in again.stderr
        assert_same_metrics(first, metrics(tmp_path))
    for damaged in ("[]", "{", json.dumps({"run": kept["run"]})):
        file.write_text(damaged)
        anew = trainer(*words)
        assert anew.returncode == 0 and "2 a pass" not in anew.stderr
    other = trainer(*words, "--seed", 1)  # another run: it is found anew
    assert other.returncode == 0 and "2 a pass" not in other.stderr


def test_compiling_without_a_compiler_is_refused(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    words = ("train", "--data-pth", digits, "--log-pth", tmp_path, *TINY, "--compile", 1)
    assert one_line(trainer(*words)) == (
        "error: compile 1 needs a C++ compiler: install g++, or set compile 0"
    )


def test_processes_agree(digits: Path, tmp_path: Path) -> None:
    """One that sums gradients while another averages replicas would hang or differ."""
    words = ("train", "--data-pth", digits, *TINY, "--decay1", 1, "--step2", 3)
    assert trainer(*words, "--log-pth", tmp_path / "one").returncode == 0
    done = torchrun(2, *words, "--log-pth", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert_same_metrics(metrics(tmp_path / "one"), metrics(tmp_path / "two"))


def test_forked_processes_compute_the_same_bits(digits: Path, tmp_path: Path) -> None:
    words = ("train", "--data-pth", digits, *TINY, "--clients", "serial")
    launch = (BIN / "torchrun", "--standalone", "--nproc-per-node", 2)
    own = command(*launch, "-m", "trainer", *words, "--log-pth", tmp_path / "own")
    forked = command(*launch, *FORKED, *words, "--log-pth", tmp_path / "forked")
    assert own.returncode == 0 and forked.returncode == 0, forked.stderr
    assert metrics(tmp_path / "own") == metrics(tmp_path / "forked")
