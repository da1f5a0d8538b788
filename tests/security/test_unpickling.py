"""No file that somebody may be handed is unpickled.

ruff's S301 refuses pickle itself; these calls unpickle where they are told to.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.commands import ROOT

FOLDERS = ("trainer", "workflow", "bench", "tests")
# What each must be told, and what it does untold
LOADERS = {"torch.load": ("weights_only", None), "np.load": ("allow_pickle", False)}
SAFE = {"weights_only": True, "allow_pickle": False}


def unsafe(source: str) -> Iterator[int]:
    """Lines that load without the one safe value, spelled out where it is not the default."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and (found := LOADERS.get(ast.unparse(node.func))):
            name, told = found
            for keyword in node.keywords:
                if keyword.arg == name and isinstance(keyword.value, ast.Constant):
                    told = keyword.value.value
            if told is not SAFE[name]:
                yield node.lineno
        elif isinstance(node, ast.Name | ast.Attribute) and "add_safe_globals" in ast.unparse(node):
            yield node.lineno


def test_nothing_is_unpickled() -> None:
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    found = {file: list(unsafe(file.read_text("utf-8"))) for file in files}
    assert {file: lines for file, lines in found.items() if lines} == {}
    loading = [file for file in files if "torch.load(" in file.read_text("utf-8")]
    assert ROOT / "trainer" / "run" / "checkpoint.py" in loading


@pytest.mark.parametrize(
    ("call", "safe"),
    [
        ("torch.load(path, weights_only=True)", True),
        ("torch.load(path)", False),
        ("torch.load(path, weights_only=False)", False),
        ("torch.load(path, weights_only=chosen)", False),
        ("np.load(path)", True),
        ("np.load(path, allow_pickle=True)", False),
        ("np.load(path, allow_pickle=False)", True),
        ("torch.serialization.add_safe_globals([A])", False),
    ],
)
def test_the_search_finds_what_it_is_for(call: str, safe: bool) -> None:
    assert (list(unsafe(call)) == []) == safe
