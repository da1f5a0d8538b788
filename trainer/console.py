"""Print in any locale: what a terminal's encoding lacks is escaped instead of being an error."""

from __future__ import annotations

import io
import sys


def escape_unprintable() -> None:
    """Make stdout escape what it cannot encode, as stderr does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
