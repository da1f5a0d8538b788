"""Published start points: copied or downloaded, and verified by whichever checksum is known."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.commands import ROOT, forked
from tests.conftest import one_line, shared_file
from tests.workflows import edit, planned, refused, snakemake
from trainer.errors import UserError
from trainer.files.checksum import Checksum, git_blob_id
from trainer.files.state_dict import load_model
from trainer.models.registry import build
from workflow.experiments import Experiment, expand, load_experiments
from workflow.published import PublishedCheckpoint, fetch

AUTHORS = load_experiments(ROOT / "experiments" / "authors.yaml").experiments
CONTENT = b"a model" * 500_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
URL = "https://localhost:9/owner/repository/commit/folder/a%3D1.pt"


def hash_object(path: Path) -> str:
    """Return what git itself calls the file."""
    found = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def fetched(out: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return forked("workflow.published", ["--out", out, *options], out.parent)


@pytest.mark.parametrize("content", [b"", b"a\n", CONTENT])
def test_a_git_blob_id_is_gits(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert git_blob_id(tmp_path / "file") == hash_object(tmp_path / "file")


@pytest.mark.parametrize("place", ["a=1.pt", "folder/a=1.pt", "repository/commit/folder/a=1.pt"])
@pytest.mark.parametrize("kind", ["--sha256", "--git-blob"])
def test_a_copy_is_found_by_its_name_or_where_the_repository_has_it(
    kind: str, place: str, tmp_path: Path
) -> None:
    """Without a network: nobody answers at the URL."""
    copy = tmp_path / "copies" / place
    copy.parent.mkdir(parents=True)
    copy.write_bytes(CONTENT)
    checksum = SHA256 if kind == "--sha256" else hash_object(copy)
    out = tmp_path / "a=1.pt"
    words = [kind, checksum, "--url", URL, "--folder", tmp_path / "copies"]
    done = fetched(out, *words)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == CONTENT
    copy.unlink()  # it is there now, and not asked for again
    assert fetched(out, *words).returncode == 0
    out.write_bytes(b"damaged")
    assert "cannot be downloaded" in one_line(fetched(out, *words))


@pytest.mark.parametrize("kind", ["--sha256", "--git-blob"])
def test_another_file_is_refused(kind: str, served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    (folder / "b.pt").write_bytes(CONTENT + b"!")
    wrong = "0" * (64 if kind == "--sha256" else 40)
    for source in (["--url", f"{url}/b.pt"], ["--folder", folder]):
        message = one_line(fetched(tmp_path / "b.pt", kind, wrong, *source))
        assert f"expected {wrong}" in message
        assert not list(tmp_path.iterdir())


def test_a_download_is_verified_by_its_git_blob_id(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    folder, url = served
    (folder / "c.pt").write_bytes(CONTENT)
    blob = hash_object(folder / "c.pt")
    done = fetched(tmp_path / "c.pt", "--git-blob", blob, "--url", f"{url}/c.pt")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c.pt").read_bytes() == CONTENT


def test_a_file_that_nobody_offers_is_named_with_the_fix(tmp_path: Path) -> None:
    message = one_line(fetched(tmp_path / "d.pt", "--sha256", SHA256, "--folder", tmp_path))
    assert "d.pt" in message and "checkpoints_source" in message


@pytest.mark.parametrize("checksums", ["", f"sha256: {SHA256}, git_blob: '{'0' * 40}',"])
def test_an_experiment_gives_one_checksum(edited: Path, checksums: str) -> None:
    start = f"checkpoint: {{path: a.pt, {checksums} epoch: 2}}"
    edit(edited / "experiments/laptop.yaml", "phase1: {epochs: 2}", start)
    assert "needs a checksum; set either sha256 or git_blob" in refused(edited)


def test_runs_start_from_a_copy_known_by_its_git_blob_id_and_from_no_other(own: Path) -> None:
    models = sorted((own / "results/laptop/start_points").glob("*/model.pt"))
    copies = own / "copies"
    copies.mkdir()
    shutil.copyfile(models[0], copies / "published.pt")
    blob = hash_object(models[0])
    start = f"path: resources/published.pt, git_blob: {blob}, epoch: 2"
    edit(own / "experiments/laptop.yaml", "phase1: {epochs: 2}", f"checkpoint: {{{start}}}")
    edit(own / "config.yaml", "checkpoints_source: null", "checkpoints_source: copies")
    assert planned(own, "fig1a") == {"download": 1, "train": 4, "table": 1, "figure": 1}
    done = snakemake(own, "fig1a")
    assert done.returncode == 0, done.stdout + done.stderr
    assert planned(own, "fig1a") == {}
    shutil.copyfile(models[1], own / "resources" / "published.pt")
    message = refused(own)
    assert f"expected {blob}" in message and "resources/published.pt" in message


def test_another_start_point_is_another_run_whichever_checksum_it_has() -> None:
    def ids(**checksum: str) -> list[str]:
        start = PublishedCheckpoint(path=Path("a.pt"), epoch=1, **checksum)
        runs = [{"step1": 2}]
        values = {"title": "t", "seeds": [1], "settings": {"model": "mlp"}, "runs": runs}
        return [run.id for run in expand(Experiment(**values, checkpoint=start))]

    found = [ids(sha256=c * 64) for c in "ab"] + [ids(git_blob=c * 40) for c in "ab"]
    assert len({run for [run] in found}) == 4


def authors_start(name: str) -> PublishedCheckpoint:
    start = AUTHORS[name].checkpoint
    assert start is not None
    return start


def test_every_figure_of_the_authors_scale_starts_at_the_pinned_commit() -> None:
    commit = "b4c73dbfee95f2ed0440a8f55c6d41ff09136897"
    for name in AUTHORS:
        url = authors_start(name).url
        assert url is not None
        assert url.startswith(
            f"https://raw.githubusercontent.com/hmgxr128/Local-SGD/{commit}/train_"
        )
        assert url.endswith(f"/{authors_start(name).path.name}")


@pytest.mark.parametrize("name", ["fig1a", "fig3a", "fig7a"])
def test_the_authors_checkpoints_are_those_of_the_experiments(name: str, tmp_path: Path) -> None:
    """And load into the experiment's model."""
    start = authors_start(name)
    folder = shared_file(start.path.name).parent
    path = tmp_path / start.path.name
    fetch(start.model_copy(update={"path": path, "url": None}), folder)
    settings = expand(AUTHORS[name])[0].settings
    load_model(path, build(settings.model, settings.data, 0, settings.n_groups), start.sha256)
    with pytest.raises(UserError, match="git blob id"):
        Checksum("git blob id", hash_object(path)[::-1]).verify(path, path, "")
    Checksum("git blob id", hash_object(path)).verify(path, path, "")
