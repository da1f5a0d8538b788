"""Check figures and claims against the runs of an experiments file, before anything is trained."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.errors import UserError
from trainer.settings.run import RESULT_SETTINGS
from workflow.claims import SIMULATED, THEORY, Claim, Stated
from workflow.entries import Entry, labels
from workflow.figures import Figure, Panel
from workflow.paper import paper

NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
# Names of Snakemake's rules, which a figure's target would collide with
RULES = {
    "all", "beton", "beton_of_files", "claims", "compare", "data", "download", "figure", "figures",
    "judge", "list_files", "list_runs", "overview", "page", "prepare", "runs", "simulation",
    "start_point", "table", THEORY, "train", "trained", "wandb_sync",
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """Hold an experiment's entries, the H that it chose to be judged, and whether it cools down."""

    entries: Sequence[Entry]
    chosen_h: int | None
    cooldown: bool

    @property
    def local_h(self) -> list[int]:
        """List each H > 1 that is one number throughout a run."""
        return sorted({entry.one_h for entry in self.entries if entry.one_h} - {1})

    @property
    def judged_h(self) -> int | None:
        """Return the H that claims compare with H = 1; None where none is chosen among several."""
        return self.chosen_h or (self.local_h[0] if len(self.local_h) == 1 else None)


def check(stated: Stated, runs: Mapping[str, Asked], file: str) -> None:
    """Raise UserError, which names ``file`` and the key, for the first thing that does not fit."""
    if message := next(_problems(stated, runs), None):
        raise UserError(f"{file}{message}")


def _problems(stated: Stated, runs: Mapping[str, Asked]) -> Iterator[str]:
    ours = paper()
    for name, asked in runs.items():
        if not NAME.fullmatch(name) or name == THEORY:
            yield f"experiments: {name!r} cannot name one; use letters, digits and _"
        yield from _experiment_problems(name, asked)
    for name, figure in stated.figures.items():
        if not NAME.fullmatch(name):
            yield f"figures: {name!r} cannot name a target; use letters, digits and _"
        if name in RULES | ours.figures.keys():
            yield f"figures: {name} is a target already; choose another name"
        yield from _figure_problems(f"figures.{name}", figure, runs)
    for name, figure in ours.figures.items():
        for panel in figure.panels:
            if panel.experiment in runs and (bad := _x_problem(panel, runs)):
                yield f"{panel.experiment}.runs: the paper's figure {name} has {bad}"
    for name in [*stated.claims, *stated.pooled]:
        if name in ours.families:
            yield f"claims: {name!r} is one of the paper's; choose another name"
    for name, claim in stated.claims.items():
        if claim.effect == SIMULATED:
            yield f"claims.{name}.effect: {SIMULATED} is not about runs; choose another"
        if claim.experiment not in runs:
            yield f"claims.{name}.experiment: {_unknown(claim.experiment, runs)}"
        yield from _claim_problems(f"claims.{name}", claim, runs[claim.experiment])
    for name, claim in ours.claims.items():
        if claim.experiment in runs and (claim.effect != "gain_after_cooldown"
                                         or runs[claim.experiment].cooldown):  # fmt: skip
            where = f"{claim.experiment}.runs: the paper's claim {name}"
            yield from _claim_problems(where, claim, runs[claim.experiment])
    shown = [f.experiments for f in (*ours.figures.values(), *stated.figures.values())]
    used = {name for names in shown for name in names}
    used |= {claim.experiment for claim in stated.claims.values()}
    for name in runs:
        if name not in used:
            yield f"no figure shows experiment {name!r} and no claim is about it; add it to figures"


def _experiment_problems(name: str, asked: Asked) -> Iterator[str]:
    found = asked.entries
    told = labels(found) or [f"{e.h} {e.settings.peak_lr} {e.settings.num_clients}" for e in found]
    if len(set(told)) < len(found):
        yield f"{name}.runs: two entries differ only in how they are evaluated; remove one"
    if asked.chosen_h is not None and asked.chosen_h not in asked.local_h:
        fix = (
            f"choose one of {', '.join(map(str, asked.local_h))}" if asked.local_h else "remove it"
        )
        yield f"{name}.judged_h: {asked.chosen_h} is not an H > 1 of its runs; {fix}"


def _figure_problems(where: str, figure: Figure, runs: Mapping[str, Asked]) -> Iterator[str]:
    for i, panel in enumerate(figure.panels):
        if panel.experiment not in runs:
            yield f"{where}.panels.{i}.experiment: {_unknown(panel.experiment, runs)}"
        if bad := _x_problem(panel, runs):
            yield f"{where}.panels.{i}.{bad}; choose communication_share"
        for problem in _row_problems(panel, runs[panel.experiment].entries):
            yield f"{where}.panels.{i}.{problem}"


def _x_problem(panel: Panel, runs: Mapping[str, Asked]) -> str:
    several = not all(entry.one_h for entry in runs[panel.experiment].entries)
    return "x: local_steps, but not each run has one H" * (several and panel.x == "local_steps")


def _row_problems(panel: Panel, entries: Sequence[Entry]) -> Iterator[str]:
    for i, row in enumerate(panel.rows):
        key = f"rows.{i}.paired_with"
        if isinstance(row.paired_with, dict):
            yield from _unclear(key, row.paired_with, entries)
        elif row.paired_with == "sgd" and all(entry.one_h != 1 for entry in entries):
            yield f"{key}: {panel.experiment} has no run of H = 1 (SGD); name a control's settings"


def _claim_problems(where: str, claim: Claim, runs: Asked) -> Iterator[str]:
    if claim.effect == "gain_after_cooldown" and not runs.cooldown:
        yield f"{where}.effect: {claim.experiment} has no cooldown; add one there"
    if claim.treated is not None and claim.control is not None:
        yield from _unclear(f"{where}.treated", claim.treated, runs.entries)
        yield from _unclear(f"{where}.control", claim.control, runs.entries)
        if all(e.matches(claim.treated) == e.matches(claim.control) for e in runs.entries):
            yield f"{where}: treated and control are the same runs; change one"
        return
    plain = [entry for entry in runs.entries if entry.one_h]
    found = {entry.one_h for entry in plain}
    clients = claim.effect == "rise_with_k"
    if not clients and (1 not in found or len(found) == 1):
        yield f"{where} compares step1 1 (SGD) with step1 > 1; add them, or set treated and control"
    if runs.judged_h is None:
        yield f"{where} compares H = 1 with one of several others; set judged_h"
    yield from _varied_problems(where, claim, plain, runs.judged_h)


def _varied_problems(
    where: str, claim: Claim, plain: Sequence[Entry], judged_h: int | None
) -> Iterator[str]:
    """Check that what the claim compares besides H is there, and that nothing else differs."""
    rates = {entry.settings.peak_lr for entry in plain}
    if claim.effect == "gain_of_a_small_rate" and len(rates) == 1:
        yield f"{where} compares learning rates; add another start_lr"
    if claim.effect == "rise_with_k":
        plain = [entry for entry in plain if entry.one_h == judged_h]
        if len({entry.settings.num_clients for entry in plain}) == 1:
            yield f"{where} compares numbers of clients; add another K"
    by_rate = claim.effect in ("gain_of_a_small_rate", "gain_of_time")
    kinds = Counter(
        (e.one_h, by_rate and e.settings.peak_lr, claim.effect == "rise_with_k" and
         e.settings.num_clients) for e in plain
    )  # fmt: skip
    if max(kinds.values()) > 1:
        yield (
            f"{where} compares H alone, but entries of one H differ in more; set its treated and "
            "control, or move them to another experiment"
        )


def _unclear(where: str, wanted: Mapping[str, Any], entries: Sequence[Entry]) -> Iterator[str]:
    """Check that ``wanted`` are settings that exactly one entry has."""
    for name in wanted:
        if name not in RESULT_SETTINGS:
            yield f"{where}: unknown setting {name}; remove it"
    count = sum(entry.matches(wanted) for entry in entries)
    if count != 1:
        fix = "correct it" if count == 0 else "add a setting that tells them apart"
        yield f"{where}: {dict(wanted)} fits {count or 'none'} of the entries of runs; {fix}"


def _unknown(experiment: str, runs: Mapping[str, Asked]) -> str:
    return f"there is no experiment {experiment!r}; choose one of {', '.join(runs)}"
