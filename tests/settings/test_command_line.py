"""Every program ends with the same lines and statuses."""

from __future__ import annotations

import errno
from importlib import import_module

import pytest

from trainer.command_line import exit_status
from trainer.errors import PeerFailedError, StoppedError, UserError

PROGRAMS = ("trainer", "workflow", "workflow.analysis")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("lr: wrong; correct it"), 2, "error: lr: wrong; correct it"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            2,
            "error: a/b: permission denied; check the path, its permissions and its disk",
        ),
        (PeerFailedError("another process said why"), 2, "ended: another process said why"),
        (StoppedError("saved at step 3"), 75, "stopped: saved at step 3"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_ends_a_command_is_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, said: str
) -> None:
    def run() -> None:
        raise error

    assert exit_status(run) == status
    assert capsys.readouterr().err == f"{said}\n"


def test_a_command_may_have_a_status_of_its_own_and_a_bug_its_traceback() -> None:
    assert exit_status(lambda: None) == 0
    assert exit_status(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: 1 // 0)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_names_its_help(capsys: pytest.CaptureFixture[str], program: str) -> None:
    main = import_module(f"{program}.__main__").main
    assert main(["no-such-command"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(f"; see python -m {program} --help")
