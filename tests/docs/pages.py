"""The pages that people read, README.md and docs/, in parts."""

from __future__ import annotations

import re
from pathlib import Path

from tests.commands import ROOT

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "config/README.md", "results/README.md")),
        *(ROOT / "docs").glob("*.md"),
    ]
)
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    """Return what is outside code blocks."""
    return FENCE.sub("", text)


def commands(text: str) -> list[list[str]]:
    """Split the commands in code blocks and of those between backticks into words."""
    lines = "\n".join(FENCE.findall(text)).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`([^`\n]+)`", prose(text))
    return [words for line in lines if (words := line.split(" #")[0].split())]
