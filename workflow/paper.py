"""Load the paper's figures and claims."""

from __future__ import annotations

from functools import cache

from trainer.settings.cli import validated
from trainer.settings.yaml import read_yaml
from workflow.claims import Paper
from workflow.paths import ROOT

FILE = "workflow/paper.yaml"


@cache
def paper() -> Paper:
    return validated(Paper, read_yaml(ROOT / FILE), where=f"{FILE}: ")
