"""In a locale that lacks Greek letters every command prints, and files are UTF-8 all the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.commands import BIN, ROOT, command
from tests.conftest import more, one_line
from tests.workflows import TINY, copy_project
from trainer.__main__ import COMMANDS
from workflow.__main__ import COMMANDS as OF_WORKFLOW

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES = {"ascii": ASCII, "latin-1": {"PYTHONIOENCODING": "latin-1"}}
PRINTED = [
    ("trainer", "train", "--help"),
    ("workflow", "status"),
    ("workflow.analysis", "--help"),
    more(("trainer", "--help")),
    *(more(("trainer", name, "--help")) for name in COMMANDS if name != "train"),
    *(more(("workflow", name)) for name in OF_WORKFLOW if name != "status"),
    *(more(("workflow", name, "--help")) for name in OF_WORKFLOW),
    more(("workflow.analysis", "figure", "--help")),
    more(("trainer.launch", "--help")),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = copy_project(tmp_path / "copy")
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, folder / name)
    content = yaml.safe_load(TINY)
    content["experiments"]["fig1a"]["title"] = "η and Ω"
    file = folder / "experiments" / "laptop.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), "utf-8")
    return folder


@pytest.fixture(params=LOCALES)
def locale(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in LOCALES[request.param].items():
        monkeypatch.setenv(name, value)
    return str(request.param)


@pytest.fixture
def ascii_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ASCII.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("locale")
@pytest.mark.parametrize("words", PRINTED, ids=" ".join)
def test_every_command_prints(words: Sequence[str], copy: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=copy, capture_output=True, encoding="latin-1"
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in ((0, 1) if "doctor" in words else (0,)), done.stderr
    assert done.stdout


@pytest.mark.usefixtures("ascii_alone")
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("log_pth: /nowhere/η", "--log-pth"),
        ("resume_pth: η.pt", "--resume-pth"),
        ("model: η", "--model"),
        ("η: 1", "\\u03b7"),
        ("wandb_group: [η]", "--wandb-group"),
    ],
)
def test_errors_with_what_it_lacks_are_one_line(text: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text, "utf-8")
    message = one_line(command("python", "-m", "trainer", "train", "--config", file, cwd=tmp_path))
    assert name in message
    assert ("LC_ALL=C.UTF-8" in message) == ("pth" in name)
    assert message.isascii()


@pytest.mark.usefixtures("ascii_alone")
def test_a_figures_files_are_the_same(finished: Path, tmp_path: Path) -> None:
    """Drawn from the same tables in a locale without Greek letters, to the last byte."""
    results = finished / "results" / "laptop"
    shutil.copytree(results / "tables", tmp_path / "tables")
    words = ("--tables", "tables/fig1a.csv", "--experiments", finished / "experiments/laptop.yaml")
    done = command(
        BIN / "python", "-m", "workflow.analysis", "figure", "fig1a", *words, "--out", "drawn",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for ending in (".png", ".csv"):
        drawn, expected = tmp_path / f"drawn{ending}", results / "figures" / f"fig1a{ending}"
        assert drawn.read_bytes() == expected.read_bytes()


@pytest.mark.usefixtures("ascii_alone")
def test_snakemake_passes_no_greek_letter_on_a_command_line(copy: Path) -> None:
    """Its own Popen and logger could not encode one there."""
    done = command(BIN / "snakemake", "--dry-run", "--printshellcmds", "all", cwd=copy)
    assert done.returncode == 0, done.stderr
    commands = done.stdout + done.stderr
    assert "workflow.analysis page" in commands
    assert "UnicodeEncodeError" not in commands
