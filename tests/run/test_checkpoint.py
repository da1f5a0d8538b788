"""Check which checkpoint a run resumes from and which it keeps, whatever its files' times say."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.test_reference import WORLD
from trainer.run.checkpoint import FORMAT, MANIFEST, Checkpoints, ClientState
from trainer.tracking.metrics import STATE, RunProgress

NOTHING = ClientState(
    clients=range(2),
    parameters={"w": torch.zeros(1, 3)},
    momentum={},
    loss_sum=0.0,
    loss_steps=0,
)


def of(run: str, folder: Path) -> Checkpoints:
    return Checkpoints(folder, WORLD, fingerprint=run)


def kept(folder: Path) -> dict[int, Path]:
    return {int(path.name[5:]): path for path in (folder / STATE).glob("step=*")}


def rewrite_notes(folder: Path, **changes: object) -> None:
    """Change a checkpoint's notes as if they had been saved so, undamaged."""
    notes = json.loads((folder / MANIFEST).read_text()) | changes
    del notes["sha256"]
    signature = hashlib.sha256(json.dumps(notes, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps({**notes, "sha256": signature}))


# One start: how many steps each of its checkpoints comes after the last, whether its newest is
# damaged at the end, and what the clock says then.
STARTS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 200), max_size=4),
        st.booleans(),
        st.integers(0, 2**33),
    ),
    max_size=6,
)


@settings(max_examples=40)
@given(starts=STARTS)
def test_the_step_decides_whatever_the_clock_says(
    tmp_path_factory: pytest.TempPathFactory, starts: list[tuple[list[int], bool, int]]
) -> None:
    """Each start goes on from the latest step that is whole, and keeps the one before it."""
    folder, whole = tmp_path_factory.mktemp("run"), [0]
    for saves, damaged, clock in starts:
        run = of("this", folder)
        found = run.newest()
        assert (found.step if found else 0) == whole[-1]
        for more in saves:
            whole.append(whole[-1] + more)
            run.save(whole[-1], NOTHING, RunProgress())
            assert {step for step in whole[-2:] if step} <= set(kept(folder))
        if damaged and whole[-1] > 0:
            (kept(folder)[whole.pop()] / "0-of-1.pt").write_bytes(b"")
            whole = [step for step in whole if step == 0 or step in kept(folder)]
        for i, path in enumerate(kept(folder).values()):
            os.utime(path, (clock - i, clock - i))


def test_later_checkpoints_of_another_run_do_not_crowd_out_an_earlier_one(tmp_path: Path) -> None:
    other, this = of("other", tmp_path), of("this", tmp_path)
    for step in (343, 429):
        other.save(step, NOTHING, RunProgress())
    assert this.newest() is None
    assert this.last() == "no checkpoint yet"
    for step in (2, 3):
        this.save(step, NOTHING, RunProgress())
        assert this.last().endswith(f"step={step}")
        again = of("this", tmp_path).newest()
        assert again is not None and again.step == step
    assert set(kept(tmp_path)) == {2, 3}


@pytest.mark.parametrize("version", [FORMAT - 1, FORMAT + 1])
def test_a_checkpoint_of_another_version_of_the_program_is_not_used(
    tmp_path: Path, version: int, capfd: pytest.CaptureFixture[str]
) -> None:
    run = of("this", tmp_path)
    for step in (2, 3):
        run.save(step, NOTHING, RunProgress())
    rewrite_notes(kept(tmp_path)[3], format=version)
    found = of("this", tmp_path).newest()
    assert found is not None and found.step == 2
    said = f"another version of this program wrote it (format {version})"
    assert f"step=3 is not used: {said}" in capfd.readouterr().err
