"""Damaged results: metrics and provenance, as tables are made of them."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests import workflows
from tests.commands import ROOT
from tests.faults import betons
from tests.faults.cases import Command, Kind, analysis
from tests.faults.damage import cut, edit_json
from tests.faults.settings_files import EXPERIMENTS
from trainer.__main__ import main
from workflow.experiments import expand, load_experiments, start_points

FROM = ("--experiments", EXPERIMENTS)
TABLE = analysis(
    "table", *FROM, "--experiment", "fig1a", "--results", "results/laptop", "--out", "out/fig1a.csv"
)
RUNS = analysis("runs", *FROM, "--results", "results/laptop", "--out", "out/runs")
CSV, THEORY = Path("tables/fig1a.csv"), Path("tables/theory.csv")
FIGURE = analysis("figure", "fig1a", "--tables", CSV, *FROM, "--out", "out/fig1a")
THEORY_FIGURE = analysis("figure", "theory", "--tables", THEORY, *FROM, "--out", "out/theory")
CLAIMS = analysis("claims", "--tables", CSV, THEORY, *FROM, "--out", "out/claims.csv")
COMPARE = analysis("compare", "--tables", CSV, "--reference", "reference", "--out", "out/c.csv")


def make(folder: Path) -> None:
    """Train a tiny experiment's runs and make their table; copy the reference's theory table."""
    betons.make(folder)
    (folder / EXPERIMENTS).parent.mkdir()
    (folder / EXPERIMENTS).write_text(workflows.TINY)
    runs = expand(load_experiments(folder / EXPERIMENTS).experiments["fig1a"])
    results = folder / "results/laptop"
    for role, run in [("start_points", r) for r in start_points(runs)] + [
        ("runs", r) for r in runs
    ]:
        words = [*shlex.split(run.options()), "--log-pth", folder / "log" / run.id]
        words += ["--data-pth", folder / "data", "--out", results / role / run.id]
        if run.start is not None:
            words += ["--resume-pth", results / "start_points" / run.start.id / "model.pt"]
        assert main(["train", *map(str, words)]) == 0
    assert TABLE(folder).status == 0
    (folder / "tables").mkdir()
    shutil.move(folder / "out/fig1a.csv", folder / CSV)
    shutil.copytree(folder / "tables", folder / "reference")
    shutil.copy(ROOT / "results/reference/laptop/tables/theory.csv", folder / THEORY)
    shutil.rmtree(folder / "data")


RESULTS = Kind("results", make)


def of_a_run(name: str, folder: Path) -> Path:
    """Return the path of file ``name`` of the first run in the table's order."""
    runs = expand(load_experiments(folder / EXPERIMENTS).experiments["fig1a"])
    return folder / "results/laptop/runs" / runs[0].id / name


Lines = list[str]


def metrics(change: Callable[[Lines], Lines], folder: Path) -> Command:
    path = of_a_run("metrics.jsonl", folder)
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    return TABLE


def with_last(**changes: object) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines[:-1], json.dumps(json.loads(lines[-1]) | changes) + "\n"]


def without(key: str) -> Callable[[Lines], Lines]:
    def change(lines: Lines) -> Lines:
        content = json.loads(lines[0])
        del content[key]
        return [json.dumps(content) + "\n", *lines[1:]]

    return change


AGAIN = "delete it and run again"
for what, change in {
    "empty": lambda lines: [],
    "cut in its last line": lambda lines: [*lines[:-1], lines[-1][:40]],
    "cut after a line": lambda lines: lines[:-1],
    "without the first line": lambda lines: lines[1:],
    "with a line twice": lambda lines: [*lines, lines[-1]],
    "all twice": lambda lines: lines * 2,
    "out of order": lambda lines: lines[::-1],
    "with an empty line": lambda lines: [lines[0], "\n", *lines[1:]],
    "not JSON": lambda lines: [lines[0], "step: 6\n", *lines[1:]],
    "a list in a line": lambda lines: [*lines[:-1], "[1, 2]\n"],
    "a number in a line": lambda lines: [*lines[:-1], "7\n"],
    "binary": lambda lines: ["\x00\x01\x02" * 50],
    "without a key": without("test_accuracy"),
    "with a key more": with_last(more=1),
    "with NaN": with_last(test_loss=float("nan")),
    "with infinity": with_last(test_accuracy=float("inf")),
    "with a word for a number": with_last(test_accuracy="0.5"),
    "with null for a number": with_last(test_accuracy=None),
    "with an accuracy of 7": with_last(test_accuracy=7.0),
    "with a step of 0.5": with_last(step=0.5),
    "with a negative step": with_last(step=-5),
    "nested without end": lambda lines: ["[" * 100_000 + "\n"],
}.items():
    RESULTS.add(f"metrics {what}", partial(metrics, change), "metrics.jsonl", AGAIN)


@RESULTS.same
def metrics_without_the_last_line_end(folder: Path) -> Command:
    return metrics(lambda lines: [*lines[:-1], lines[-1].rstrip("\n")], folder)


@RESULTS.refused("metrics.jsonl", "no such file", "run")
def metrics_missing(folder: Path) -> Command:
    of_a_run("metrics.jsonl", folder).unlink()
    return TABLE


@RESULTS.refused("metrics.jsonl", "is a directory", "run again")
def metrics_a_directory(folder: Path) -> Command:
    of_a_run("metrics.jsonl", folder).unlink()
    of_a_run("metrics.jsonl", folder).mkdir()
    return TABLE


def provenance(text: str, folder: Path) -> Command:
    of_a_run("provenance.json", folder).write_text(text)
    return RUNS


for what, text in {
    "empty": "", "not JSON": "seconds: 3", "a list": "[]", "null": "null", "of no keys": "{}",
    "nested without end": "[" * 100_000,
}.items():  # fmt: skip
    RESULTS.add(f"provenance {what}", partial(provenance, text), "provenance.json", "run again")


def edited_provenance(key: str, value: object, folder: Path) -> Command:
    edit_json(of_a_run("provenance.json", folder), **{key: value})
    return RUNS


for key, value in (
    ("seconds", "many"), ("seconds", None), ("seconds", -3), ("seconds", float("nan")),
    ("versions", ["torch"]), ("versions", {"torch": 2}), ("machine", []), ("machine", {}),
    ("processes", "one"), ("git_dirty", "maybe"), ("device", 7),
):  # fmt: skip
    what = f"provenance's {key} is {value!r}"
    RESULTS.add(what, partial(edited_provenance, key, value), "provenance.json", "run again")


@RESULTS.refused("provenance.json", "run again")
def provenance_cut(folder: Path) -> Command:
    cut(of_a_run("provenance.json", folder), 0.5)
    return RUNS


@RESULTS.refused(str(EXPERIMENTS), "fig9", "fig1a")
def an_experiment_that_is_not_there(folder: Path) -> Command:
    return analysis(*[w if w != "fig1a" else "fig9" for w in TABLE.words])
