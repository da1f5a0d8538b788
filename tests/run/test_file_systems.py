"""File systems that lack what others have: calls that fail as on CIFS, Lustre, NFS or FUSE."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.run.test_lock import HOLD, started
from trainer.run.lock import LOCK, OWNER

WRITE = """
import sys
from pathlib import Path
from trainer.errors import UserError
from trainer.files.atomic import write_json
try:
    write_json(Path(sys.argv[1]), [1])
except UserError as error:
    sys.exit(f"error: {error}")
"""
LOOK = """
import sys
from pathlib import Path
from trainer.run.lock import RunLockedError, owner, hold_lock
found = owner(Path(sys.argv[1]))
print(found.pid if found else None)
try:
    with hold_lock(Path(sys.argv[1])):
        print("begun")
except Exception as error:
    print(type(error).__name__, error)
"""
NO_EXCHANGE = {"RENAMEAT2": errno.EINVAL}


@pytest.fixture(scope="module", autouse=True)
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Preload a library whose calls fail as environment variables say, in all commands below."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc, to make the library that fails as such file systems do")
    library = tmp_path_factory.mktemp("library") / "no_such_calls.so"
    source = ROOT / "tests" / "no_such_calls.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))
        yield


@contextmanager
def failing(calls: dict[str, int]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for call, number in calls.items():
            patch.setenv(call, str(number))
        yield


def run(code: str, path: Path, calls: dict[str, int]) -> subprocess.CompletedProcess[str]:
    with failing(calls):
        return subprocess.run(
            [sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True
        )


def look(folder: Path, calls: dict[str, int]) -> list[str]:
    """Who holds it, as others see it, and what a start there says."""
    return run(LOOK, folder, calls).stdout.splitlines()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_a_folder_that_is_never_synced_takes_files(tmp_path: Path, number: int) -> None:
    done = run(WRITE, tmp_path / "new.json", {"FSYNC_OF_FOLDER": number})
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "new.json").read_text()) == [1]


@pytest.mark.parametrize(
    ("number", "fix"), [(errno.EIO, "check its permissions and its disk"), (errno.ENOSPC, "make")]
)
def test_a_folder_that_fails_to_be_synced_is_an_error(
    tmp_path: Path, number: int, fix: str
) -> None:
    done = run(WRITE, tmp_path / "new.json", {"FSYNC_OF_FOLDER": number})
    assert done.returncode == 1
    assert f"({os.strerror(number)}); {fix}" in done.stderr


def test_a_lock_service_that_does_not_answer_is_named(tmp_path: Path) -> None:
    owner, said = look(tmp_path, {"FLOCK": errno.ENOLCK})
    assert owner == "None"
    assert f"UserError log_pth {tmp_path}: its file system cannot lock files at present" in said
    assert "room" not in said


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("exchange", [True, False])
def test_without_locks_a_file_holds_the_folder_as_long_as_its_process(
    tmp_path: Path, number: int, exchange: bool
) -> None:
    lacking = {"FLOCK": number} | ({} if exchange else NO_EXCHANGE)
    with failing(lacking), started(sys.executable, "-c", HOLD, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        owner, said = look(tmp_path, lacking)
        assert owner == str(process.pid)
        assert f"RunLockedError log_pth {tmp_path}: this run is in progress already" in said
        assert f"(process {process.pid} on {platform.node()}" in said
        process.kill()
        process.wait()
        owner, said = look(tmp_path, lacking)
        assert owner == "None"
        if not exchange:  # then nobody can take the file's place without a moment of none
            assert "a run was killed there" in said
            assert said.endswith(f"remove {tmp_path / LOCK}")
            (tmp_path / LOCK).unlink()
            owner, said = look(tmp_path, lacking)
        assert said == "begun"
        assert not {LOCK, OWNER} & {path.name for path in tmp_path.iterdir()}


def test_a_file_left_by_another_host_says_whose_it_is_and_how_to_remove_it(tmp_path: Path) -> None:
    lacking = {"FLOCK": errno.ENOSYS}
    with failing(lacking), started(sys.executable, "-c", HOLD, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
    lines = (tmp_path / LOCK).read_text().splitlines()
    (tmp_path / LOCK).write_text("\n".join([lines[0], "elsewhere", *lines[2:]]) + "\n")
    made = json.loads((tmp_path / OWNER).read_text())
    (tmp_path / OWNER).write_text(json.dumps(made | {"host": "elsewhere"}))
    owner, said = look(tmp_path, lacking)
    assert owner == str(process.pid)
    assert f"(process {process.pid} on elsewhere" in said
    assert said.endswith(f"once that process is gone, remove {tmp_path / LOCK}")
    (tmp_path / LOCK).unlink()
    assert look(tmp_path, lacking) == ["None", "begun"]
