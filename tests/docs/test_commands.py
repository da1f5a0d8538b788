"""Commands, options, targets, keys and files that README.md and docs/ name exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.commands import ROOT, command
from tests.docs.pages import PAGES, commands, name, prose
from workflow.config import Config
from workflow.experiments import load_experiments
from workflow.paper import paper

OWN = ("trainer", "workflow", "bench", "tests")
PATHS = re.compile(
    r"`((?:\.ci|\.github|bench|docs|envs|experiments|tests|trainer|workflow)/[^`]*)`"
)
# Targets of the experiments files that the pages show, and of their placeholders
EXAMPLES = {"rules", "claims"}


@cache
def options(*words: str) -> frozenset[str]:
    """Return the options that a command's ``--help`` lists."""
    return frozenset(re.findall(r"--[a-z][\w-]*", command("python", "-m", *words, "--help").stdout))


@cache
def make_targets() -> frozenset[str]:
    lines = re.findall(r"^([a-z][a-z0-9 -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return frozenset(target for line in lines for target in line.split())


@cache
def snakemake_targets() -> frozenset[str]:
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow").glob("**/*.smk"))
    named = set(re.findall(r"^rule (\w+):", rules, re.MULTILINE)) | {"all", "theory"}
    files = [load_experiments(path) for path in (ROOT / "experiments").glob("*.yaml")]
    figures = {figure for loaded in files for figure in loaded.figures}
    return frozenset(named | set(paper().figures) | figures | EXAMPLES)


def unknown(words: list[str]) -> list[str]:
    """Return what a command says that does not exist."""
    words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    wrong: list[str] = []
    if words[:1] == ["make"]:
        wrong += [word for word in words[1:] if re.fullmatch(r"[a-z][\w-]*", word)]
        wrong = [target for target in wrong if target not in make_targets()]
    for at, word in enumerate(words[:-1]):
        if word == "-m" and words[at + 1].split(".")[0] in OWN:
            wrong += unknown_of_module(words[at + 1 :])
    if words[:1] == ["snakemake"]:
        wrong += unknown_of_snakemake(words[1:])
    return wrong


def unknown_of_module(words: list[str]) -> list[str]:
    module, rest = words[0], words[1:]
    path = ROOT / module.replace(".", "/")
    if not (path.with_suffix(".py").exists() or (path / "__main__.py").exists()):
        return [module]
    if module != "trainer" or not rest:
        return []
    given = [word.partition("=")[0] for word in rest if word.startswith("--")]
    return [option for option in given if option not in options(module, rest[0]) | {"--help"}]


def unknown_of_snakemake(words: list[str]) -> list[str]:
    keys = [w.partition("=")[0] for w in words if re.match(r"[a-z_]+=", w)]
    wrong = [key for key in keys if key not in {*Config.model_fields, "gpu", "key"}]
    if "--" in words:
        targets = words[words.index("--") + 1 :]
    else:
        targets = words[:1] if words and not words[0].startswith("-") else []
    return wrong + [
        target
        for target in targets
        if target not in snakemake_targets() and "/" not in target and target != "…"
    ]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page: Path) -> None:
    found = {" ".join(words): unknown(words) for words in commands(page.read_text("utf-8"))}
    assert {line: wrong for line, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_exist(page: Path) -> None:
    if page.parent.name == "results":
        pytest.skip("its paths begin at its own folder")
    named = PATHS.findall(prose(page.read_text("utf-8")))
    patterns = [re.sub(r"<\w+>", "*", path.split("::")[0].rstrip("/")) for path in named]
    assert [p for p in patterns if not list(ROOT.glob(p)) and p != "experiments/mine.yaml"] == []


def test_options_of_the_trainer_exist() -> None:
    text = (ROOT / "docs/by-hand.md").read_text("utf-8")
    named = {option for words in commands(text) for option in words if option.startswith("--")}
    assert named - options("trainer", "train") <= {
        "--standalone", "--nproc-per-node", "--help", "--out", "--source",
    }  # fmt: skip


def test_what_does_not_exist_is_found() -> None:
    wrong = {
        "make everything": ["everything"],
        "snakemake --config scal=paper -- fig1a fig9": ["scal", "fig9"],
        "torchrun -m trainer train --model m --modle m": ["--modle"],
        "python -m workflow.no_such": ["workflow.no_such"],
    }
    assert {line: unknown(line.split()) for line in wrong} == wrong


def test_make_alone_prints_each_target_with_a_line() -> None:
    printed = command("make", "--silent").stdout
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    targets = set(phony[1].replace("\\\n", " ").split())
    explained = {word for line in printed.splitlines() for word in line.split()}
    assert targets <= explained
    assert len(printed.splitlines()) <= len(targets)
