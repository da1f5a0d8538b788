"""Test downloads from a real https server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import threading
from pathlib import Path

import pytest

from tests.commands import torchrun, trainer
from tests.conftest import metrics, one_line
from tests.https import Https

CONTENT = b"a checkpoint" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def test_a_file_is_fetched_once_and_verified(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    (folder / "a.pt").write_bytes(CONTENT)
    out = tmp_path / "new folder" / "a.pt"
    words = ["download", "--url", f"{url}/a.pt", "--sha256", DIGEST, "--out", out]
    assert trainer(*words).returncode == 0
    assert out.read_bytes() == CONTENT
    (folder / "a.pt").unlink()  # it is not asked for again
    assert trainer(*words).returncode == 0
    out.write_bytes(b"damaged")
    assert "404" in one_line(trainer(*words))
    assert [path.name for path in out.parent.iterdir()] == ["a.pt"]


def test_another_file_under_the_url_is_refused(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    (folder / "b.pt").write_bytes(CONTENT + b"!")
    done = trainer("download", "--url", f"{url}/b.pt", "--sha256", DIGEST, "--out", tmp_path / "b")
    assert f"expected {DIGEST}" in one_line(done)
    assert not list(tmp_path.iterdir())


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Redirect everyone to a file of another protocol, but serve the right file itself."""

    to: str

    def do_GET(self) -> None:
        if self.path == "/file":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)
            return
        self.send_response(302)
        self.send_header("Location", self.to)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("to", ["http", "ftp://localhost/file", "file:///etc/hostname"])
def test_no_server_sends_us_on_to_another_protocol(https: Https, tmp_path: Path, to: str) -> None:
    plain = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    Elsewhere.to = f"http://localhost:{plain.server_port}/file" if to == "http" else to
    try:
        with https.serving(Elsewhere) as url:
            words = ["--url", f"{url}/a", "--sha256", DIGEST, "--out", tmp_path / "a"]
            assert "cannot be downloaded" in one_line(trainer("download", *words))
    finally:
        plain.shutdown()
        plain.server_close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--url", "http://x.org/a", "--sha256", DIGEST], ["--url", "https://"]),
        (
            ["--url", "https://localhost:9/a", "--sha256", DIGEST],
            ["cannot be downloaded", "put it"],
        ),
        (["--url", "https://x.org/a", "--sha256", "0f"], ["--sha256"]),
        (["--url", "https://localhost:abc/a b", "--sha256", DIGEST], ["cannot be downloaded"]),
        (["--sha256", DIGEST], ["--url", "required"]),
    ],
)
def test_a_bad_address_is_named(words: list[str], expected: list[str], tmp_path: Path) -> None:
    message = one_line(trainer("download", *words, "--out", tmp_path / "a"))
    assert all(part in message for part in expected)


def test_a_run_starts_from_a_url(served: tuple[Path, str], digits: Path, tmp_path: Path) -> None:
    folder, url = served
    common = ["--data-pth", digits, "--epochs", 1, "--total-batch-size", 256]
    assert trainer("train", *common, "--log-pth", tmp_path / "one").returncode == 0
    model = tmp_path / "one" / "model.pt"
    shutil.copyfile(model, folder / "start.pt")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    start = ["--resume", 1, "--resume-pth", f"{url}/start.pt", "--resume-sha256", digest]
    options = [*common, *start, "--eval-on-start", 1, "--log-pth", tmp_path / "two"]
    done = torchrun(2, "train", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "resources" / "checkpoints" / f"{digest[:8]}-start.pt"
    assert kept.read_bytes() == model.read_bytes()
    first, last = metrics(tmp_path / "two")[0], metrics(tmp_path / "one")[-1]
    assert first["test_accuracy"] == last["test_accuracy"]
