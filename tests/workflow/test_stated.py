"""Figures and claims of an experiments file are refused in one line that names file and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.workflows import edit
from trainer.errors import UserError
from workflow.experiments import load_experiments
from workflow.stated import RULES

MINE = """\
experiments:
  mine:
    title: mine
    seeds: [1, 2]
    settings: {dataset: digits, model: mlp, batch_size: 8, total_batch_size: 32, epochs: 2}
    runs:
      - {step1: 1, eval_freq1: 6}
      - {step1: 6}
      - {h_rule: qsr, alpha: 0.1}
figures:
  shown:
    caption: seen
    panels:
      - experiment: mine
        rows: [{quantity: accuracy, paired_with: sgd}, {quantity: trace}]
claims:
  better:
    says: QSR is better
    experiment: mine
    effect: gain_at_the_end
    treated: {h_rule: qsr}
    control: {step1: 6}
  local:
    says: H = 6 gains
    experiment: mine
    effect: gain_at_the_end
  one: {says: one, experiment: mine, effect: gain_at_the_end}
  two: {says: two, experiment: mine, effect: gain_at_the_end}
pooled:
  both: {says: both, claims: [one, two]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "experiments").mkdir()
    path = tmp_path / "experiments/mine.yaml"
    path.write_text(MINE)
    return path


def test_an_experiment_a_figure_and_claims_of_any_name_are_taken(file: Path) -> None:
    loaded = load_experiments(file)
    assert loaded.levels == dict.fromkeys(("better", "local", "one", "two", "both"), 0.05 / 5)


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ("  mine:\n", "  my mine:\n", "experiments", "use letters, digits and _"),
        ("  mine:\n", "  theory:\n", "experiments", "'theory' cannot name one"),
        ("  shown:", "  fig1a:", "figures", "fig1a is a target already"),
        ("  shown:", "  claims:", "figures", "claims is a target already"),
        ("  shown:", "  a-b:", "figures", "cannot name a target"),
        ("caption: seen", "captoin: seen", "figures.shown.captoin", "did you mean caption?"),
        ("- experiment: mine", "- experiment: yours", "figures.shown.panels.0.experiment",
         "no experiment 'yours'; choose one of mine"),
        ("- experiment: mine", "- {experiment: mine, x: hours}\n      - experiment: mine",
         "figures.shown.panels.0.x", "'epoch'"),
        ("- experiment: mine", "- experiment: mine\n        x: local_steps",
         "figures.shown.panels.0.x", "choose communication_share"),
        ("- experiment: mine", "- experiment: mine\n        x: megabytes",
         "figures.shown.panels.0", "none can be paired"),
        ("paired_with: sgd", "paired_with: smallest_k", "figures.shown.panels.0", "num_clients"),
        ("paired_with: sgd", "paired_with: {step1: 3}", "panels.0.rows.0.paired_with",
         "fits none of the entries"),
        ("paired_with: sgd", "paired_with: {epochs: 2}", "panels.0.rows.0.paired_with",
         "fits 3 of the entries of runs; add a setting"),
        ("{step1: 1, eval_freq1: 6}", "{step1: 2}", "panels.0.rows.0.paired_with",
         "no run of H = 1"),
        ("quantity: trace", "quantity: trace, limits: [2, 1]", "figures.shown.panels.0.rows.1",
         "put the lower one first"),
        ("quantity: trace", "quantity: tarce", "figures.shown.panels.0.rows.1.quantity", "'trace'"),
        ("    caption: seen", "    caption: seen\n    overlaid: true\n    columns: 0",
         "figures.shown.columns", "greater"),
        ("  better:\n", "  1a:\n", "claims", "'1a' is one of the paper's"),
        ("    control: {step1: 6}", "", "claims.better", "treated needs control"),
        ("control: {step1: 6}", "control: {h_rule: qsr}", "claims.better", "the same runs"),
        ("control: {step1: 6}", "control: {stp1: 6}", "claims.better.control",
         "unknown setting stp1"),
        ("treated: {h_rule: qsr}", "treated: {alpha: 0.2}", "claims.better.treated", "fits none"),
        ("effect: gain_at_the_end\n    treated", "effect: rise_with_h\n    treated",
         "claims.better", "do not fit effect rise_with_h"),
        ("effect: gain_at_the_end\n    treated", "effect: gain_after_cooldown\n    treated",
         "claims.better.effect", "mine has no cooldown"),
        ("effect: gain_at_the_end\n    treated", "effect: gian\n    treated",
         "claims.better.effect", "'gian'"),
        ("effect: gain_at_the_end\n  one", "effect: simulated_drift\n  one",
         "claims.local.effect", "not about runs"),
        ("effect: gain_at_the_end\n  one", "effect: gain_of_a_small_rate\n  one",
         "claims.local", "add another start_lr"),
        ("effect: gain_at_the_end\n  one", "effect: gain_at_the_end\n    family: primary\n  one",
         "claims.local.family", "unknown 'primary'; choose one of own"),
        ("      - {step1: 6}", "      - {step1: 6}\n      - {step1: 12}", "claims.local",
         "set judged_h"),
        ("      - {step1: 6}", "      - {step1: 6}\n      - {step1: 6, momentum: 0.9}",
         "claims.better.control", "fits 2 of the entries"),
        ("      - {step1: 6}", "      - {step1: 6}\n      - {step1: 6, eval_freq1: 2}", "mine.runs",
         "differ only in how they are evaluated"),
        ("    seeds:", "    judged_h: 12\n    seeds:", "mine.judged_h", "choose one of 6"),
        ("claims: [one, two]", "claims: [one, three]", "pooled.both.claims",
         "no claim 'three'"),
        ("experiment: mine, effect: gain_at_the_end}\n  two", "experiment: mine, effect: "
         "gain_throughout}\n  two", "pooled.both.claims",
         "differ in effect or direction"),
        ("  both:", "  local:", "pooled.local", "a claim has this name"),
        ("figures:", "  other: {title: o, seeds: [1], runs: [{step1: 1}]}\nfigures:",
         "experiment 'other'", "add it to figures"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(file: Path, old: str, new: str, key: str, said: str) -> None:
    edit(file, old, new)
    with pytest.raises(UserError) as refused:
        load_experiments(file)
    message = str(refused.value)
    assert message.startswith("experiments/mine.yaml: ")
    assert "\n" not in message
    assert key in message and said in message, message


def test_no_figure_can_take_a_rules_name() -> None:
    files = [ROOT / "workflow/Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    text = "".join(file.read_text("utf-8") for file in files)
    named = set(re.findall(r"^ *rule (\w+):", text, re.MULTILINE))
    assert named | set(re.findall(r"^use rule \w+ as (\w+)", text, re.MULTILINE)) <= RULES
