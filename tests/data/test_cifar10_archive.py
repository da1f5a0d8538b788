"""Test that CIFAR-10's official archive, local or over https, is verified, then read.

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
from trainer.data.preparation.prepare import prepare
from trainer.data.preparation.prepared import read_prepared
from trainer.errors import UserError


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an archive of the official one's layout, accepted in its place.

    Its batches lie in another order than their names' and hold ten images each.
    """
    archive = tmp_path / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        folder = tarfile.TarInfo(CIFAR10.base_folder)
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        for batch in (4, 6, 1, 5, 2, 3):  # 6: test
            seeds = range(10 * (batch - 1), 10 * batch)
            images = np.stack([pixels(seed).transpose(2, 0, 1).ravel() for seed in seeds])
            content = pickle.dumps({"data": images, "labels": list(range(10))})
            add("test_batch" if batch == 6 else f"data_batch_{batch}", content)
        add("readme.html", b"not a batch")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "CIFAR10_SHA256", digest)
    return archive


def assert_prepared(folder: Path, counts: dict[str, int]) -> None:
    assert counts == {"train": 50, "test": 10}
    for split, first in (("train", 0), ("test", 50)):
        read, _ = read_prepared(folder / f"{split}.npz")
        wanted = np.stack([pixels(seed) for seed in range(first, first + counts[split])])
        assert np.array_equal(read.images, wanted)
        assert read.labels.tolist() == list(range(10)) * (counts[split] // 10)


def test_address_and_batches_are_torchvisions() -> None:
    assert CIFAR10.url == module.CIFAR10_URL
    lists = {"train": CIFAR10.train_list, "test": CIFAR10.test_list}
    names = {split: [name for name, _ in batches] for split, batches in lists.items()}
    assert names == module.CIFAR10_BATCHES


def test_a_local_archive_is_read(official: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert_prepared(out, prepare("cifar10", out, official))
    assert {path.name for path in out.iterdir()} == {"train.npz", "test.npz"}


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
    with https.serving(Breaking) as url:
        monkeypatch.setattr(module, "CIFAR10_URL", f"{url}/{CIFAR10.filename}")
        with pytest.raises(UserError, match=r"ended \d+ bytes too early; try again"):
            prepare("cifar10", out)
        assert not list(out.glob("*"))
        for _ in range(2):
            assert_prepared(out, prepare("cifar10", out))
    assert Breaking.asked == 2
    assert {path.name for path in out.iterdir()} == {CIFAR10.filename, "train.npz", "test.npz"}


def test_a_damaged_archive_is_refused(official: Path, tmp_path: Path) -> None:
    official.write_bytes(official.read_bytes()[:-1000])
    with pytest.raises(UserError, match="not the official CIFAR-10 archive"):
        prepare("cifar10", tmp_path / "out", official)
    assert not (tmp_path / "out").exists()
