"""Download files over https and verify their checksums."""

from __future__ import annotations

import shutil
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tqdm import tqdm

from trainer.errors import UserError
from trainer.files.atomic import atomic
from trainer.files.checksum import Checksum

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

TIMEOUT_SECONDS: Final = 60.0
FOLDER: Final = Path("resources/checkpoints")


def is_url(place: str) -> bool:
    return "://" in place


def https(url: str) -> str:
    """Return ``url``. Raises ValueError unless it is an https URL."""
    if not url.startswith("https://"):
        raise ValueError(f"{url!r} does not begin with https://; give such a URL")
    return url


def download(url: str, checksum: Checksum, path: Path | None = None) -> Path:
    """Fetch ``url`` unless its file is there and has its ``checksum``; return the file's path.

    ``path`` is the file to write; None: one in ``FOLDER``. Raises UserError when the file cannot be
    fetched or has another checksum; then nothing is written.
    """
    # Every run imports this module, few download; these imports take 0.1 s of each start.
    import http.client
    from urllib.request import Request

    name = urllib.parse.urlsplit(url).path.rpartition("/")[-1]
    path = path or FOLDER / f"{checksum.expected[:8]}-{name}"
    if path.is_file() and checksum.fits(path):
        return path
    headers = {"User-Agent": "local-sgd"}
    request = Request(url, headers=headers)  # noqa: S310 the opener accepts https only
    with atomic(path) as temporary:
        try:
            with (
                _https_only_opener().open(request, timeout=TIMEOUT_SECONDS) as response,
                temporary.open("wb") as file,
                tqdm.wrapattr(response, "read", total=response.length, desc=path.name) as source,
            ):
                shutil.copyfileobj(source, file)
            if response.length:  # a connection that breaks reads like the end of the file
                raise OSError(f"it ended {response.length} bytes too early; try again")
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise UserError(
                f"{url}: cannot be downloaded ({error}); get the file another way and "
                f"put it at {path}"
            ) from None
        checksum.verify(temporary, url, "correct the URL or the digest")
    return path


def _https_only_opener() -> OpenerDirector:
    """Build ``urlopen``'s opener, except that no server can redirect to another protocol."""
    import urllib.request as handlers

    opener = handlers.OpenerDirector()
    for handler in (
        handlers.ProxyHandler,
        handlers.HTTPSHandler,
        handlers.UnknownHandler,
        handlers.HTTPRedirectHandler,
        handlers.HTTPDefaultErrorHandler,
        handlers.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
