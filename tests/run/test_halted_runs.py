"""A halted run goes on from its newest whole checkpoint, if that is of the same run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.analysis.test_reference import WORLD, settings
from tests.commands import torchrun
from tests.conftest import assert_same_metrics, metrics
from tests.run.test_checkpoint import rewrite_notes
from tests.run.test_resume import bits, checkpoints, stopped
from trainer.data.beton.writer import write_betons
from trainer.data.preparation.prepared import read_prepared, write_prepared
from trainer.run.session import train
from trainer.settings.run import RunSettings
from trainer.tracking.metrics import STATE

pytestmark = pytest.mark.slow  # it begins early


@pytest.fixture
def whole(digits: Path, tmp_path: Path) -> list[bytes]:
    """Train the undisturbed run that the tests below compare with; return its files' bytes."""
    train(settings(digits, log_pth=tmp_path / "whole", clients="serial", momentum=0.9), WORLD)
    return bits(tmp_path / "whole")


@pytest.fixture
def halted(digits: Path, tmp_path: Path) -> RunSettings:
    """Stop the same run mid-round at step 9, and again at step 14; keep its checkpoints."""
    run = settings(digits, log_pth=tmp_path / "run", clients="serial", momentum=0.9)
    stopped(run, 9)
    stopped(run, 5)
    assert [path.name for path in checkpoints(run)] == ["step=9", "step=14"]
    return run


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of the parameters": lambda folder: flip(folder / "0-of-1.pt", 100_000),
    "a truncated file": lambda folder: os.truncate(folder / "0-of-1.pt", 1000),
    "an empty file": lambda folder: os.truncate(folder / "0-of-1.pt", 0),
    "a lost file": lambda folder: (folder / "0-of-1.pt").unlink(),
    "a bit of the notes": lambda folder: flip(folder / "checkpoint.json", 150),
    "notes of another shape": lambda folder: (folder / "checkpoint.json").write_text("[1]"),
    "no notes": lambda folder: (folder / "checkpoint.json").unlink(),
    "a line of the metrics": lambda folder: flip(folder / "metrics.jsonl", 100),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    halted: RunSettings, whole: list[bytes], damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    newest = checkpoints(halted)[-1]
    DAMAGES[damage](newest)
    said = stopped(halted, 3)
    assert "saved at step 12" in said
    assert f"warning: {newest} is not used" in capfd.readouterr().err
    train(halted, WORLD)
    assert bits(halted.log_pth) == whole


def test_without_a_whole_checkpoint_a_run_begins_anew(
    halted: RunSettings, whole: list[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    for folder in checkpoints(halted):
        DAMAGES["a truncated file"](folder)
    assert "saved at step 1," in stopped(halted, 1)
    assert capfd.readouterr().err.count("0-of-1.pt is damaged") == 2
    train(halted, WORLD)
    assert bits(halted.log_pth) == whole


@pytest.mark.parametrize("changes", [{"wd": 0.3}, {"seed": 77}, {"epochs": 4}], ids=str)
def test_a_run_with_other_settings_begins_anew(
    halted: RunSettings, capfd: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    other = RunSettings.model_validate(halted.model_dump() | changes)
    assert "saved at step 2," in stopped(other, 2)
    assert "it is of a run with other settings, data or start point" in capfd.readouterr().err
    train(other, WORLD)
    fresh = other.model_copy(update={"log_pth": halted.log_pth.parent / "fresh"})
    train(fresh, WORLD)
    assert bits(other.log_pth) == bits(fresh.log_pth)


def test_a_run_from_another_start_point_of_the_same_name_begins_anew(
    digits: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    start = tmp_path / "start.pt"
    run = settings(digits, log_pth=tmp_path / "run", clients="serial", resume_pth=str(start))
    for seed_of_start, expected in ((1, "step 4,"), (2, "step 4,"), (2, "step 8,")):
        before = settings(digits, log_pth=tmp_path / f"start{seed_of_start}", seed=seed_of_start)
        train(before, WORLD)
        shutil.copy(before.log_pth / "model.pt", start)
        assert f"saved at {expected}" in stopped(run, 4)
    assert capfd.readouterr().err.count("other settings, data or start point") == 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_run_on_other_data_in_files_of_the_same_names_begins_anew(
    digits: Path, tmp_path: Path, split: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Turn the images upside down: settings, labels and the files' sizes stay as they are."""
    data = shutil.copytree(digits, tmp_path / "data")
    run = settings(data, log_pth=tmp_path / "run", clients="serial")
    assert "saved at step 4," in stopped(run, 4)
    arrays, classes = read_prepared(data / f"{split}.npz")
    turned = replace(arrays, images=arrays.images[:, ::-1])
    write_prepared(data / f"{split}.npz", turned, classes)
    write_betons(data, splits=[split])
    assert "saved at step 2," in stopped(run, 2)
    assert "it is of a run with other settings, data or start point" in capfd.readouterr().err
    train(run, WORLD)
    fresh = run.model_copy(update={"log_pth": tmp_path / "fresh"})
    train(fresh, WORLD)
    assert bits(run.log_pth) == bits(fresh.log_pth)


def test_how_a_run_is_watched_or_placed_does_not_keep_it_from_going_on(
    halted: RunSettings, whole: list[bytes], tmp_path: Path
) -> None:
    moved = halted.log_pth.rename(tmp_path / "moved")
    again = halted.model_copy(
        update={"log_pth": moved, "out": tmp_path / "out", "debug": True, "checkpoint_every": 0.0}
    )
    assert "saved at step 16," in stopped(again, 2)
    train(again, WORLD)
    assert bits(tmp_path / "out") == whole


def test_two_checkpoints_are_kept_and_half_written_ones_are_not_used(
    halted: RunSettings, whole: list[bytes]
) -> None:
    for step in (9, 16):  # a killed run may come by other steps when it saves again
        half = halted.log_pth / STATE / f".step={step}.tmp"
        half.mkdir()
        (half / "0-of-1.pt").write_bytes(b"half")
    assert "saved at step 16," in stopped(halted, 2)
    assert {path.name for path in (halted.log_pth / STATE).iterdir()} == {"step=14", "step=16"}
    train(halted, WORLD)
    assert bits(halted.log_pth) == whole


def test_lines_after_the_checkpoint_are_cut_from_the_metrics(
    halted: RunSettings, whole: list[bytes]
) -> None:
    partial = halted.log_pth / "metrics.partial.jsonl"
    lines = partial.read_text()
    partial.write_text(lines + lines + '{"half')
    assert "saved at step 15," in stopped(halted, 1)
    assert partial.read_text() == lines
    train(halted, WORLD)
    assert bits(halted.log_pth) == whole
    steps = [line["step"] for line in metrics(halted.log_pth)]
    assert steps == sorted(set(steps))


def test_provenance_counts_all_starts_and_their_seconds(halted: RunSettings) -> None:
    rewrite_notes(checkpoints(halted)[-1], seconds=1e6)  # more than this test can take
    train(halted, WORLD)
    made = json.loads((halted.log_pth / "provenance.json").read_text())
    assert made["starts"] == 3
    assert 1e6 < made["seconds"] < 2e6


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 4), (4, 2)])
def test_a_run_goes_on_with_another_number_of_processes(
    digits: Path, tmp_path: Path, whole: list[bytes], first: int, then: int
) -> None:
    """From the middle of a round, momentum per client: the same run, but for rounding."""
    run = settings(digits, log_pth=tmp_path / "run", clients="serial", momentum=0.9)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(run.model_dump(mode="json")))
    words = ("train", "--config", file)
    stop = torchrun(first, *words, "--time-limit", 1e-4, "--checkpoint-every", 0)
    assert "saved at step 1," in stop.stderr
    done = torchrun(then, *words)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "run" / STATE).glob("*"))) == 0
    assert_same_metrics(metrics(tmp_path / "run"), metrics(tmp_path / "whole"))
