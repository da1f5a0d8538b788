"""A full disk at every kind of write (``disk_full.py``), with the least room and some more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import disk_full
from tests.faults.writes import try_out, writes


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    try:
        with disk_full.small_disk(tmp_path / "trial"):
            return tmp_path
    except PermissionError as error:
        pytest.skip(str(error))


@pytest.mark.exhaustive
@pytest.mark.parametrize("kinds", [1, None])
def test_a_full_disk_is_one_line_and_then_the_same_bytes(disk: Path, kinds: int | None) -> None:
    found = list(disk_full.outcomes(disk, kinds))
    assert {outcome.write.name: outcome.complaints for outcome in found if outcome.complaints} == {}
    assert {"a run", "a figure", "raw .beton"} <= {outcome.write.name for outcome in found}
    assert all("cannot be written" in o.said or "are free" in o.said for o in found) or not kinds


def test_a_run_goes_on_after_its_disk_was_full(disk: Path, digits: Path) -> None:
    write = next(write for write in writes(digits) if write.name == "a run with checkpoints")
    with disk_full.small_disk(disk / "disk") as place:
        hindrance = disk_full.full(place, 3 * 2**16)
        outcome = try_out(write, hindrance, place / "a folder é", disk / "elsewhere")
    assert not outcome.complaints
    assert "latest.pt: cannot be written (No space left on device)" in outcome.said


def test_a_project_goes_on_after_its_disk_was_full(disk: Path, digits: Path) -> None:
    assert disk_full.through_snakemake(disk, digits) == []
