"""What befalls files: cut short, a bit turned, another file in their place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def cut(path: Path, keep: float) -> None:
    """Keep the first ``keep`` bytes, or that share if below 1; if negative, drop that many."""
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])


def flip(path: Path, byte: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def overwrite(path: Path, byte: int, by: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[byte : byte + len(by)] = by
    path.write_bytes(content)


def swap(a: Path, b: Path) -> None:
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Code:
    """Leaves a file where it is unpickled: nothing that is only data may do that."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("open('code was run', 'w').close()",)
