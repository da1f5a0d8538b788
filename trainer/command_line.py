"""Give the programs ``python -m …`` one style: sub-commands, one-line errors, exit statuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trainer.errors import (
    ERROR_STATUS,
    STOPPED_STATUS,
    PeerFailedError,
    StoppedError,
    UserError,
    escape_unprintable,
    os_errors_as_user_errors,
    report,
)
from trainer.settings.cli import Parser


def make_parsers(
    program: str, description: str | None, helps: Mapping[str, str]
) -> tuple[Parser, dict[str, Parser]]:
    """Make a program's parser and that of each sub-command, which ``command`` will name."""
    parser = Parser(prog=program, description=description)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    return parser, {
        name: commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        for name, help in helps.items()
    }


def exit_status(run: Callable[[], int | None]) -> int:
    """Run a whole command; report in one line what ends it, and return its exit status."""
    escape_unprintable()
    try:
        with os_errors_as_user_errors():
            return run() or 0
    except UserError as error:
        report(f"error: {error}")
    except PeerFailedError as ended:
        report(f"ended: {ended}")
    except StoppedError as stopped:
        report(f"stopped: {stopped}")
        return STOPPED_STATUS
    except KeyboardInterrupt:
        report("interrupted")
        return 130
    return ERROR_STATUS
