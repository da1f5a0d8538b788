"""`status`, `plan` and Snakemake agree on what is to be trained, whatever was deleted or edited.

In a project whose results are made up: nothing is trained, Snakemake is asked for real.
"""

from __future__ import annotations

import base64
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import more
from tests.workflows import TINY, copy_project, edit, snakemake
from workflow.campaign import load_campaign
from workflow.commands import plan
from workflow.commands.status import STATES, show

pytestmark = pytest.mark.slow  # it begins early

# Two figures that share a start point and its run of H = 1
TWO = TINY.replace("seeds: [1, 2]", "seeds: [1]")
TWO += TWO.partition("experiments:\n")[2].replace("fig1a", "fig2e").replace("6}", "4}")
TARGETS = ("fig1a", "fig2e", "communication", "figures", "claims", "runs", "trained", "compare")
JOBS = re.compile(
    r"^(?:local)?rule (train|start_point):\n(?:    .*\n)*?    wildcards: run=(\S+)$", re.MULTILINE
)


def would_train(folder: Path, target: str) -> set[str]:
    """List the runs that a dry run of ``target`` would train."""
    done = snakemake(folder, "--dry-run", target)
    assert done.returncode == 0, done.stdout + done.stderr
    return {run for _, run in JOBS.findall(done.stdout + done.stderr)}


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file that `snakemake all` would make, empty, and noted by Snakemake as made."""
    folder = copy_project(tmp_path_factory.mktemp("made up") / "copy")
    (folder / "experiments" / "laptop.yaml").write_text(TWO)
    listed = snakemake(folder, "--dry-run", "all").stdout
    for line in re.findall(r"^    output: (.+)$", listed, re.MULTILINE):
        for name in line.split(", "):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    done = snakemake(folder, "all", "--touch", "--forceall")
    assert done.returncode == 0, done.stdout + done.stderr
    assert would_train(folder, "all") == set()
    return folder


class Project:
    """A copy of the made-up project, and what may happen to one."""

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.folder, self.draw = folder, draw
        self.happened: list[str] = []

    def happen(self) -> None:
        some: list[Callable[[], object]] = [
            *[self.delete] * 6, self.touch, self.add_seed, self.change_h, self.change_phase_1,
            self.kill, *[self.touch_all] * 4,
        ]  # fmt: skip
        if self.draw.random() < 0.05:
            some = [self.change_rule]
        chosen = self.draw.choice(some)
        self.happened.append(f"{chosen.__name__} {chosen()}")

    def _file(self, pattern: str) -> Path:
        found = sorted(self.folder.glob(pattern))
        return self.draw.choice(found) if found else self.folder / "none"

    def delete(self) -> object:
        pattern = self.draw.choice(
            ["results/*/runs/*", "results/*/start_points/*", "results/*/runs/*/metrics.jsonl",
             "results/*/*/*/model.pt", "results/*/[cfpt]*/*.*", "results/*/*.*", "resources/*/*"]
        )  # fmt: skip
        path = self._file(pattern)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return path.relative_to(self.folder)

    def touch(self) -> object:
        path = self._file(
            self.draw.choice(["resources/*/*.beton", "results/*/*/*/*", "experiments/laptop.yaml"])
        )
        if path.exists():
            path.touch()
        return path.relative_to(self.folder)

    def _change(self, pattern: str, new: str) -> object:
        file = self.folder / "experiments" / "laptop.yaml"
        file.write_text(re.sub(pattern, new, file.read_text(), count=self.draw.choice([1, 0])))
        return new

    def add_seed(self) -> object:
        return self._change(r"seeds: \[.*\]", self.draw.choice(["seeds: [1]", "seeds: [1, 3]"]))

    def change_h(self) -> object:
        return self._change(r"step1: [3-6]", f"step1: {self.draw.choice([3, 4, 5, 6])}")

    def change_phase_1(self) -> object:
        return self._change(
            r"phase1: \{epochs: .\}", f"phase1: {{epochs: {self.draw.choice('23')}}}"
        )

    def change_rule(self) -> object:
        edit(
            self.folder / "workflow/rules/train.smk",
            "{resources.trainer} ",
            "{resources.trainer}  ",
        )

    def kill(self) -> object:
        """As Snakemake leaves a job that it was killed with."""
        path = str(self._file("results/*/*/*/metrics.jsonl").relative_to(self.folder))
        marker = (
            self.folder / ".snakemake/incomplete" / base64.urlsafe_b64encode(path.encode()).decode()
        )
        marker.write_text("{}")
        return path

    def touch_all(self) -> object:
        target = self.draw.choice(["all", "trained"])
        done = snakemake(self.folder, target, "--touch")
        assert done.returncode == 0, done.stdout + done.stderr
        return target


def disagreement(project: Project, targets: tuple[str, ...]) -> str:
    """Say after which changes and where they disagree; empty if they do not."""
    try:
        check(project, targets)
    except AssertionError as error:
        return f"after {', '.join(project.happened)}: {error}"
    return ""


def check(project: Project, targets: tuple[str, ...]) -> None:
    """Compare the words of `status` and `plan` with dry runs of ``targets`` and of all."""
    campaign = load_campaign([])
    figures = campaign.jobs_by_experiment
    made = plan.make_plan(campaign)
    states = {status.job.run.id: status.state for status in made.statuses}
    to_train = {run for run, state in states.items() if state != "done"}
    assert would_train(project.folder, "all") == to_train
    assert f"finished and kept, {len(to_train)} to be trained" in next(plan.show(made))
    for state in ("stale", "missing"):
        column = 1 + STATES.index(state)
        row = next(line for line in show(campaign, made.statuses) if line.startswith("all "))
        assert row.split()[1 + column].replace("·", "0") == str([*states.values()].count(state))
    # A shared input that is missing is made where a run needs it, and then all that it made are.
    inputs = [*Path("resources/digits").glob("*.beton")]
    models = [job.folder / "model.pt" for job in campaign.jobs if job.role == "start_points"]
    complete = len(inputs) == 2 and all(model.exists() for model in models)
    if complete and project.happened[-1:] == ["touch_all trained"]:
        assert "stale" not in states.values()
    for target in targets:
        names = [target] if target in figures else ["fig1a"]
        names = names if target in (*figures, "communication", "slowtime") else [*figures]
        wanted = {job.run.id for name in names for job in figures[name]}
        trained = would_train(project.folder, target)
        assert {run for run in wanted if states[run] == "missing"} <= trained <= wanted & to_train
        if complete:
            assert trained == wanted & to_train


@pytest.mark.parametrize(
    ("seed", "times", "targets"),
    [(0, 8, 1), *(more(seed, 20, len(TARGETS)) for seed in range(1, 11))],
)
def test_status_plan_and_snakemake_agree(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    seed: int, times: int, targets: int,
) -> None:  # fmt: skip
    draw = random.Random(seed)  # noqa: S311
    folder = shutil.copytree(made_up, tmp_path / "own", symlinks=True)
    monkeypatch.chdir(folder)
    project = Project(folder, draw)
    for _ in range(times):
        for _ in range(draw.randint(1, 2)):
            project.happen()
        assert disagreement(project, tuple(draw.sample(TARGETS, targets))) == ""
