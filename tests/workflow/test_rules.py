"""The rules hold little Python; what they load it from works without Snakemake, too."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import ROOT
from trainer.errors import UserError
from workflow import project, shell
from workflow.report_request import missing_page

RULES = [ROOT / "Snakefile", ROOT / "workflow" / "Snakefile", *ROOT.glob("workflow/rules/*.smk")]
MOST_PYTHON = 80  # lines
# What is indented below is Snakemake's: names, paths and lambdas of rules
DIRECTIVE = re.compile(
    r"(rule|use rule|checkpoint|module|include|configfile|report|wildcard_constraints)\b[^=(]*:"
)


def python_lines(rules: str) -> Iterator[str]:
    """Yield lines outside of directives that are neither blank nor comments."""
    outer: int | None = None
    for line in rules.splitlines():
        words = line.lstrip()
        indent = len(line) - len(words)
        if not words or words.startswith("#") or (outer is not None and indent > outer):
            continue
        outer = indent if DIRECTIVE.match(words) else None
        if outer is None:
            yield line


def test_the_rules_hold_little_python() -> None:
    found = [line for file in RULES for line in python_lines(file.read_text("utf-8"))]
    assert 20 < len(found) < MOST_PYTHON, "\n".join(found)


def test_python_is_told_from_directives() -> None:
    rules = 'import a\n\n# b\nrule c:\n    output:\n        "d",\n\nif e:\n\n    include: "f"\n'
    assert list(python_lines(rules)) == ["import a", "if e:"]
    assert list(python_lines("onerror:\n    print()\n")) == ["onerror:", "    print()"]


@pytest.mark.parametrize(
    ("log", "status", "said"),
    [
        ("begun\nerror: b\nerror: a\nerror: b\n", 1, "error: a\nerror: b\n"),
        ("begun\nstopped: saved at step 3\n", 75, "stopped: saved at step 3\n"),
        ("begun\nKilled\n", 1, "error: unexpected, a run.log ends with: Killed\n"),
    ],
)
def test_a_failed_job_says_why_and_keeps_its_log(
    tmp_path: Path, log: str, status: int, said: str
) -> None:
    (tmp_path / "a run.log").write_text(log)
    job = f"{shell.prefix()} false || say_why 'a run.log'"
    done = subprocess.run(["bash", "-c", job], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, said)
    assert (tmp_path / "a run.earlier.log").read_text() == log


def test_jobs_import_this_project_before_what_is_there() -> None:
    job = f'{shell.prefix()} echo "$PYTHONPATH"'
    given = {"PYTHONPATH": "/before", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", job], env=given, capture_output=True, text=True)
    assert done.stdout == f"{ROOT}:/before\n"


def test_jobs_find_the_python_that_started_snakemake(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when `.venv/bin/snakemake` is called and its environment was not activated."""
    for before in ("/usr/bin:/bin", f"{Path(sys.executable).parent}:/usr/bin:/bin"):
        monkeypatch.setenv("PATH", before)
        shell.find_own_python()
        job = f'{shell.prefix()} command -v python; echo "$PATH"'
        done = subprocess.run(["bash", "-c", job], capture_output=True, text=True)
        folder = Path(sys.executable).parent
        assert done.stdout == f"{folder}/python\n{folder}:/usr/bin:/bin\n"


def test_a_forked_trainer_is_for_the_cpu_alone() -> None:
    assert shell.entry_point("cpu").startswith("--start-method fork --run-path ")
    assert shell.entry_point("cuda") == shell.entry_point("auto") == "-m trainer"


def test_a_report_names_the_page_that_is_missing(tmp_path: Path) -> None:
    made, missing = tmp_path / "made.html", tmp_path / "missing.html"
    made.touch()
    files = [str(made), str(missing), str(tmp_path / "table.csv")]
    for asked in (["--report"], ["all", "--report", "some.html"], ["--report=some.html"]):
        assert missing_page(asked, files) == str(missing)
        assert missing_page(asked, files[:1]) is None
    assert missing_page(["fig1a", "--report", "some.html"], files) is None
    assert missing_page(["all"], files) is None


def test_a_commit_is_checked_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        call = ["git", *identity, *words]
        done = subprocess.run(call, cwd=origin, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    origin = tmp_path / "origin"
    origin.mkdir()
    git("init", "-q")
    (origin / "file").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "1")
    git("tag", "v1")
    monkeypatch.chdir(tmp_path)
    folder = project.checkout(origin, "v1")
    assert folder == tmp_path / ".snakemake" / "local-sgd" / git("rev-parse", "HEAD")
    (folder / "file").write_text("kept")
    assert project.checkout(origin, folder.name) == folder
    assert (folder / "file").read_text() == "kept"
    assert list(folder.parent.iterdir()) == [folder]


def test_what_is_refused_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, project.refusing():
        raise UserError("config.yaml: wrong; correct it")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: config.yaml: wrong; correct it\n"
