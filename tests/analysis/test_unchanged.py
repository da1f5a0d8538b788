"""Figures keep the numbers they had when written in Python."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pandas as pd

from tests.commands import ROOT
from workflow.analysis.figures.panels import panel_numbers
from workflow.analysis.tables.read import read_table
from workflow.paper import paper

TABLES = ROOT / "results/reference/laptop/tables"
BEFORE: dict[str, str] = json.loads((Path(__file__).parent / "unchanged.json").read_text("utf-8"))


def digest(text: str) -> str:
    """Hash a CSV whose numbers are rounded, as other processors may add in another order."""
    lines = [[_rounded(word) for word in line] for line in csv.reader(text.splitlines())]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def _rounded(word: str) -> str:
    try:
        return f"{float(word):.8g}"
    except ValueError:
        return word


def test_figures() -> None:
    names = {name for figure in paper().figures.values() for name in figure.experiments}
    tables = {name: read_table(TABLES / f"{name}.csv") for name in names}
    for name, figure in paper().figures.items():
        parts = [panel_numbers(tables[panel.experiment], panel) for panel in figure.panels]
        assert digest(pd.concat(parts).to_csv(index=False)) == BEFORE[name], name
