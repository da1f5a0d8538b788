"""Test that CIFAR-10's official archive, local or over https, is verified and unpacked safely.

Archives of its layout stand in for the real one, and their digests for the expected ones.
"""

import hashlib
import http.server
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from tests.commands import trainer
from tests.conftest import one_line
from tests.https import Https
from trainer.data.preparation import prepare as module
from trainer.data.preparation.prepare import prepare, read_prepared
from trainer.data.specs import DATASETS
from trainer.errors import UserError
from trainer.settings.commands import PrepareSettings


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an archive of the official one's layout, accepted in its place."""
    archive = tmp_path / CIFAR10.filename
    sums: dict[str, str] = {}
    with tarfile.open(archive, "w:gz") as tar:
        folder = tarfile.TarInfo(CIFAR10.base_folder)
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)

        def add(name: str, content: object) -> None:
            data = pickle.dumps(content)
            sums[name] = hashlib.md5(data, usedforsecurity=False).hexdigest()
            info = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for name, _ in CIFAR10.train_list + CIFAR10.test_list:
            images = np.stack([pixels(i).transpose(2, 0, 1).ravel() for i in range(10)])
            add(name, {"data": images, "labels": list(range(10))})
        add("batches.meta", {"label_names": list(DATASETS["cifar10"].classes)})
    for attribute in ("train_list", "test_list"):
        listed = [[name, sums[name]] for name, _ in getattr(CIFAR10, attribute)]
        monkeypatch.setattr(CIFAR10, attribute, listed)
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    expect(archive, monkeypatch)
    return archive


def expect(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "CIFAR10_SHA256", digest)


def assert_prepared(folder: Path, counts: dict[str, int]) -> None:
    assert counts == {"train": 50, "test": 10}
    test, _ = read_prepared(folder / "test.npz")
    assert np.array_equal(test.images[3], pixels(3))
    assert test.labels.tolist() == list(range(10))


def test_a_local_archive_is_read(official: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    counts = prepare(PrepareSettings(dataset="cifar10", source=official, out=out))
    assert_prepared(out, counts)


def test_a_file_that_is_not_the_official_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / CIFAR10.filename
    archive.write_bytes(b"not it")
    words = ["--dataset", "cifar10", "--source", archive, "--out", tmp_path / "out"]
    message = one_line(trainer("prepare", *words))
    assert hashlib.sha256(b"not it").hexdigest() in message
    assert "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce" in message
    assert not list((tmp_path / "out").glob("*"))


class Breaking(http.server.SimpleHTTPRequestHandler):
    """End the first answer in mid-file."""

    content: bytes
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[: 1000 if self.asked == 1 else None])

    def log_message(self, *_: object) -> None:
        pass


def test_it_is_downloaded_over_https_once_and_after_a_break_anew(
    official: Path, https: Https, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Breaking.content = official.read_bytes()
    out = tmp_path / "out"
    settings = PrepareSettings(dataset="cifar10", out=out)
    with https.serving(Breaking) as url:
        monkeypatch.setattr(CIFAR10, "url", f"{url}/{CIFAR10.filename}")
        with pytest.raises(UserError, match=r"ended after 1000 of \d+ bytes; try again"):
            prepare(settings)
        assert not list(out.glob("*"))
        for _ in range(2):
            assert_prepared(out, prepare(settings))
    assert Breaking.asked == 2
    assert {path.name for path in out.iterdir()} == {CIFAR10.filename, "train.npz", "test.npz"}


def member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, to, 0o6755
    info.size = 5 if kind == tarfile.REGTYPE else 0
    return info


HOSTILE = {
    "parent": [member("../escaped")],
    "hidden parent": [member("cifar-10-batches-py/../../escaped")],
    "absolute": [member("{outside}/escaped")],
    "symlink": [member("a", tarfile.SYMTYPE, "{outside}"), member("a/escaped")],
    "symlink upwards": [member("a", tarfile.SYMTYPE, ".."), member("a/escaped")],
    "symlink inside": [member("a"), member("b", tarfile.SYMTYPE, "a")],
    "hard link": [member("a", tarfile.LNKTYPE, "{outside}/kept"), member("a")],
    "device": [member("a", tarfile.CHRTYPE)],
    "pipe": [member("a", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Check this even for an archive with the right digest."""
    outside, temporary = tmp_path / "outside", tmp_path / "temporary"
    outside.mkdir()
    temporary.mkdir()
    (outside / "kept").write_text("kept")
    archive = tmp_path / "hostile.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(member("cifar-10-batches-py/harmless"), io.BytesIO(b"12345"))
        for info in HOSTILE[kind]:
            placed = member(info.name.format(outside=outside), info.type, info.linkname)
            placed.linkname = info.linkname.format(outside=outside)
            tar.addfile(placed, io.BytesIO(b"12345"))
    expect(archive, monkeypatch)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="is a link or a device, or leads out of"):
        prepare(PrepareSettings(dataset="cifar10", source=archive, out=tmp_path / "out"))
    assert sorted(tmp_path.rglob("*")) == before
    assert (outside / "kept").read_text() == "kept"


def test_a_damaged_archive_is_refused_in_one_line(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official.write_bytes(official.read_bytes()[:-1000])
    expect(official, monkeypatch)
    with pytest.raises(UserError, match="cannot be unpacked"):
        prepare(PrepareSettings(dataset="cifar10", source=official, out=tmp_path / "out"))
