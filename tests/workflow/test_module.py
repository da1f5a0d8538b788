"""The workflow as a module of another one, in another directory: by path, out of a repository."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.commands import BIN
from tests.conftest import more
from tests.https import Https
from tests.workflows import TINY, copy_project, planned, refused, snakemake
from workflow.analysis.tables.read import read_table

pytestmark = pytest.mark.slow  # it begins early

BY_PATH = '"{path}/workflow/Snakefile"'
OF_GITHUB = 'github("someone/local-sgd", path="workflow/Snakefile", tag="v1")'
OF_GITLAB = OF_GITHUB.replace("github", "gitlab")
OF_COMMIT = OF_GITHUB.replace('tag="v1"', 'commit="{commit}"')
OF_REPOSITORY = 'gitfile("{path}", path="workflow/Snakefile", tag="v1")'
TABLE = "results/laptop/tables/fig1a.csv"
SNAKEFILE = """
configfile: "settings.yaml"


module paper:
    snakefile: {source}
    config: config["paper"]


use rule * from paper{renamed}


# Snakemake begins a process of its own for it, which reads all rules again.
rule count:
    input: "results/laptop/tables/fig1a.csv"
    output: "lines.txt"
    run:
        Path(output[0]).write_text(str(len(Path(input[0]).read_text().splitlines())))
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a git repository of the project's files, with a tag, at a path with a space."""
    folder = copy_project(tmp_path_factory.mktemp("a repository") / "local-sgd")
    identity = ("-c", "user.name=Someone", "-c", "user.email=someone@example.org")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"], ["tag", "v1"]):
        subprocess.run(["git", *identity, *words], cwd=folder, check=True)
    return folder


@pytest.fixture
def internet(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where git finds ``repository`` at GitHub and GitLab, as someone/local-sgd, alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    settings = [
        (f"url.file://{repository}.insteadOf", "https://github.com/someone/local-sgd"),
        (f"url.file://{repository}.insteadOf", "https://gitlab.com/someone/local-sgd"),
        ("protocol.https.allow", "never"),
    ]
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(settings)))
    for i, (key, value) in enumerate(settings):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{i}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{i}", value)


def importer(
    folder: Path, source: str, renamed: str = "", settings: str = "{scale: laptop}"
) -> Path:
    """Create a folder with a workflow that imports this one, and its own experiments."""
    (folder / "experiments").mkdir(parents=True)
    (folder / "experiments" / "laptop.yaml").write_text(TINY)
    (folder / "settings.yaml").write_text(f"paper: {settings}\n")
    (folder / "workflow").mkdir()
    snakefile = SNAKEFILE.format(source=source, renamed=renamed)
    (folder / "workflow" / "Snakefile").write_text(snakefile)
    for package in ("workflow", "trainer"):  # they bear the names of this project's by chance
        (folder / package).mkdir(exist_ok=True)
        (folder / package / "__init__.py").write_text("raise RuntimeError('the importer')")
    return folder


def commit(repository: Path) -> str:
    words = ["git", "rev-parse", "HEAD"]
    return subprocess.run(
        words, cwd=repository, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize("source", [more(BY_PATH), OF_GITHUB], ids=["path", "github"])
@pytest.mark.usefixtures("internet")
def test_a_module_trains_what_a_copy_of_the_project_does(
    repository: Path, finished: Path, tmp_path: Path, source: str
) -> None:
    folder = importer(tmp_path / "an importer", source.format(path=repository))
    done = snakemake(folder, "--cores", 2, "fig1a", "lines.txt")
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_table(folder / TABLE).equals(read_table(finished / TABLE))
    assert (folder / "results/laptop/figures/fig1a.png").is_file()
    assert (folder / "lines.txt").read_text() == str(len(read_table(folder / TABLE)) + 1)
    assert {path.name for path in folder.iterdir()} == {
        ".snakemake", "experiments", "lines.txt", "resources", "results", "settings.yaml",
        "trainer", "workflow",
    }  # fmt: skip
    for provenance in (folder / "results/laptop/runs").glob("*/provenance.json"):
        assert json.loads(provenance.read_text())["git_commit"] == commit(repository)
    again = snakemake(folder, "--cores", 2, "fig1a", "lines.txt")
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.parametrize(
    "source",
    [BY_PATH, OF_GITHUB, OF_GITLAB, OF_COMMIT, OF_REPOSITORY],
    ids=["path", "github", "gitlab", "commit", "gitfile"],
)
@pytest.mark.usefixtures("internet")
def test_renamed_rules_plan_the_same_jobs(repository: Path, tmp_path: Path, source: str) -> None:
    source = source.format(path=repository, commit=commit(repository))
    folder = importer(tmp_path / "here", source, " as paper_*")
    chain = {"prepare": 1, "beton": 1, "start_point": 2, "train": 4, "table": 1, "figure": 1}
    expected = Counter({f"paper_{rule}": count for rule, count in chain.items()})
    assert planned(folder, "paper_fig1a") - Counter(paper_fig1a=1) == expected
    assert planned(folder)["paper_all"] == 1


def test_without_experiments_of_its_own_the_importer_has_the_projects(
    repository: Path, tmp_path: Path
) -> None:
    source = BY_PATH.format(path=repository)
    folder = importer(tmp_path / "here", source, settings="{scale: photos}")
    assert planned(folder, "fig1b")["train"] == 10
    (folder / "experiments" / "mine.yaml").write_text(TINY)
    (folder / "settings.yaml").write_text("paper: {scale: min}")
    known = "authors, extensions, laptop, mine, paper, photos, workstation"
    assert f"choose one of {known}" in refused(folder)


@pytest.mark.usefixtures("internet")
def test_a_job_of_a_cluster_reads_the_rules_as_its_submitter_did(
    repository: Path, tmp_path: Path
) -> None:
    """As Snakemake's executors start it on another node, which has no network but the same disk."""
    folder = importer(tmp_path / "here", OF_GITHUB)
    planned(folder, "fig1a")
    with pytest.MonkeyPatch.context() as offline:
        offline.setenv("GIT_CONFIG_VALUE_0", "https://github.com/nobody/nothing")
        done = snakemake(
            folder, "--mode", "remote", "--target-jobs", "prepare:dataset=digits",
            "--allowed-rules", "prepare", "--cores", 1, "--force", "--nolock",
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "resources/digits/train.npz").is_file()


@pytest.mark.usefixtures("internet")
def test_starts_at_the_same_time_make_one_checkout(repository: Path, tmp_path: Path) -> None:
    planned(importer(tmp_path / "first", OF_GITHUB))  # Snakemake's own clone must not be raced for
    folder = importer(tmp_path / "here", OF_GITHUB)
    words = [BIN / "snakemake", "--dry-run", "fig1a"]
    starts = [
        subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(3)
    ]
    for start in starts:
        said, _ = start.communicate()
        assert start.returncode == 0, said.decode()
    [whole] = (folder / ".snakemake" / "local-sgd").iterdir()
    assert whole.name == commit(repository)
    assert subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=whole).returncode == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("{scale: laptop, procesess: 2}", "unknown setting procesess; did you mean processes?"),
        ("{scale: desk}", "unknown scale 'desk'"),
        ("{processes: 3}", "3 processes"),
        ("2", "must be a mapping"),
    ],
)
def test_an_importers_mistake_is_one_line(
    repository: Path, tmp_path: Path, settings: str, expected: str
) -> None:
    source = BY_PATH.format(path=repository)
    assert expected in refused(importer(tmp_path / "here", source, settings=settings))


@pytest.mark.parametrize("prefix", ['prefix: "mine"', 'replace_prefix: {"results/": "mine/"}'])
def test_a_prefix_is_refused(repository: Path, tmp_path: Path, prefix: str) -> None:
    folder = importer(tmp_path / "here", f"{BY_PATH.format(path=repository)}\n    {prefix}")
    assert "remove it" in refused(folder)


@pytest.mark.usefixtures("internet")
def test_two_versions_in_one_workflow_are_refused(repository: Path, tmp_path: Path) -> None:
    folder = importer(tmp_path / "here", BY_PATH.format(path=repository))
    other = f"module other:\n    snakefile: {OF_GITHUB}\n    config: config['paper']\n"
    with (folder / "workflow" / "Snakefile").open("a") as file:
        file.write(f"{other}\n\nuse rule * from other as other_*\n")
    assert "two versions" in refused(folder)


def test_a_module_without_config_reads_config_yaml(repository: Path, tmp_path: Path) -> None:
    folder = importer(tmp_path / "here", BY_PATH.format(path=repository))
    snakefile = folder / "workflow" / "Snakefile"
    snakefile.write_text(snakefile.read_text().replace('    config: config["paper"]\n', ""))
    assert "config.yaml: no such file" in refused(folder)
    (folder / "config.yaml").write_text("scale: laptop\nscale: paper\n")
    assert "scale appears twice" in refused(folder)
    (folder / "config.yaml").write_text("scale: laptop\n")
    assert planned(folder, "fig1a")["train"] == 4


def test_a_python_without_what_the_rules_import_is_named(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "tqdm.py").write_text("raise ModuleNotFoundError(name='tqdm')\n")
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    folder = importer(tmp_path / "here", BY_PATH.format(path=repository))
    assert "Snakemake's own Python lacks tqdm" in refused(folder)


def test_a_module_by_url_is_refused(
    repository: Path,
    tmp_path: Path,
    https: Https,
    served: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, url = served
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(https.certificate))  # for Snakemake's download
    shutil.copytree(repository / "workflow", folder / "workflow")
    source = f'"{url}/workflow/Snakefile"'
    assert "not by URL" in refused(importer(tmp_path / "here", source))
