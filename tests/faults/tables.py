"""Damaged tables and images, as figures, claims and pages are made of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from tests.faults.cases import Command, Kind, analysis
from tests.faults.damage import cut
from tests.faults.results import CLAIMS, COMPARE, CSV, FIGURE, FROM, THEORY, THEORY_FIGURE, make
from tests.faults.settings_files import EXPERIMENTS

TABLES = Kind("tables", make)
REMAKE = "remove it, run again"


def table_cut(keep: float, path: Path, command: Command, folder: Path) -> Command:
    cut(folder / path, keep)
    return command


for path, command in ((CSV, FIGURE), (CSV, CLAIMS), (CSV, COMPARE), (THEORY, THEORY_FIGURE)):
    for keep in (0, 5, 0.5, -1, -30):
        name = f"{path.name} truncated to {keep}, for {command.words[0]} {command.words[1]}"
        damage = partial(table_cut, keep, path, command)
        TABLES.add(name, damage, str(path), REMAKE)


def table(change: Callable[[pd.DataFrame], pd.DataFrame], folder: Path) -> Command:
    change(pd.read_csv(folder / CSV)).to_csv(folder / CSV, index=False)
    return FIGURE


for what, edit in {
    "without rows": lambda t: t[:0],
    "of other columns": lambda t: pd.DataFrame({"a": [1], "b": [2]}),
    "without a column": lambda t: t.drop(columns="test_accuracy"),
    "of words": lambda t: t.assign(test_accuracy="high"),
    "with a word in it": lambda t: t.assign(seed=["one", *t["seed"][1:]]),
    "of another experiment": lambda t: t.assign(experiment="fig1b"),
    "without seeds": lambda t: t.assign(seed=None),
    "with rows twice": lambda t: pd.concat([t, t]),
    "without its last line": lambda t: t[:-1],
    "without its last run": lambda t: t[t["run"] != t["run"].iloc[-1]],
    "with an unknown role": lambda t: t.assign(role="phase 3"),
    "with a step of infinity": lambda t: t.assign(step=float("inf")),
}.items():
    TABLES.add(f"table {what}", partial(table, edit), str(CSV), REMAKE)


@TABLES.refused(str(CSV), REMAKE)
def table_in_another_encoding(folder: Path) -> Command:
    (folder / CSV).write_bytes((folder / CSV).read_text().encode("utf-16"))
    return FIGURE


@TABLES.refused(str(CSV), REMAKE)
def table_with_a_zero_byte(folder: Path) -> Command:
    content = (folder / CSV).read_bytes()
    (folder / CSV).write_bytes(content[:300] + b"\0\0\0" + content[303:])
    return FIGURE


@TABLES.refused(str(CSV), "no such file", "run again")
def table_missing(folder: Path) -> Command:
    (folder / CSV).unlink()
    return FIGURE


@TABLES.refused("reference/fig1a.csv", "remove it")
def reference_cut(folder: Path) -> Command:
    cut(folder / "reference/fig1a.csv", 0.5)
    return COMPARE


@TABLES.refused("fig1b", str(EXPERIMENTS))
def a_table_of_no_experiment(folder: Path) -> Command:
    (folder / CSV).rename(folder / "tables/fig1b.csv")
    return analysis("claims", "--tables", "tables/fig1b.csv", *FROM, "--out", "out/claims.csv")


@TABLES.refused("gone.png", "no such file")
def an_image_that_is_missing(folder: Path) -> Command:
    return analysis("page", "fig1a", *FROM, "--image", "gone.png", "--out", "out/page.html")


@TABLES.refused("figure.png", "make the figure again")
def an_image_that_is_cut(folder: Path) -> Command:
    assert FIGURE(folder).status == 0
    shutil.move(folder / "out/fig1a.png", folder / "figure.png")
    shutil.rmtree(folder / "out")
    cut(folder / "figure.png", 0.5)
    return analysis("page", "fig1a", *FROM, "--image", "figure.png", "--out", "out/page.html")


@TABLES.refused("--plot", "width")
def a_plot_of_no_width(folder: Path) -> Command:
    return analysis(*FIGURE.words, "--plot", '{"width": 0}')


@TABLES.refused("--processes")
def a_simulation_on_no_process(folder: Path) -> Command:
    return analysis("theory", "--processes", 0, "--out", "out/theory.csv")


@TABLES.refused("claims.csv", "make reference")
def a_reference_without_claims(folder: Path) -> Command:
    (folder / "README.md").write_text("")
    return analysis("readme", "--reference", "reference")


@TABLES.refused("fig1a", "H = 6", "same experiments")
def a_table_of_other_experiments(folder: Path) -> Command:
    table(lambda t: t.assign(first_local_steps=t["first_local_steps"].replace(6, 7)), folder)
    return CLAIMS


@TABLES.refused("fig1a", "H = 1", "same experiments")
def a_table_without_sgd(folder: Path) -> Command:
    table(lambda t: t[(t["first_local_steps"] == 6) | (t["role"] == "phase 1")], folder)
    return CLAIMS


@TABLES.same
def a_table_with_a_column_more(folder: Path) -> Command:
    return table(lambda t: t.assign(more=1), folder)


@TABLES.same
def claims_of_the_trained_runs(folder: Path) -> Command:
    return CLAIMS
