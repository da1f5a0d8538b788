"""Docstrings open with a verb: what ruff's D401 does not see."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.commands import ROOT

PRODUCT = ("trainer", "workflow", "bench")
# Words that open a noun phrase or half a sentence, never an imperative.
NO_VERB = re.compile(
    r"(Of|By|From|Those|Until|That|What|Whether|How|Which|The|A|An|Where|All|Its|Their|It)\b"
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and first line of each docstring in ``source``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text.splitlines()[0]


@pytest.mark.parametrize("folder", PRODUCT)
def test_no_docstring_opens_without_a_verb(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = [
        f"{path.relative_to(ROOT)}:{line}: {first}"
        for path in files
        for line, first in docstrings(path.read_text("utf-8"))
        if NO_VERB.match(first)
    ]
    assert found == []


def test_the_search_finds_what_it_is_for() -> None:
    source = 'def f():\n    """Of a run, the settings."""\n'
    assert [first for _, first in docstrings(source) if NO_VERB.match(first)]
    assert not NO_VERB.match("Offload replicas.")
