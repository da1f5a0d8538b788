"""What GitHub, the Snakemake Workflow Catalog and snakedeploy look for in the repository."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import yaml

from tests.commands import ROOT
from workflow.config import Config, load_config


def test_the_configuration_is_where_snakedeploy_copies_it_from(tmp_path: Path) -> None:
    """Which copies files, no links: https://github.com/snakemake/snakedeploy, deploy.py."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    copied = tmp_path / "config" / "config.yaml"
    assert not copied.is_symlink()
    assert copied.read_bytes() == (ROOT / "config.yaml").read_bytes()
    assert load_config(yaml.safe_load(copied.read_text())) == Config()


def test_the_catalog_finds_what_standardized_usage_needs() -> None:
    """Check the fields and words that the workflow catalog requires.

    https://github.com/snakemake/snakemake-workflow-catalog, docs/about/adding_workflows.md
    """
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"] == {"conda": True, "report": True}
    assert (ROOT / "workflow" / "Snakefile").is_file()
    words = (ROOT / "README.md").read_text("utf-8").lower()
    assert "snakemake" in words
    assert "workflow" in words


def test_the_page_on_configuration_names_what_there_is() -> None:
    page = (ROOT / "config" / "README.md").read_text("utf-8")
    table = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert set(table) == {path.stem for path in (ROOT / "experiments").glob("*.yaml")}
    keys = set(re.findall(r"`(\w+)`", page.split("## As a module")[0])) - set(table)
    assert keys - {"cpu", "cuda", "auto"} <= set(Config.model_fields)


def test_ci_runs_what_a_clean_clone_must_pass() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    [job] = yaml.safe_load(text)["jobs"].values()
    steps = job["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands[-1] == ".ci/run"
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    used = {step["uses"].split("@")[0]: step.get("with", {}) for step in steps if "uses" in step}
    assert used["actions/setup-python"]["python-version"] == "3.11"
    assert "actions/checkout" in used
    # Python and its headers come with the action; the rest is what set-up would ask for.
    asked = re.findall(r"echo ([a-z0-9. +-]+)", (ROOT / "envs" / "setup.sh").read_text())
    packages = {word for words in asked for word in words.split() if "python" not in word}
    assert {"g++", "libopencv-dev"} <= packages
    assert packages <= set(commands[0].split())
