"""Damaged experiments files, as a table is made by them."""

from __future__ import annotations

from functools import partial

from tests.faults.cases import Kind
from tests.faults.results import TABLE, make
from tests.faults.settings_files import EXPERIMENTS, NOT_SETTINGS, edited, holding

OF_EXPERIMENTS = Kind("experiments", make)

for what, (content, said) in NOT_SETTINGS.items():
    damage = partial(holding, content, EXPERIMENTS, TABLE)
    OF_EXPERIMENTS.add(what, damage, EXPERIMENTS.name, said)
for old, new, *says in (
    ("seeds: [1, 2]", "seeds: [yes, 2]", "fig1a.seeds"),
    ("seeds: [1, 2]", "seeds: [-1, 2]", "fig1a", "seed"),
    ("seeds: [1, 2]", "seeds: []", "fig1a.seeds"),
    ("seeds: [1, 2]", "seeds: [1.5]", "fig1a.seeds"),
    ("title: tiny", "title: no", "title", "false"),
    ("epochs: 2", "epochs: .inf", "fig1a", "epochs"),
    ("epochs: 2", "epochs: no", "fig1a", "epochs", "false"),
    ("phase2:", "phase1:", "phase1 appears twice"),
    ("{step1: 6}", "[step1, 6]", "fig1a.runs.1"),
    ("experiments:", "experiments: {}\nfigures:", "figures.fig1a"),
):
    damage = partial(edited, old, new, EXPERIMENTS, TABLE)
    OF_EXPERIMENTS.add(f"{new!r} in place of {old!r}", damage, EXPERIMENTS.name, *says)
